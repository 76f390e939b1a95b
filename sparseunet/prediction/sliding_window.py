"""Cover a scan with overlapping patches and blend the logits of the network."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor

from sparseunet.prediction.logits_window import LogitsWindow, planes_at_once
from sparseunet.prediction.memory import MemoryLimit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How a scan is covered with patches.

    Raises:
        ValueError: A value is out of its range; says which.
    """

    patch_size: tuple[int, ...]
    """Voxels along (z, y, x) or (y, x)."""
    step: float = 0.5
    """Distance of neighbouring patches as a fraction of the patch, in (0, 1]."""
    mirror_axes: tuple[int, ...] = ()
    """Spatial axes of the patch (0 is its first) along which mirrored passes are averaged: all 2^n
    combinations. Empty for none."""
    batch_size: int = 1
    """Patches (mirrored ones count) that are predicted together."""

    def __post_init__(self) -> None:
        dimensions = len(self.patch_size)
        if dimensions not in (2, 3) or any(size < 1 for size in self.patch_size):
            raise ValueError(f"Expected a patch of 2 or 3 positive sizes, found {self.patch_size}.")
        if not 0 < self.step <= 1:
            raise ValueError(f"Expected a step in (0, 1], found {self.step}.")
        if any(axis not in range(dimensions) for axis in self.mirror_axes):
            raise ValueError(
                f"Mirror axes {self.mirror_axes} are not all axes of a {dimensions}D patch; "
                f"expected numbers from 0 to {dimensions - 1}."
            )
        if self.batch_size < 1:
            raise ValueError(f"Expected at least one patch per batch, found {self.batch_size}.")


def sliding_window(
    predict_tile: Callable[[Tensor], Tensor],
    image_CZYX: np.ndarray | Tensor,
    *,
    tiling: Tiling,
    num_outputs: int,
    device: torch.device,
    memory: MemoryLimit | None = None,
) -> Iterator[Tensor]:
    """Predict a scan patch by patch and yield the blended logits, a few planes at a time.

    Patches overlap as in nnU-Net 2.8.1 (`tile_starts`) and are blended with its Gaussian
    importance (`tile_weights`). With a 2D patch every slice along z is predicted for itself, slices
    batched. A scan smaller than the patch is padded with zeros on both sides and unpadded again.
    Every patch is predicted, those that hold nothing but zeros too: instance normalisation makes
    what the network says about zeros depend on the rest of the patch, so no answer is known
    beforehand.

    Patches come in order of z, so planes behind them never change again and are handed on. Memory:
    float32 logits of as many planes as a patch is thick, plus one batch of patches. They lie on
    `device`; in main memory when it has too little for them; in a file when that has too little
    too (`memory`). Where they lie changes no bit.

    Args:
        predict_tile: Maps patches (B, C, Z, Y, X), or (B, C, Y, X) for a 2D patch, on `device` to
            logits (B, K, ...) of the same size. Runs in inference mode.
        image_CZYX: The preprocessed scan, any size.
        tiling: Patches, overlap and mirrored passes.
        num_outputs: K, the number of channels that `predict_tile` returns.
        device: Where patches are predicted.
        memory: How much main memory there is; None for no limit.

    Yields:
        Logits (K, n, Y, X) of the next n planes along z, float32, in main memory.

    Raises:
        ValueError: `predict_tile` returned another number of channels.
    """
    dimensions = len(tiling.patch_size)
    patch_ZYX = (1,) * (3 - dimensions) + tiling.patch_size
    steps = (1.0,) * (3 - dimensions) + (tiling.step,) * dimensions
    padded, (z, y, x) = _pad_to(torch.as_tensor(image_CZYX, dtype=torch.float32), patch_ZYX)
    flips = _subsets(tiling.mirror_axes)
    tiles = _tiles(padded.shape[1:], patch_ZYX, steps, share=1 / len(flips))
    passes = list(itertools.product(tiles, flips))
    many = tiling.batch_size
    batches = [passes[first : first + many] for first in range(0, len(passes), many)]
    blender = _Blender(predict_tile, padded, device=device, flat=dimensions == 2)
    blender.open_window((_depth(batches), num_outputs, *padded.shape[2:]), memory or MemoryLimit())
    at_once, taken = planes_at_once(num_outputs, padded.shape[2:]), 0
    for batch, following in itertools.zip_longest(batches, batches[1:]):
        blender.add(batch)
        # Nothing is added any more before the first plane of the next patch.
        finished = _first_plane(following) if following else padded.shape[1]
        while taken < finished:
            stop = min(taken + at_once, finished)
            planes = blender.window.take(taken, stop, y=y, x=x)
            wanted = slice(max(z.start - taken, 0), max(min(z.stop, stop) - taken, 0))
            taken = stop
            if planes[:, wanted].numel():
                yield planes[:, wanted]


