"""Logits arrive a few planes at a time and leave as slabs on the grid of the scan's crop box."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparseunet.preprocessing.blas import one_blas_thread
from sparseunet.preprocessing.case import Restoration
from sparseunet.preprocessing.interpolation import apply_weights
from sparseunet.preprocessing.resample import LABEL_ORDER, axis_maps, slabs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slab:
    """Some planes of the crop box, and what they are interpolated from."""

    rows: slice
    """Planes of the crop box, along its first (transposed) axis."""
    _parts: tuple[np.ndarray, ...]
    _weights: tuple[np.ndarray | None, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the logits that the slab is interpolated from."""
        return sum(part.nbytes for part in self._parts)

    def scores(self) -> Iterator[np.ndarray]:
        """Yield each channel, resampled linearly to these planes; float32 (z, y, x)."""
        for channel in range(len(self._parts[0])):
            planes = [part[channel] for part in self._parts]
            window_ZYX = planes[0] if len(planes) == 1 else np.concatenate(planes)
            with one_blas_thread():
                yield apply_weights(window_ZYX, self._weights)


class SlabCutter:
    """Keeps planes of the network's grid until every slab that needs them is cut.

    The slabs are those of `preprocessing.resample.logits_to_labels`, so the numbers are, too.
    """

    def __init__(self, restoration: Restoration, *, num_channels: int) -> None:
        maps = axis_maps(
            restoration.network_shape,
            restoration.crop_shape,
            spacing_mm=restoration.target_spacing_mm,
            new_spacing_mm=restoration.spacing_mm,
            order=LABEL_ORDER,
        )
        self._todo = deque(slabs(maps, num_channels=num_channels))
        self._held: deque[tuple[int, np.ndarray]] = deque()
        self._num_planes = 0

    def add(self, planes_KZYX: np.ndarray) -> Iterator[Slab]:
        """Take the next planes along the first axis; yield every slab that they complete.

        Slabs share memory with the planes, which must not change afterwards.
        """
        self._held.append((self._num_planes, planes_KZYX))
        self._num_planes += planes_KZYX.shape[1]
        while self._todo and self._todo[0][1].stop <= self._num_planes:
            rows, window, weights = self._todo.popleft()
            yield Slab(rows=rows, _parts=self._parts(window), _weights=weights)
            needed = self._todo[0][1].start if self._todo else self._num_planes
            while self._held and self._held[0][0] + self._held[0][1].shape[1] <= needed:
                self._held.popleft()

    def _parts(self, window: slice) -> tuple[np.ndarray, ...]:
        parts = []
        for first, planes_KZYX in self._held:
            start, stop = max(window.start - first, 0), window.stop - first
            if start < planes_KZYX.shape[1] and stop > 0:
                parts.append(planes_KZYX[:, start:stop])
        return tuple(parts)
