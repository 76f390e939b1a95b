"""Errors that a first stage might make, so that the second does not trust it blindly.

nnU-Net 2.8.1's two augmentations of a cascade: random binary morphology and removing a component.
They work on the label map of the previous stage, so its one-hot channels never overlap: a label
that grows takes voxels from the others, one that shrinks leaves background. Labels to learn from
are not touched.
"""

from collections.abc import Callable

import numpy as np
from acvl_utils.morphology.morphology_helper import cc3d_label_with_component_sizes
from scipy import ndimage

_P_MORPHOLOGY = 0.4
_P_REMOVAL = 0.2
_P_PER_LABEL = 0.5
_RADIUS_VOXELS = (1.0, 8.0)
_LARGEST_REMOVED_SHARE = 0.15
"""A component is removed only if it is less than this share of the patch."""
_FAR = 10_000
"""Squared distance in voxels, beyond any radius here and far from the end of int16."""


def unchanged(labels_ZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the labels as they are."""
    del rng
    return labels_ZYX


def disturb_labels(labels_ZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy in which labels may have grown, shrunk, been smoothed, or lost a component.

    With probability 0.4 each label, with probability 0.5, is dilated, eroded, opened or closed by
    a ball of a radius between 1 and 8 voxels. Then, with probability 0.2, each label, with
    probability 0.5, loses one of its components that fill less than 15 % of the patch. Labels
    follow one another in random order.

    Args:
        labels_ZYX: Label values of the previous stage in a patch, two or three axes.
        rng: Decides everything.
    """
    disturbed_ZYX = labels_ZYX.copy()
    if rng.random() < _P_MORPHOLOGY:
        for value in _some_labels(disturbed_ZYX, rng):
            operate = _OPERATORS[int(rng.integers(len(_OPERATORS)))]
            _reshape(disturbed_ZYX, value, operate, radius=rng.uniform(*_RADIUS_VOXELS))
    if rng.random() < _P_REMOVAL:
        for value in _some_labels(disturbed_ZYX, rng):
            _remove_component(disturbed_ZYX, value, rng)
    return disturbed_ZYX


def dilate(mask_ZYX: np.ndarray, radius: float) -> np.ndarray:
    """Return where the distance to the mask is at most `radius` voxels.

    Squared distances up to the radius are found axis by axis: four times as fast as scipy's
    unbounded distance transform on a patch of 96 × 160 × 160.
    """
    squared_ZYX = np.where(mask_ZYX, 0, _FAR).astype(np.int16)
    for axis in range(mask_ZYX.ndim):
        along = np.moveaxis(squared_ZYX, axis, 0)
        nearest = along.copy()
        for step in range(1, min(int(radius), len(along) - 1) + 1):
            shifted = along + np.int16(step**2)
            np.minimum(nearest[step:], shifted[:-step], out=nearest[step:])
            np.minimum(nearest[:-step], shifted[step:], out=nearest[:-step])
        squared_ZYX = np.moveaxis(nearest, 0, axis)
    return squared_ZYX <= radius**2


def erode(mask_ZYX: np.ndarray, radius: float) -> np.ndarray:
    """Return where the distance to the outside of the mask is more than `radius` voxels.

    Beyond the edge of the patch nothing is known, so the mask does not shrink away from it.
    """
    return ~dilate(~mask_ZYX, radius)


def _open(mask_ZYX: np.ndarray, radius: float) -> np.ndarray:
    return dilate(erode(mask_ZYX, radius), radius)


def _close(mask_ZYX: np.ndarray, radius: float) -> np.ndarray:
    return erode(dilate(mask_ZYX, radius), radius)


_Operator = Callable[[np.ndarray, float], np.ndarray]
_OPERATORS: tuple[_Operator, ...] = (dilate, erode, _open, _close)


def _some_labels(labels_ZYX: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Return about half of the labels that occur, in random order."""
    values = rng.permutation(np.unique(labels_ZYX[labels_ZYX > 0]))
    return [value for value in values.tolist() if rng.random() < _P_PER_LABEL]


def _reshape(labels_ZYX: np.ndarray, value: float, operate: _Operator, *, radius: float) -> None:
    found = ndimage.find_objects((labels_ZYX == value).astype(np.int8))
    if not found:  # another label has grown over it
        return
    # No operator reaches further than twice the radius from the label.
    margin = 2 * int(np.ceil(radius)) + 1
    box = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in found[0])
    inner_ZYX = labels_ZYX[box]
    before_ZYX = inner_ZYX == value
    after_ZYX = operate(before_ZYX, radius)
    inner_ZYX[before_ZYX & ~after_ZYX] = 0
    inner_ZYX[after_ZYX] = value


def _remove_component(labels_ZYX: np.ndarray, value: float, rng: np.random.Generator) -> None:
    volume_ZYX = labels_ZYX[(None,) * (3 - labels_ZYX.ndim)]  # a view
    components_ZYX, sizes = cc3d_label_with_component_sizes(volume_ZYX == value, connectivity=26)
    largest = _LARGEST_REMOVED_SHARE * labels_ZYX.size
    small = [component for component, size in sizes.items() if size < largest]
    if small:
        volume_ZYX[components_ZYX == rng.choice(small)] = 0