def tile_starts(size: int, patch: int, *, step: float) -> tuple[int, ...]:
    """Return the first voxel of every patch along one axis.

    nnU-Net 2.8.1: ceil((size - patch) / (step · patch)) + 1 patches, evenly spread from the first
    to the last possible place and rounded. Together they cover the axis.

    >>> tile_starts(10, 4, step=0.5)  # ceil(6 / 2) + 1 = 4 patches, 6 / 3 = 2 voxels apart
    (0, 2, 4, 6)
    >>> tile_starts(11, 4, step=0.5)  # 5 patches, 7 / 4 = 1.75 voxels apart, rounded
    (0, 2, 4, 5, 7)

    Raises:
        ValueError: The axis is shorter than the patch, or `step` is not in (0, 1].
    """
    if size < patch:
        raise ValueError(f"The axis has {size} voxels, the patch {patch}; pad the axis first.")
    if not 0 < step <= 1:
        raise ValueError(f"Expected a step in (0, 1], found {step}.")
    num_steps = math.ceil((size - patch) / (patch * step)) + 1
    if num_steps == 1:
        return (0,)
    distance = (size - patch) / (num_steps - 1)
    return tuple(round(distance * position) for position in range(num_steps))


def tile_weights(size: int, patch: int, starts: Sequence[int]) -> np.ndarray:
    """Return the share each patch has in each of its voxels along one axis; shares sum to one.

    The importance of a voxel in a patch is a Gaussian around the patch's centre, sigma = patch / 8
    (nnU-Net 2.8.1). Its share is its importance divided by the sum over all patches that cover the
    voxel. Gaussian and grid of patches are products over the axes, so the shares of a volume are
    the outer product of the shares along its axes and sum to 1 as well: no volume of summed weights
    is needed, and nothing underflows in the corners.

    Example: 6 voxels, patches of 4 from voxels 0 and 2, sigma 1/2. The importance at distances
    -2, -1, 0, 1 from the centre is 0.0003, 0.135, 1, 0.135. Voxel 2 is the first patch's centre and
    the first voxel of the second: shares 1 / 1.0003 and 0.0003 / 1.0003. Voxel 3 has 0.135 in
    both: shares 1/2 and 1/2. Voxels 0, 1 and 4, 5 lie in one patch each: share 1.

    >>> tile_weights(6, 4, (0, 2)).round(2).tolist()
    [[1.0, 1.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]]

    Returns:
        float32, shape (number of patches, patch).
    """
    distance = np.arange(patch) - patch // 2
    importance = np.exp(-0.5 * (distance / (patch / 8)) ** 2)
    total = np.zeros(size)
    for start in starts:
        total[start : start + patch] += importance
    shares = [importance / total[start : start + patch] for start in starts]
    return np.stack(shares).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tile:
    """One patch of the padded scan, with its weights along each axis."""

    where: tuple[slice, slice, slice]
    weights: tuple[Tensor, Tensor, Tensor]


_Pass = tuple[_Tile, tuple[int, ...]]
"""A tile and the axes it is mirrored along."""


