"""What is odd about a segmentation, without any reference.

Labels on few slices teach nothing about the voxels between them, and no score sees these. Every
check here is a rule of thumb: a finding says "look here", not "this is wrong".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from sparseunet.data.geometry import Geometry
from sparseunet.data.rounding import is_rounding_noise
from sparseunet.evaluation.surfaces import Classes

FAR_MM = 20.0
"""A piece this far from the largest one is an island."""
_SMALLEST_EXTREMUM = 0.3
_SMALLEST_STEP = 0.6
_FEWEST_SLICES = 5
_SMALLEST_SHARE_OUTSIDE = 0.01
_SMALLEST_SHARE_SWAPPED = 0.1
_DARK = 0.1
_CLEAR_BACKGROUND = 0.5
_WITHIN_A_SLICE = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))])
_NEARLY_ALL = 0.8
_SKIN_VOXELS = 2
_SIDES = {"left": "right", "l": "r", "lt": "rt"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One implausible property of one class in one case."""

    check: str
    """`island`, `jump`, `outside_body`, `side`, or `missing`."""
    class_name: str
    severity: float
    """Severity in (0, 1]; 1 is the most implausible."""
    reason: str


def find_islands(
    mask_ZYX: np.ndarray, *, class_name: str, spacing_mm: Sequence[float], far_mm: float = FAR_MM
) -> list[Finding]:
    """Find pieces of a class far from its largest piece; the severity is their share of the class.

    Args:
        mask_ZYX: bool, the voxels of the class; empty gives nothing.
        class_name: Its name.
        spacing_mm: Voxel size along (z, y, x).
        far_mm: Pieces nearer than that are left alone.
    """
    (box,) = ndimage.find_objects(mask_ZYX.astype(np.uint8)) or (None,)
    if box is None:
        return []
    inside_ZYX = mask_ZYX[box]
    pieces_ZYX, num_pieces = ndimage.label(inside_ZYX, structure=np.ones((3, 3, 3)))
    if num_pieces < 2:
        return []
    sizes = np.bincount(pieces_ZYX.ravel())[1:]
    largest = int(np.argmax(sizes)) + 1
    distance_mm_ZYX = ndimage.distance_transform_edt(pieces_ZYX != largest, sampling=spacing_mm)
    nearest_mm = ndimage.minimum(distance_mm_ZYX, pieces_ZYX, np.arange(1, num_pieces + 1))
    is_far = np.asarray(nearest_mm) > far_mm
    if not is_far.any():
        return []
    share = float(sizes[is_far].sum() / sizes.sum())
    return [
        Finding(
            check="island",
            class_name=class_name,
            severity=share,
            reason=f"{is_far.sum()} of {num_pieces} pieces, {_percent(share)} of the class, are "
            f"more than {far_mm:g} mm from the largest one (up to {np.max(nearest_mm):.0f} mm)",
        )
    ]


def find_jumps(
    mask_ZYX: np.ndarray, *, class_name: str, axis: int, annotated_slices: Sequence[int] = ()
) -> list[Finding]:
    """Find the slice across `axis` in which the area of a class jumps most.

    A slice that holds much more or less than both its neighbours is a jump of that difference; so
    is a change between two slices, unless the class ends there. Both are shares of the class'
    largest area, reported from 30 and 60 % on. Objects of fewer than five slices are left out.

    Args:
        mask_ZYX: bool, the voxels of the class; empty gives nothing.
        class_name: Its name.
        axis: 0 to 2 for z, y, x.
        annotated_slices: Those a network was taught on, mentioned if the jump lies beside one.
    """
    areas = mask_ZYX.sum(axis=tuple(other for other in range(3) if other != axis))
    present = np.flatnonzero(areas)
    if len(present) < _FEWEST_SLICES:
        return []
    first, last = int(present[0]), int(present[-1])
    depth, index = max(_area_extrema(areas, first, last), default=(0.0, 0))
    step, place = max(_steps(areas, first, last), default=(0.0, 0))
    if depth < _SMALLEST_EXTREMUM and step < _SMALLEST_STEP:
        return []
    if depth < _SMALLEST_EXTREMUM or (step >= _SMALLEST_STEP and step > depth):
        depth, index = step, place
        what = f"{areas[index]} voxels, the one before it {areas[index - 1]}"
    else:
        what = f"{areas[index]} voxels, its neighbours {areas[index - 1]} and {areas[index + 1]}"
    beside = [slice_ for slice_ in annotated_slices if abs(slice_ - index) <= 1]
    hint = f"; slice {beside[0]} is annotated" if beside else ""
    return [
        Finding(
            check="jump",
            class_name=class_name,
            severity=min(1.0, depth),
            reason=f"slice {index} across {'zyx'[axis]} holds {what}{hint}",
        )
    ]


