"""Sample arrays where the voxels of a moved patch lie.

Own code because labels and weights must come from the nearest voxel of the same index, and because
it takes a third of the time of torch's `grid_sample`.
"""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from sparseunet.training.augmentation import Movement

Box = tuple[int, int, int]

_POINTS_AT_ONCE = 2**15
"""So that coordinates stay in the processor's cache."""
_ROUNDING_VOXELS = 1e-3
"""Greater than the rounding error of coordinates in float32."""


class SamplePoints:
    """Points of a rotated, zoomed or deformed patch, and the box of a scan that holds them all."""

    def __init__(self, size: Box, movement: Movement) -> None:
        """Find the box.

        Args:
            size: Voxels of the patch along (z, y, x).
            movement: With a matrix or a displacement, or both.
        """
        matrix, displacement = movement.matrix, movement.displacement
        if matrix is None:
            if displacement is None:
                raise ValueError("The movement neither maps nor deforms; nothing is to be sampled.")
            matrix = np.eye(len(displacement))
        dimensions = len(matrix)
        self._matrix, self._displacement = matrix, displacement
        self._size = size[-dimensions:]
        self._half = (np.array(self._size) - 1) / 2
        reach = self._half.copy()
        if displacement is not None:
            reach += np.abs(displacement).reshape(dimensions, -1).max(axis=1)
        reach = np.abs(self._matrix) @ reach + _ROUNDING_VOXELS
        low = np.floor(self._half - reach).astype(int)
        high = np.floor(self._half + reach).astype(int) + 1
        untouched = 3 - dimensions
        self._origin = self._half - low
        self._box = tuple((high - low + 1).tolist())
        self.start: Box = _box((0,) * untouched + tuple(low.tolist()))
        """First voxel of the box, counted from the first voxel of the unmoved patch."""
        self.size: Box = _box(size[:untouched] + self._box)
        """Voxels of the box along (z, y, x)."""

    def linear(self, box_CZYX: np.ndarray) -> np.ndarray:
        """Return image_CZYX at the points, float32, linear between voxels."""
        flat = self._flat(box_CZYX)
        sampled = np.empty((len(flat), *self._size), np.float32)
        strides = [prod(self._box[axis + 1 :]) for axis in range(len(self._box))]
        for rows, coordinates in self._slabs():
            corners = [np.floor(along) for along in coordinates]
            shares = [along - corner for along, corner in zip(coordinates, corners, strict=True)]
            index = self._index(corners)
            for source, target in zip(flat, sampled, strict=True):
                target[rows] = _between(source, index, shares, strides)
        return sampled.reshape(*box_CZYX.shape[: -len(self._size)], *self._size)

    def nearest(self, boxes_ZYX: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return each array at the voxels nearest to the points, with its own type."""
        flats = [self._flat(box_ZYX) for box_ZYX in boxes_ZYX]
        sampled = [np.empty((len(flat), *self._size), flat.dtype) for flat in flats]
        for rows, coordinates in self._slabs():
            index = self._index([np.rint(along) for along in coordinates])
            for flat, target in zip(flats, sampled, strict=True):
                for source, plane in zip(flat, target, strict=True):
                    plane[rows] = source.take(index)
        return [
            array.reshape(*box_ZYX.shape[: -len(self._size)], *self._size)
            for array, box_ZYX in zip(sampled, boxes_ZYX, strict=True)
        ]

    def _flat(self, box: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(box).reshape(-1, prod(self._box))

    def _slabs(self) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Yield parts of the patch along its first axis, with float32 coordinates in the box."""
        step = max(1, _POINTS_AT_ONCE // prod(self._size[1:]))
        for first in range(0, self._size[0], step):
            rows = slice(first, min(first + step, self._size[0]))
            yield rows, self._coordinates(rows)

    def _coordinates(self, rows: slice) -> list[np.ndarray]:
        dimensions = len(self._size)
        offsets = [
            np.arange(size) - half for size, half in zip(self._size, self._half, strict=True)
        ]
        offsets[0] = offsets[0][rows]
        coordinates = []
        for factors, origin in zip(self._matrix, self._origin, strict=True):
            along: np.ndarray = np.array(origin, np.float32)
            for axis in reversed(range(dimensions)):  # the small arrays first
                column = (factors[axis] * offsets[axis]).astype(np.float32)
                along = along + column.reshape((-1,) + (1,) * (dimensions - 1 - axis))
            if self._displacement is not None:
                moved = self._displacement[:, rows]
                along += np.tensordot(factors.astype(np.float32), moved, axes=1)
            coordinates.append(along)
        return coordinates

    def _index(self, voxels: Sequence[np.ndarray]) -> np.ndarray:
        index = voxels[0].astype(np.intp)
        for along, size in zip(voxels[1:], self._box[1:], strict=True):
            index *= size
            index += along.astype(np.intp)
        return index


def _between(
    source: np.ndarray,
    index: np.ndarray,
    shares: Sequence[np.ndarray],
    strides: Sequence[int],
) -> np.ndarray:
    """Return values between `index` and the next voxels along each axis."""
    if not shares:
        return source.take(index)
    low = _between(source, index, shares[1:], strides[1:])
    high = _between(source[strides[0] :], index, shares[1:], strides[1:])
    high -= low
    high *= shares[0]
    low += high
    return low


def _box(values: Sequence[int]) -> Box:
    z, y, x = values
    return z, y, x
