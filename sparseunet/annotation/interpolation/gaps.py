"""The gaps between annotated slices, and the annotation that filling them gives."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.data.annotation import Annotation, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Slices without (complete) annotation between two complete ones, or beyond the last."""

    before: int | None
    """Index of the complete slice before the gap; None in front of the first."""
    after: int | None
    """Index of the complete slice after the gap; None behind the last."""
    slices: range
    """Indices to fill; never empty. Adjacent to the ends, unless `until_gap_mm` cuts them off."""

    @property
    def ends(self) -> tuple[int, ...]:
        """The one or two complete slices beside the gap."""
        return tuple(index for index in (self.before, self.after) if index is not None)

    def distance(self, index: int) -> int:
        """Return how many slices away the nearer end is."""
        return min(abs(index - end) for end in self.ends)


def complete_slices(annotation: Annotation, axis: int) -> np.ndarray:
    """Return the sorted indices of the slices across `axis` in which a person labelled every voxel.

    Only those are interpolated from: where part of a slice is unknown, so are the outlines in it.
    Scribbles and slices across other axes are kept and do not influence their surroundings.
    A complete slice without any object counts like every other: objects end before it.
    """
    others = tuple(other for other in range(3) if other != axis)
    return np.flatnonzero((annotation.source_ZYX == Source.MANUAL).all(axis=others))


def find_gaps(
    annotation: Annotation, spacing_mm: tuple[float, float, float], request: InterpolationRequest
) -> tuple[Gap, ...]:
    """Return what there is to fill, in order along the axis; nothing without a complete slice."""
    axis, step_mm = request.axis, spacing_mm[request.axis]
    complete = complete_slices(annotation, axis).tolist()
    if not complete:
        return ()
    reach = annotation.labels_ZYX.shape[axis]
    widest = reach
    if request.until_gap_mm is not None:
        slack = 1 + 1e-6  # a limit that was computed from the spacing includes its own gap
        widest = int(request.until_gap_mm * slack / step_mm)
        reach = int(request.until_gap_mm * slack / 2 / step_mm)
    first, last, size = complete[0], complete[-1], annotation.labels_ZYX.shape[axis]
    gaps = [Gap(before=None, after=first, slices=range(max(0, first - reach), first))]
    gaps += [
        Gap(before=before, after=after, slices=range(before + 1, after))
        for before, after in pairwise(complete)
        if after - before <= widest
    ]
    gaps.append(Gap(before=last, after=None, slices=range(last + 1, min(size, last + 1 + reach))))
    return tuple(gap for gap in gaps if gap.slices)


class Filling:
    """An annotation that is being filled, slice by slice; the one it was made from stays as it is.

    Slices are numbered along the axis, their two other axes stay in the order of (z, y, x).
    """

    def __init__(self, annotation: Annotation, axis: int) -> None:
        self._axis = axis
        self._labels_ZYX = annotation.labels_ZYX.copy()
        self._source_ZYX = annotation.source_ZYX.copy()
        given_ZYX = annotation.confidence_ZYX
        self._confidence_ZYX = (
            np.ones(self._labels_ZYX.shape, np.float32) if given_ZYX is None else given_ZYX.copy()
        )

    def fill_slice(self, index: int, labels: np.ndarray, confidence: np.ndarray | float) -> None:
        """Label the voxels of one slice that have no source yet.

        Args:
            index: Along the axis.
            labels: Label values, shape of the slice.
            confidence: In [0, 1], one for all or one each.
        """
        source = np.moveaxis(self._source_ZYX, self._axis, 0)[index]
        free = source == Source.NONE
        np.copyto(
            np.moveaxis(self._labels_ZYX, self._axis, 0)[index],
            labels,
            where=free,
            casting="unsafe",
        )
        np.copyto(
            np.moveaxis(self._confidence_ZYX, self._axis, 0)[index],
            confidence,
            where=free,
            casting="same_kind",
        )
        source[free] = Source.INTERPOLATED

    def annotation(self) -> Annotation:
        """Return what it has become."""
        return Annotation(
            labels_ZYX=self._labels_ZYX,
            source_ZYX=self._source_ZYX,
            confidence_ZYX=self._confidence_ZYX,
        )