def find_body(voxels_ZYX: np.ndarray) -> np.ndarray | None:
    """Return the voxels of the patient, or None where no clear background surrounds them.

    Background is what is dark and connected, within its slice across z, with the slice's sides; the
    rest, with a margin of two voxels, is the body. Dark is a tenth of the way from the 0.5th to the
    99.5th percentile. The background is clear if half of the voxels at the sides are dark. Meant
    for CT and MR.
    """
    low, high = np.percentile(voxels_ZYX, (0.5, 99.5))
    if is_rounding_noise(high - low, largest=max(abs(low), abs(high)), dtype=voxels_ZYX.dtype):
        return None
    dark_ZYX = voxels_ZYX < low + _DARK * (high - low)
    sides = np.concatenate([dark_ZYX[:, [0, -1]].ravel(), dark_ZYX[:, :, [0, -1]].ravel()])
    if sides.mean() < _CLEAR_BACKGROUND:
        return None
    pieces_ZYX, _ = ndimage.label(dark_ZYX, structure=_WITHIN_A_SLICE)
    reaches_side = np.zeros(int(pieces_ZYX.max()) + 1, bool)
    reaches_side[pieces_ZYX[:, [0, -1]]] = True
    reaches_side[pieces_ZYX[:, :, [0, -1]]] = True
    reaches_side[0] = False  # what is not dark
    body_ZYX = ~reaches_side[pieces_ZYX]
    return np.asarray(ndimage.binary_dilation(body_ZYX, _WITHIN_A_SLICE, iterations=_SKIN_VOXELS))


def find_outside(mask_ZYX: np.ndarray, *, class_name: str, body_ZYX: np.ndarray) -> list[Finding]:
    """Find a class of which more than 1 % lies outside the body; the severity is that share."""
    num_voxels = np.count_nonzero(mask_ZYX)
    num_outside = np.count_nonzero(mask_ZYX & ~body_ZYX)
    if num_outside <= _SMALLEST_SHARE_OUTSIDE * num_voxels:
        return []
    share = num_outside / num_voxels
    return [
        Finding(
            check="outside_body",
            class_name=class_name,
            severity=share,
            reason=f"{num_outside} voxels, {_percent(share)} of the class, lie outside the body",
        )
    ]


def find_wrong_sides(
    labels_ZYX: np.ndarray, *, classes: Classes, geometry: Geometry
) -> list[Finding]:
    """Find pairs such as `kidney_left` and `kidney_right` with voxels on the other one's side.

    The border between the sides lies halfway between the two centres. The severity is the share of
    both classes on the wrong side, told from 10 % on; both exchanged gives 1. Sides are those of
    the patient, from the header's direction. 2D files, which have none, give nothing.
    """
    if geometry.dimensions != 3:
        return []
    found = []
    for left, right in pair_sides(list(classes)):
        x_mm = [
            _patient_x_mm(np.isin(labels_ZYX, classes[name]), geometry) for name in (left, right)
        ]
        if not all(values.size for values in x_mm):
            continue
        middle = (x_mm[0].mean() + x_mm[1].mean()) / 2
        num_wrong = np.count_nonzero(x_mm[0] < middle) + np.count_nonzero(x_mm[1] > middle)
        share = num_wrong / (x_mm[0].size + x_mm[1].size)
        if share >= _SMALLEST_SHARE_SWAPPED:
            found.append(
                Finding(
                    check="side",
                    class_name=f"{left}, {right}",
                    severity=float(share),
                    reason=f"{_percent(share)} of both lie on the other one's side; centres "
                    f"{x_mm[0].mean():.0f} and {x_mm[1].mean():.0f} mm to the patient's left",
                )
            )
    return found


def pair_sides(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (left, right) for names that differ in a word left/right, l/r or lt/rt alone."""
    by_words = {tuple(_words(name)): name for name in names}
    pairs = []
    for words, name in by_words.items():
        for position, word in enumerate(words):
            if word in _SIDES:
                other = (*words[:position], _SIDES[word], *words[position + 1 :])
                if other in by_words:
                    pairs.append((name, by_words[other]))
    return pairs


def find_missing(num_voxels: Mapping[str, int], *, shares: Mapping[str, float]) -> list[Finding]:
    """Find classes a case lacks though nearly all others have them, or that nothing was found.

    Args:
        num_voxels: Class to its voxels in this case.
        shares: Class to the share of all cases that have it; told from 80 % on.
    """
    if not any(num_voxels.values()):
        reason = "nothing was found in this case"
        return [Finding(check="missing", class_name="all classes", severity=1.0, reason=reason)]
    return [
        Finding(
            check="missing",
            class_name=name,
            severity=shares[name],
            reason=f"not found here, though in {100 * shares[name]:.0f} % of the cases",
        )
        for name, count in num_voxels.items()
        if not count and shares[name] >= _NEARLY_ALL
    ]


def _area_extrema(areas: np.ndarray, first: int, last: int) -> Iterator[tuple[float, int]]:
    """Yield each slice whose area is above or below both neighbours', with the smaller difference.

    The difference is a share of the largest area.
    """
    largest = float(areas.max())
    for index in range(first + 1, last):
        before = float(areas[index]) - float(areas[index - 1])
        after = float(areas[index]) - float(areas[index + 1])
        if before * after > 0:
            yield min(abs(before), abs(after)) / largest, index


def _steps(areas: np.ndarray, first: int, last: int) -> Iterator[tuple[float, int]]:
    """Yield the change from slice to slice, where the class is in both."""
    largest = float(areas.max())
    for before, index in pairwise(range(first, last + 1)):
        if areas[before] and areas[index]:
            yield abs(float(areas[index]) - float(areas[before])) / largest, index


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _patient_x_mm(mask_ZYX: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return how far every voxel of a mask lies to the patient's left, where ITK's x points."""
    indices_N3 = np.argwhere(mask_ZYX)[:, ::-1]
    steps_mm = np.array(geometry.spacing_mm[::-1]) * np.array(geometry.direction[:3])
    return geometry.origin_mm[0] + indices_N3 @ steps_mm
