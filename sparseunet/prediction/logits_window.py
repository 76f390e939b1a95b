"""The planes of blended logits that still change, while patches move along the scan."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

_BYTES_AT_ONCE = 2**24
"""Bytes of logits that are weighted at a time, about."""


class LogitsWindow:
    """A ring of planes: plane z of the scan lies at z modulo the number of planes held.

    A plane must be taken out before the one that lies at the same place is added to.
    """

    def __init__(self, values_ZKYX: Tensor, forget: Callable[[], None] = lambda: None) -> None:
        """Use zeros as the ring; `forget` is called when they need not be in memory for now."""
        self._values_ZKYX = values_ZKYX
        self._forget = forget

    @property
    def num_outputs(self) -> int:
        """K, the number of channels."""
        return self._values_ZKYX.shape[1]

    def move_to(self, device: torch.device) -> None:
        """Move the planes to a device; their values stay the same."""
        self._values_ZKYX = self._values_ZKYX.to(device)

    def add(
        self, logits_KZYX: Tensor, where: tuple[slice, slice, slice], weights_ZYX: Tensor
    ) -> None:
        """Add weighted logits of one patch where it lies in the scan."""
        z, y, x = where
        step = max(1, _BYTES_AT_ONCE // (4 * weights_ZYX.numel()))
        for inside, places in self._places(z):
            weights_1ZYX = weights_ZYX[inside][None]
            for first in range(0, self.num_outputs, step):
                channels = slice(first, first + step)
                part_KZYX = logits_KZYX[channels, inside].to(
                    self._values_ZKYX.device, torch.float32
                )
                weighted_ZKYX = (part_KZYX * weights_1ZYX).transpose(0, 1)
                self._values_ZKYX[places, channels, y, x] += weighted_ZKYX
                self._forget()

    def take(self, first: int, stop: int, *, y: slice, x: slice) -> Tensor:
        """Return a part of the planes from `first` to before `stop`, and make room for others.

        Returns:
            A copy in main memory, float32 (K, Z, Y, X).
        """
        taken = []
        for _, places in self._places(slice(first, stop)):
            planes_KZYX = self._values_ZKYX[places, :, y, x].transpose(0, 1).cpu()
            taken.append(planes_KZYX.clone(memory_format=torch.contiguous_format))
            self._values_ZKYX[places] = 0
        self._forget()
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=1)

    def _places(self, planes: slice) -> Iterator[tuple[slice, slice]]:
        """Yield which of the planes lie side by side in the ring, and where."""
        depth = len(self._values_ZKYX)
        first = planes.start
        while first < planes.stop:
            place = first % depth
            count = min(planes.stop - first, depth - place)
            inside = slice(first - planes.start, first - planes.start + count)
            yield inside, slice(place, place + count)
            first += count


def planes_at_once(num_outputs: int, plane_YX: Sequence[int]) -> int:
    """Return how many finished planes are handed on at a time."""
    return max(1, _BYTES_AT_ONCE // (4 * num_outputs * plane_YX[0] * plane_YX[1]))
