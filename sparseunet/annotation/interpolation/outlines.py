"""Signed distances to the outlines of classes in annotated slices."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Box = tuple[slice, slice]
"""Part of a slice."""
_UNMOVED_PIXELS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outline:
    """One class in one slice, inside the box of the class."""

    distance_mm: np.ndarray
    """float32, to the border of the class: positive inside, negative outside."""
    center: tuple[float, float]
    """Centre of mass in pixels."""


class Outlines:
    """The outlines of all classes in some slices, computed when asked for and kept until forgotten.

    Each class has one box for all slices: everything that it covers in any of them and a rim.
    """

    def __init__(
        self,
        labels_KYX: np.ndarray,
        slices: Iterable[int],
        *,
        spacing_mm: tuple[float, float],
        rim_mm: float,
    ) -> None:
        """Find the boxes.

        Args:
            labels_KYX: Label values, 0 is background; the first axis counts slices.
            slices: Indices of slices that may be asked for.
            spacing_mm: Pixel size.
            rim_mm: Width of the rim around what a class covers; at least one pixel is taken.
        """
        self._labels_KYX = labels_KYX
        self._spacing_mm = spacing_mm
        self._known: dict[tuple[int, int], Outline | None] = {}
        found: dict[int, list[Box]] = {}
        for index in slices:
            for value, box in enumerate(ndimage.find_objects(labels_KYX[index]), start=1):
                if box is not None:
                    found.setdefault(value, []).append(box)
        rim = [1 + int(rim_mm / spacing) for spacing in spacing_mm]
        self._boxes = {
            value: _around(boxes, rim, labels_KYX.shape[1:]) for value, boxes in found.items()
        }

    @property
    def values(self) -> tuple[int, ...]:
        """Every class that occurs in one of the slices, without background."""
        return tuple(sorted(self._boxes))

    def box(self, value: int) -> Box:
        """Return the box of a class."""
        return self._boxes[value]

    def outline(self, index: int, value: int) -> Outline | None:
        """Return a class in one slice, or None if it is absent there."""
        if (index, value) not in self._known:
            self._known[index, value] = self._trace(index, value)
        return self._known[index, value]

    def keep_only(self, slices: Iterable[int]) -> None:
        """Forget all other slices, to save memory."""
        kept = set(slices)
        self._known = {key: item for key, item in self._known.items() if key[0] in kept}

    def _trace(self, index: int, value: int) -> Outline | None:
        inside = self._labels_KYX[index][self._boxes[value]] == value
        if not inside.any():
            return None
        row, column = ndimage.center_of_mass(inside)
        return Outline(distance_mm=signed_distance(inside, self._spacing_mm), center=(row, column))


def signed_distance(inside: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the distance to the nearest pixel on the other side, negative outside, float32.

    Where there is no other side, the distance is that across the whole array and a pixel more.
    """
    beyond = float(np.hypot(*((np.array(inside.shape) + 1) * spacing_mm)))
    if inside.all() or not inside.any():
        return np.full(inside.shape, beyond if inside.any() else -beyond, np.float32)
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing_mm).astype(np.float32)
    np.negative(distance, out=distance)
    (around,) = ndimage.find_objects(inside.view(np.uint8))
    box = _around([around], [1, 1], inside.shape)
    distance[box] += ndimage.distance_transform_edt(inside[box], sampling=spacing_mm)
    return distance


def distance_to_other_label(labels: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return for each pixel of one slice how far the nearest one with another label is, float32."""
    distance_mm = np.zeros(labels.shape, np.float32)
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    objects = {value: _around([box], [1, 1], labels.shape) for value, box in boxes if box}
    for value, box in {0: (slice(None), slice(None)), **objects}.items():
        inside = labels[box] == value
        if inside.all():
            return signed_distance(inside, spacing_mm)
        if inside.any():
            # What lies outside its own object is 0 here.
            distance_mm[box] += ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    return distance_mm


def move(array: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Shift with linear interpolation; the border's values go on beyond it."""
    if np.abs(pixels).max() < _UNMOVED_PIXELS:
        return array
    # Several times as fast as ndimage.shift, which computes the same weights for every pixel.
    for axis, amount in enumerate(pixels.tolist()):
        whole = math.floor(-amount)
        needed = _reaching(array, whole, axis)
        below, above = (needed[:-1], needed[1:]) if axis == 0 else (needed[:, :-1], needed[:, 1:])
        array = above - below
        array *= np.float32(-amount - whole)
        array += below
    return array


def _reaching(array: np.ndarray, first: int, axis: int) -> np.ndarray:
    """Return the rows or columns from `first` on, one more than there are."""
    size = array.shape[axis]
    before, after = min(max(-first, 0), size + 1), min(max(first + 1, 0), size + 1)
    reaching = np.empty(
        [length + (at == axis) for at, length in enumerate(array.shape)], np.float32
    )
    along = (slice(None),) * axis
    inner = array[(*along, slice(max(first, 0), size - max(-first - 1, 0)))]
    reaching[(*along, slice(before, size + 1 - after))] = inner
    reaching[(*along, slice(before))] = array[(*along, slice(1))]
    reaching[(*along, slice(size + 1 - after, None))] = array[(*along, slice(size - 1, None))]
    return reaching


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around some; an empty one around none."""
    rows, columns = zip(*boxes, strict=True) if (boxes := list(boxes)) else ((), ())
    return _hull(rows), _hull(columns)


def _hull(parts: Sequence[slice]) -> slice:
    return slice(
        min((part.start for part in parts), default=0),
        max((part.stop for part in parts), default=0),
    )


def _around(boxes: list[Box], rim: list[int], shape: tuple[int, ...]) -> Box:
    rows, columns = (
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, margin, size in zip(union(boxes), rim, shape, strict=True)
    )
    return rows, columns
