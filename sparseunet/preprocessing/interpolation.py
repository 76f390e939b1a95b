"""Interpolation along one axis: which source positions an output position reads, and how much.

Positions follow the rule of resized images: voxel i of n covers [i/n, (i+1)/n] of the axis, so
output o of m reads at (o + 0.5) · n/m - 0.5, and the border value continues outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ANISOTROPY_THRESHOLD = 3.0
"""Spacing ratio above which the coarsest axis is not interpolated across (nnU-Net 2.8.1)."""

_NEGLIGIBLE_WEIGHT = 1e-8
_ROWS_PER_BLOCK = 48


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AxisMap:
    """How one axis of `size` voxels is brought to `new_size` voxels. Arrays are read-only."""

    size: int
    new_size: int
    weights: np.ndarray
    """float32, shape (new_size, size); rows sum to 1."""
    nearest: np.ndarray
    """int, shape (new_size,): the source position nearest to each output position."""
    cell_starts: np.ndarray
    """int, shape (new_size,). Where the axis shrinks, output o is the nearest output of the source
    positions from cell_starts[o] to before cell_starts[o + 1], always at least one, `nearest[o]`
    among them. Where it does not, equal to `nearest`."""
    cell_weights: np.ndarray
    """float32, shape (new_size, size). Where the axis shrinks, nonzero exactly in the cell of the
    output and largest at its centre. Where it does not, equal to `weights`."""

    @property
    def shrinks(self) -> bool:
        """Whether several source positions share an output position."""
        return self.new_size < self.size


@lru_cache(maxsize=64)
def axis_map(size: int, new_size: int, *, order: int) -> AxisMap:
    """Build the map of one axis.

    Args:
        size: Number of source positions, at least 1.
        new_size: Number of output positions, at least 1.
        order: 0 nearest, 1 linear, 3 cubic spline.

    Returns:
        Weights that equal those of `skimage.transform.resize(mode="edge", anti_aliasing=False)`.
    """
    # In floating point, so that positions half way between two voxels round as in nnU-Net.
    centers = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    nearest = np.clip(np.floor(centers + 0.5), 0, size - 1).astype(np.intp)
    if order == 0 or size == new_size:
        weights = np.zeros((new_size, size), np.float32)
        weights[np.arange(new_size), nearest] = 1
    else:
        from scipy import ndimage

        zoomed = ndimage.zoom(
            np.eye(size), (new_size / size, 1), order=order, mode="nearest", grid_mode=True
        )
        zoomed[np.abs(zoomed) < _NEGLIGIBLE_WEIGHT] = 0
        weights = zoomed.astype(np.float32)
    cell_starts, cell_weights = nearest, weights
    if new_size < size:
        cell_starts, cell_weights = _cells(size, new_size)
    for array in (nearest, weights, cell_starts, cell_weights):
        array.setflags(write=False)
    return AxisMap(
        size=size,
        new_size=new_size,
        weights=weights,
        nearest=nearest,
        cell_starts=cell_starts,
        cell_weights=cell_weights,
    )


def separate_axis(spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]) -> int | None:
    """Return the axis that is sampled by nearest neighbour because slices lie too far apart.

    nnU-Net 2.8.1: if the largest of the current spacings is more than three times the smallest, it
    is the axis of the largest, unless two axes share it; else the new spacings are asked likewise.
    None: all axes are interpolated alike.
    """
    for spacing in (spacing_mm, new_spacing_mm):
        if max(spacing) / min(spacing) > ANISOTROPY_THRESHOLD:
            largest = [axis for axis, size in enumerate(spacing) if size == max(spacing)]
            return largest[0] if len(largest) == 1 else None
    return None


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Return the number of voxels at the new spacing: round(old spacing / new spacing · size)."""
    z, y, x = (
        max(1, round(old / new * size))
        for size, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)
    )
    return z, y, x


def apply_weights(array_ZYX: np.ndarray, weights: Sequence[np.ndarray | None]) -> np.ndarray:
    """Multiply every axis with its weights (new_size, size); None leaves an axis as it is.

    Axes that shrink go first. The weights are narrow bands, so blocks of output positions are
    multiplied with the source positions they read only.
    """

    def growth(axis: int) -> float:
        matrix = weights[axis]
        return 1.0 if matrix is None else matrix.shape[0] / matrix.shape[1]

    result_ZYX = array_ZYX
    for axis in sorted(range(3), key=growth):
        matrix = weights[axis]
        if matrix is not None:
            result_ZYX = _multiply_axis(result_ZYX, matrix, axis)
    return result_ZYX


def source_window(weights: np.ndarray) -> slice:
    """Return the smallest range of source positions that holds every nonzero weight."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


def pool_cells(array: np.ndarray, maps: Sequence[AxisMap]) -> np.ndarray:
    """Return the maximum over the cell of every output position, axis by axis."""
    for axis, step in enumerate(maps):
        if step.shrinks:
            array = np.maximum.reduceat(array, step.cell_starts, axis=axis)
        else:
            array = np.take(array, step.nearest, axis=axis)
    return array


def take_nearest(array: np.ndarray, maps: Sequence[AxisMap]) -> np.ndarray:
    """Return the value of the nearest source position for every output position.

    The array itself where no axis changes. Axes that shrink go first.
    """
    for axis in sorted(range(len(maps)), key=lambda axis: maps[axis].new_size / maps[axis].size):
        if maps[axis].size != maps[axis].new_size:
            array = np.take(array, maps[axis].nearest, axis=axis)
    return array


def _cells(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `cell_starts` and `cell_weights` of an axis that shrinks; see `AxisMap`.

    Of 5 voxels shrunk to 2, voxels 0 and 1 form one cell and 2, 3 and 4 the other; weights are
    1 - distance from the cell's centre (0.75 and 3.25) over its width 2.5:

    >>> starts, weights = _cells(5, 2)
    >>> starts.tolist(), weights.astype(float).round(1).tolist()
    ([0, 2], [[0.7, 0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.9, 0.7]])
    """
    positions = np.arange(size)
    cell = (2 * positions + 1) * new_size // (2 * size)
    starts = np.searchsorted(cell, np.arange(new_size))
    center = (cell + 0.5) * size / new_size - 0.5
    weights = np.zeros((new_size, size), np.float32)
    weights[cell, positions] = 1 - np.abs(positions - center) * new_size / size
    return starts, weights


def _multiply_axis(array_ZYX: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    new_size = matrix.shape[0]
    shape = list(array_ZYX.shape)
    shape[axis] = new_size
    result_ZYX = np.empty(shape, np.float32)
    for first in range(0, new_size, _ROWS_PER_BLOCK):
        rows = slice(first, min(first + _ROWS_PER_BLOCK, new_size))
        window = source_window(matrix[rows])
        band = matrix[rows, window]
        if axis == 0:
            flat = np.ascontiguousarray(array_ZYX[window]).reshape(band.shape[1], -1)
            result_ZYX[rows] = (band @ flat).reshape(-1, *shape[1:])
        elif axis == 1:
            np.matmul(band, array_ZYX[:, window], out=result_ZYX[:, rows])
        else:
            np.matmul(array_ZYX[:, :, window], band.T, out=result_ZYX[:, :, rows])
    return result_ZYX
