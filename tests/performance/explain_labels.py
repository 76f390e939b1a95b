"""Say why two resampled label maps differ: from scores of classes that are computed here anew."""

from collections.abc import Sequence

import numpy as np
from skimage.transform import resize

from sparseunet.data.dataset import Case
from sparseunet.data.io import read_annotation, read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.preprocessing.case import Restoration
from sparseunet.preprocessing.crop import crop_box
from sparseunet.preprocessing.interpolation import axis_map, separate_axis

TIE = 1e-4
OUTSIDE = -1
"""What nnU-Net writes where the image is zero and nothing is labelled."""


def explain_labels(
    theirs_ZYX: np.ndarray,
    ours_ZYX: np.ndarray,
    case: Case,
    labels: LabelSchema,
    restoration: Restoration,
) -> dict[str, int]:
    """Count the voxels that differ by their reason.

    Returns:
        ties: The two best classes are within 1e-4 of each other.
        outside: nnU-Net resamples the outside of the nonzero mask as a class beside background,
            which splits what background has; without the split our class wins, with it theirs.
        unexplained: Neither.
    """
    different_ZYX = theirs_ZYX != ours_ZYX
    counts = {"ties": 0, "outside": 0, "unexplained": 0}
    if not different_ZYX.any():
        return counts
    source_ZYX = _labels_with_outside(case, labels, restoration)
    values = np.unique(source_ZYX)
    scores = np.stack(
        [_resized(source_ZYX == value, restoration)[different_ZYX] for value in values]
    )
    apart = values[scores.argmax(axis=0)]
    inside = values != OUTSIDE
    merged = scores[inside]
    if not inside.all():
        merged[values[inside] == 0] += scores[~inside]
    classes = values[inside]
    second, first = np.sort(merged, axis=0)[-2:]
    tied = first - second < TIE
    by_outside = (
        ~tied
        & (np.maximum(apart, 0) == theirs_ZYX[different_ZYX])
        & (classes[merged.argmax(axis=0)] == ours_ZYX[different_ZYX])
    )
    counts["ties"], counts["outside"] = int(tied.sum()), int(by_outside.sum())
    counts["unexplained"] = int(different_ZYX.sum()) - counts["ties"] - counts["outside"]
    return counts


def _labels_with_outside(case: Case, labels: LabelSchema, restoration: Restoration) -> np.ndarray:
    """Return the label map as nnU-Net resamples it: transposed, cropped, outside marked."""
    assert case.label is not None
    axes = restoration.transpose_forward
    image_CZYX = read_image(case.images).voxels_CZYX.transpose(0, *(axis + 1 for axis in axes))
    inside_ZYX, start, shape = crop_box(image_CZYX)
    box = tuple(slice(first, first + size) for first, size in zip(start, shape, strict=True))
    annotation, _ = read_annotation(case.label, labels)
    labels_ZYX = annotation.labels_ZYX.transpose(axes)[box].astype(np.int16)
    labels_ZYX[(labels_ZYX == 0) & ~inside_ZYX[box]] = OUTSIDE
    return labels_ZYX


def _resized(indicator_ZYX: np.ndarray, restoration: Restoration) -> np.ndarray:
    """Resize linearly; across slices that lie far apart by nearest neighbour."""
    shape: Sequence[int] = restoration.network_shape
    axis = separate_axis(restoration.spacing_mm, restoration.target_spacing_mm)
    values_ZYX = indicator_ZYX.astype(float)
    if axis is not None:
        nearest = axis_map(values_ZYX.shape[axis], shape[axis], order=0).nearest
        planes = [
            _linear(plane, [size for other, size in enumerate(shape) if other != axis])
            for plane in np.moveaxis(values_ZYX, axis, 0)
        ]
        return np.moveaxis(np.stack(planes)[nearest], 0, axis)
    return _linear(values_ZYX, shape)


def _linear(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return resize(values, shape, 1, mode="edge", anti_aliasing=False)