class _Blender:
    """Predicts batches of patches and adds the logits to a window of planes."""

    window: LogitsWindow

    def __init__(
        self,
        predict_tile: Callable[[Tensor], Tensor],
        padded_CZYX: Tensor,
        *,
        device: torch.device,
        flat: bool,
    ) -> None:
        self._predict_tile = predict_tile
        self._device = self._storage = device
        self._source_CZYX = padded_CZYX
        self._flat = flat
        self._tile: _Tile | None = None
        self._weights_ZYX = torch.empty(0)

    def open_window(self, shape: tuple[int, ...], memory: MemoryLimit) -> None:
        """Make the window on the device if that has room, else where `memory` says."""
        if self._device.type != "cpu":
            try:
                self._source_CZYX = self._source_CZYX.to(self._device)
                self.window = LogitsWindow(torch.zeros(shape, device=self._device))
                return
            except torch.OutOfMemoryError:
                self._leave_device()
        buffer = memory.zeros(shape)
        self.window = LogitsWindow(buffer.values, buffer.forget)

    def add(self, batch: Sequence[_Pass]) -> None:
        """Predict a batch and add its logits at their places, mirrored back and weighted."""
        try:
            logits = self._predict(batch)
        except torch.OutOfMemoryError:
            if self._storage.type == "cpu":
                raise
            self._leave_device()
            self.window.move_to(self._storage)
            torch.cuda.empty_cache()
            logits = self._predict(batch)
        if logits.shape[:2] != (len(batch), self.window.num_outputs):
            raise ValueError(
                f"The network answered {len(batch)} patches with {tuple(logits.shape[:2])} "
                f"(patches, channels); expected {(len(batch), self.window.num_outputs)}."
            )
        with torch.inference_mode():
            for (tile, flips), patch_logits in zip(batch, logits, strict=True):
                unflipped = _flip(patch_logits, flips)
                logits_KZYX = unflipped[:, None] if unflipped.dim() == 3 else unflipped
                self.window.add(logits_KZYX, tile.where, self._weights_of(tile))

    def _predict(self, batch: Sequence[_Pass]) -> Tensor:
        """Return the logits of a batch, still mirrored, on the device."""
        with torch.inference_mode():
            patches = _cut(self._source_CZYX, batch, flat=self._flat)
            return self._predict_tile(patches.to(self._device))

    def _weights_of(self, tile: _Tile) -> Tensor:
        """Return the weights (Z, Y, X) of a tile, kept for the mirrored passes that follow."""
        if tile is not self._tile:
            weight_z, weight_y, weight_x = (weight.to(self._storage) for weight in tile.weights)
            self._tile, self._weights_ZYX = tile, weight_z * weight_y * weight_x
        return self._weights_ZYX

    def _leave_device(self) -> None:
        """Keep scan and logits in main memory from now on."""
        logger.warning("%s cannot hold the logits; they go to main memory.", self._device)
        self._storage, self._tile = torch.device("cpu"), None
        self._source_CZYX = self._source_CZYX.cpu()


def _pad_to(image_CZYX: Tensor, patch_ZYX: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad with zeros to at least the patch; return where the image lies in the result."""
    padded_CZYX, inner = pad_nd_image(image_CZYX, tuple(patch_ZYX), return_slicer=True)
    return padded_CZYX, tuple(slice(int(along.start), int(along.stop)) for along in inner[1:])


def _tiles(
    shape_ZYX: Sequence[int],
    patch_ZYX: Sequence[int],
    steps: Sequence[float],
    *,
    share: float,
) -> Iterator[_Tile]:
    """Yield all tiles in order of z, then y, then x.

    The weights of all tiles that cover a voxel sum to `share`: 1 over the number of mirrored
    passes, so that the sum over all passes is 1.
    """
    axes = []
    for axis, (size, patch, step) in enumerate(zip(shape_ZYX, patch_ZYX, steps, strict=True)):
        starts = tile_starts(size, patch, step=step)
        broadcast = [1, 1, 1]
        broadcast[axis] = patch
        weights = torch.from_numpy(tile_weights(size, patch, starts))
        axes.append(
            [
                (slice(start, start + patch), weight.reshape(broadcast))
                for start, weight in zip(starts, weights, strict=True)
            ]
        )
    for (z, weight_z), (y, weight_y), (x, weight_x) in itertools.product(*axes):
        yield _Tile(where=(z, y, x), weights=(share * weight_z, weight_y, weight_x))


def _first_plane(batch: Sequence[_Pass]) -> int:
    """Return the first plane along z that a batch adds to."""
    return batch[0][0].where[0].start


def _depth(batches: Sequence[Sequence[_Pass]]) -> int:
    """Return how many planes change while any one batch is added."""
    return max(batch[-1][0].where[0].stop - _first_plane(batch) for batch in batches)


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every combination of the axes, the empty one first."""
    distinct = sorted(set(axes))
    return [
        chosen
        for count in range(len(distinct) + 1)
        for chosen in itertools.combinations(distinct, count)
    ]


def _cut(source_CZYX: Tensor, batch: Sequence[_Pass], *, flat: bool) -> Tensor:
    """Return the mirrored patches of a batch, without the z axis when `flat`."""
    patches = []
    for tile, flips in batch:
        patch_CZYX = source_CZYX[(slice(None), *tile.where)]
        patch = patch_CZYX[:, 0] if flat else patch_CZYX
        patches.append(_flip(patch, flips))
    return torch.stack(patches)


def _flip(array: Tensor, axes: Sequence[int]) -> Tensor:
    """Mirror spatial axes behind the channels; the array itself, not a copy, for none."""
    return array.flip([1 + axis for axis in axes]) if axes else array
