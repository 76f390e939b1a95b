"""Copy the nearest annotated slice (Z25 and P23 call it NN)."""

import numpy as np

from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import Filling, Gap, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.outlines import distance_to_other_label
from sparseunet.data.annotation import Annotation
from sparseunet.data.image import Image


def interpolate_nearest(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Fill every slice of a gap with a copy of the nearer end; see `Interpolator`.

    Half-way between two, the one with more foreground is copied, so that a mirrored volume gives
    the mirrored result.
    """
    axis, spacing_mm = request.axis, image.geometry.spacing_mm
    filling = Filling(annotation, axis)
    labels_KYX = np.moveaxis(annotation.labels_ZYX, axis, 0)
    rows_mm, columns_mm = (size for other, size in enumerate(spacing_mm) if other != axis)
    margins: dict[int, np.ndarray] = {}
    for gap in find_gaps(annotation, spacing_mm, request):
        margins = {end: margin for end, margin in margins.items() if end in gap.ends}
        for index in gap.slices:
            end = _nearest_end(gap, index, labels_KYX)
            if end not in margins:
                margins[end] = distance_to_other_label(labels_KYX[end], (rows_mm, columns_mm))
            labels = labels_KYX[end]
            reliable = confidence(
                labels,
                margins[end],
                gap=gap,
                index=index,
                spacing_mm=spacing_mm,
                axis=axis,
                method="nearest",
            )
            filling.fill_slice(index, labels, reliable)
    return filling.annotation()


def _nearest_end(gap: Gap, index: int, labels_KYX: np.ndarray) -> int:
    nearest = [end for end in gap.ends if abs(end - index) == gap.distance(index)]
    return max(
        nearest, key=lambda end: (np.count_nonzero(labels_KYX[end]), labels_KYX[end].tobytes())
    )
