"""Cover a scan with overlapping patches and blend what the network says about them."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_FLOAT32_BYTES = 2 * 2**30
"""Logits of a whole scan that would be larger than this are accumulated in float16."""


def sliding_window_logits(
    predict_tile: Callable[[Tensor], Tensor],
    image_CZYX: np.ndarray | Tensor,
    *,
    patch_size: Sequence[int],
    num_outputs: int,
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
    device: torch.device,
    tile_batch_size: int = 1,
) -> Tensor:
    """Predict a scan patch by patch and return the blended logits.

    Patches overlap as in nnU-Net 2.8.1 (`tile_starts`) and are blended with its Gaussian
    importance (`tile_weights`). With a 2D patch every slice along z is predicted for itself, slices
    batched. A scan smaller than the patch is padded with zeros on both sides and unpadded again.

    Memory: the logits of the padded scan, in float32 up to `MAX_FLOAT32_BYTES` and in float16
    beyond, plus one batch of patches. They lie on `device`, or in main memory when the device has
    too little for them.

    Args:
        predict_tile: Maps patches (B, C, Z, Y, X), or (B, C, Y, X) for a 2D patch, on `device` to
            logits (B, K, ...) of the same size. Runs in inference mode.
        image_CZYX: The preprocessed scan, any size.
        patch_size: Voxels along (z, y, x) or (y, x).
        num_outputs: K, the number of channels that `predict_tile` returns.
        step: Distance of neighbouring patches as a fraction of the patch, in (0, 1].
        mirror_axes: Spatial axes of the patch (0 is its first) along which mirrored passes are
            averaged: all 2^n combinations. Empty for none.
        device: Where patches are predicted.
        tile_batch_size: Patches (mirrored ones count) per call of `predict_tile`.

    Returns:
        Logits (K, Z, Y, X), float32 or float16.

    Raises:
        ValueError: An argument is out of its range; says which.
    """
    _check_arguments(patch_size, step=step, mirror_axes=mirror_axes, batch=tile_batch_size)
    dimensions = len(patch_size)
    patch_ZYX = (1,) * (3 - dimensions) + tuple(patch_size)
    steps = (1.0,) * (3 - dimensions) + (step,) * dimensions
    padded, inner = _pad_to(torch.as_tensor(image_CZYX, dtype=torch.float32), patch_ZYX)
    flips = _subsets(mirror_axes)

    def blend(storage: torch.device) -> Tensor:
        source_CZYX = padded.to(storage)
        logits_KZYX = _zeros(num_outputs, padded.shape[1:], storage)
        tiles = _tiles(padded.shape[1:], patch_ZYX, steps, share=1 / len(flips), device=storage)
        passes = list(itertools.product(tiles, flips))
        for first in range(0, len(passes), tile_batch_size):
            batch = passes[first : first + tile_batch_size]
            patches = _cut(source_CZYX, batch, flat=dimensions == 2)
            _add(logits_KZYX, predict_tile(patches.to(device)), batch)
        return logits_KZYX

    with torch.inference_mode():
        try:
            logits_KZYX = blend(device)
        except torch.OutOfMemoryError:
            if device.type == "cpu":
                raise
            logger.warning("%s cannot hold the logits of a scan; they go to main memory.", device)
            torch.cuda.empty_cache()
            logits_KZYX = blend(torch.device("cpu"))
    return logits_KZYX[(slice(None), *inner)]


def tile_starts(size: int, patch: int, *, step: float) -> tuple[int, ...]:
    """Return the first voxel of every patch along one axis.

    nnU-Net 2.8.1: ceil((size - patch) / (step · patch)) + 1 patches, evenly spread from the first
    to the last possible place and rounded. Together they cover the axis.

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

    A patch counts with a Gaussian around its centre, sigma = patch / 8 (nnU-Net 2.8.1). Both the
    Gaussian and the grid of patches are products over the axes, so the weights of a volume are the
    outer product of these, and normalising each axis normalises the volume: nothing needs to be
    divided by a volume of summed weights, and nothing underflows in the corners.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tile:
    """One patch of the padded scan, with its weights along each axis."""

    where: tuple[slice, slice, slice]
    weights: tuple[Tensor, Tensor, Tensor]


