"""Bring confidence in line with how often labels are right in annotated slices that were hidden.

The tables in `confidence` hold for the datasets that they were fitted to. How often interpolation
is right differs between datasets, and the annotated slices of each say by how much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparseunet.annotation.interpolation import load_interpolator
from sparseunet.annotation.interpolation.gaps import complete_slices
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.quality import hide_some
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.image import Image

KINDS = ("beyond, background", "beyond, object", "between, background", "between, object")
"""Labels are corrected by themselves between two annotated slices and beyond the last, as
background and as an object."""
_EDGES = np.array(
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.985, 0.995)
)
_PRIOR_VOXELS = 100
"""So many voxels speak for the tables in every bin, which decides where nothing was hidden."""
_LEAST_SLICES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What confidence of a method means in one dataset."""

    method: str
    num_slices: int
    """Hidden ones that it was fitted to."""
    stated: dict[str, tuple[float, ...]]
    """By kind: confidence as the method states it, ascending."""
    right: dict[str, tuple[float, ...]]
    """By kind: which share of such labels is right, ascending too; linear in between."""

    def apply(self, before: Annotation, filled: Annotation, axis: int) -> Annotation:
        """Return a filled annotation with the confidence of what was filled corrected.

        Args:
            before: What `filled` was made from.
            filled: By the method.
            axis: Across which it was interpolated.
        """
        assert filled.confidence_ZYX is not None
        confidence_ZYX = filled.confidence_ZYX.copy()
        complete = complete_slices(before, axis)
        slices = zip(
            *(
                np.moveaxis(array, axis, 0)
                for array in (before.source_ZYX, filled.source_ZYX, filled.labels_ZYX)
            ),
            np.moveaxis(confidence_ZYX, axis, 0),
            strict=True,
        )
        for index, (old, new, labels, confidence) in enumerate(slices):
            is_new = (new == Source.INTERPOLATED) & (old == Source.NONE)
            for is_object in (False, True):
                kind = _kind(index, complete, is_object=is_object)
                where = is_new & ((labels > 0) == is_object)
                confidence[where] = np.interp(
                    confidence[where], self.stated[kind], self.right[kind]
                )
        return replace(filled, confidence_ZYX=confidence_ZYX)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HiddenVoxels:
    """How often a method was right in slices that it did not see, by confidence: sums."""

    num_slices: int
    by_kind: dict[str, np.ndarray]
    """Per bin of confidence: voxels, sum of their confidence, voxels that are right."""


def compare_confidence(
    image: Image, annotation: Annotation, *, method: str, request: InterpolationRequest
) -> HiddenVoxels:
    """Hide every second annotated slice of a case, then the others, and compare.

    Args:
        image: The scan.
        annotation: On the same grid.
        method: Of the interpolators.
        request: Axis and means; `until_gap_mm` is not looked at.
    """
    request = replace(request, until_gap_mm=None)
    complete = complete_slices(annotation, request.axis).tolist()
    truth_KYX = np.moveaxis(annotation.labels_ZYX, request.axis, 0)
    by_kind = {kind: np.zeros((len(_EDGES), 3)) for kind in KINDS}
    num_slices = 0
    for first in (0, 1):
        kept = complete[first::2]
        if not kept or len(kept) == len(complete):
            continue
        thinned = hide_some(annotation, complete, kept, request.axis)
        filled = load_interpolator(method)(image, thinned, request=request)
        assert filled.confidence_ZYX is not None
        labels_KYX = np.moveaxis(filled.labels_ZYX, request.axis, 0)
        confidence_KYX = np.moveaxis(filled.confidence_ZYX, request.axis, 0)
        for index in sorted(set(complete) - set(kept)):
            num_slices += 1
            for is_object in (False, True):
                where = (labels_KYX[index] > 0) == is_object
                stated = confidence_KYX[index][where]
                is_right = (labels_KYX[index] == truth_KYX[index])[where]
                bins = np.digitize(stated, _EDGES) - 1
                kind = _kind(index, kept, is_object=is_object)
                for column, weights in enumerate((None, stated, is_right)):
                    by_kind[kind][:, column] += np.bincount(bins, weights, len(_EDGES))
    return HiddenVoxels(num_slices=num_slices, by_kind=by_kind)


def calibrate(method: str, cases: Sequence[HiddenVoxels]) -> Calibration | None:
    """Fit what confidence means to the hidden slices of all cases.

    Monotone, so that more confidence stays more; isotonic regression over bins.

    Returns:
        None with fewer than ten hidden slices.
    """
    from sklearn.isotonic import isotonic_regression

    num_slices = sum(case.num_slices for case in cases)
    if num_slices < _LEAST_SLICES:
        return None
    middles = (_EDGES + np.append(_EDGES[1:], 1.0)) / 2
    stated, right = {}, {}
    for kind in KINDS:
        voxels, confidence, is_right = sum(case.by_kind[kind] for case in cases).T
        weight = voxels + _PRIOR_VOXELS
        prior = _PRIOR_VOXELS * middles
        shares = isotonic_regression((is_right + prior) / weight, sample_weight=weight)
        stated[kind] = tuple(((confidence + prior) / weight).tolist())
        right[kind] = tuple(np.clip(shares, 0, 1).tolist())
    return Calibration(method=method, num_slices=num_slices, stated=stated, right=right)


def _kind(index: int, complete: Sequence[int] | np.ndarray, *, is_object: bool) -> str:
    is_between = complete[0] < index < complete[-1]
    return KINDS[2 * is_between + is_object]