def _check_arguments(
    patch_size: Sequence[int], *, step: float, mirror_axes: Sequence[int], batch: int
) -> None:
    if len(patch_size) not in (2, 3) or any(size < 1 for size in patch_size):
        raise ValueError(f"Expected a patch of 2 or 3 positive sizes, found {tuple(patch_size)}.")
    if not 0 < step <= 1:
        raise ValueError(f"Expected a step in (0, 1], found {step}.")
    if any(axis not in range(len(patch_size)) for axis in mirror_axes):
        raise ValueError(
            f"Mirror axes {tuple(mirror_axes)} are not all axes of a {len(patch_size)}D patch; "
            f"expected numbers from 0 to {len(patch_size) - 1}."
        )
    if batch < 1:
        raise ValueError(f"Expected at least one patch per batch, found {batch}.")


def _pad_to(image_CZYX: Tensor, patch_ZYX: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad with zeros to at least the patch; return where the image lies in the result."""
    padding: list[int] = []
    inner = []
    for size, patch in zip(image_CZYX.shape[1:], patch_ZYX, strict=True):
        missing = max(0, patch - size)
        before = missing // 2
        padding = [before, missing - before, *padding]
        inner.append(slice(before, before + size))
    return torch.nn.functional.pad(image_CZYX, padding), tuple(inner)


def _tiles(
    shape_ZYX: Sequence[int],
    patch_ZYX: Sequence[int],
    steps: Sequence[float],
    *,
    share: float,
    device: torch.device,
) -> Iterator[_Tile]:
    """Yield all tiles; the weights of each voxel sum to `share`."""
    axes = []
    for axis, (size, patch, step) in enumerate(zip(shape_ZYX, patch_ZYX, steps, strict=True)):
        starts = tile_starts(size, patch, step=step)
        broadcast = [1, 1, 1]
        broadcast[axis] = patch
        weights = torch.from_numpy(tile_weights(size, patch, starts)).to(device)
        axes.append(
            [
                (slice(start, start + patch), weight.reshape(broadcast))
                for start, weight in zip(starts, weights, strict=True)
            ]
        )
    for (z, weight_z), (y, weight_y), (x, weight_x) in itertools.product(*axes):
        yield _Tile(where=(z, y, x), weights=(share * weight_z, weight_y, weight_x))


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every combination of the axes, the empty one first."""
    distinct = sorted(set(axes))
    return [
        chosen
        for count in range(len(distinct) + 1)
        for chosen in itertools.combinations(distinct, count)
    ]


def _zeros(num_outputs: int, shape_ZYX: Sequence[int], storage: torch.device) -> Tensor:
    small = num_outputs * math.prod(shape_ZYX) * 4 <= MAX_FLOAT32_BYTES
    dtype = torch.float32 if small else torch.float16
    return torch.zeros((num_outputs, *shape_ZYX), dtype=dtype, device=storage)


_Pass = tuple[_Tile, tuple[int, ...]]
"""A tile and the axes it is mirrored along."""


def _cut(source_CZYX: Tensor, batch: Sequence[_Pass], *, flat: bool) -> Tensor:
    """Return the mirrored patches of a batch, without the z axis when `flat`."""
    patches = []
    for tile, flips in batch:
        patch_CZYX = source_CZYX[(slice(None), *tile.where)]
        patch = patch_CZYX[:, 0] if flat else patch_CZYX
        patches.append(patch.flip([1 + axis for axis in flips]))
    return torch.stack(patches)


def _add(logits_KZYX: Tensor, answers: Tensor, batch: Sequence[_Pass]) -> None:
    """Add the network's answers, mirrored back and weighted, where they belong."""
    if answers.shape[:2] != (len(batch), len(logits_KZYX)):
        raise ValueError(
            f"The network answered {len(batch)} patches with {tuple(answers.shape[:2])} (patches, "
            f"channels); expected {(len(batch), len(logits_KZYX))}."
        )
    answers = answers.to(logits_KZYX.device, torch.float32)
    for (tile, flips), answer in zip(batch, answers, strict=True):
        weight_z, weight_y, weight_x = tile.weights
        straight = answer.flip([1 + axis for axis in flips])
        answer_KZYX = straight[:, None] if straight.dim() == 3 else straight
        logits_KZYX[(slice(None), *tile.where)] += answer_KZYX * (weight_z * weight_y * weight_x)
