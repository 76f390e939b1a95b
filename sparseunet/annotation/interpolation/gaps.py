"""The gaps between annotated slices, and the annotation that filling them gives."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.outlines import Box
from sparseunet.data.annotation import Annotation, Source

_NONE, _MANUAL, _INTERPOLATED = np.array(
    [Source.NONE, Source.MANUAL, Source.INTERPOLATED], np.uint8
)
"""Compared to a `Source` itself, NumPy would convert whole slices to 64 bits."""
WHOLE: Box = (slice(None), slice(None))
"""The box that covers a whole slice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Slices without (complete) annotation between two complete ones, or beyond the last."""

    before: int | None
    """Index of the complete slice before the gap; None in front of the first."""
    after: int | None
    """Index of the complete slice after the gap; None behind the last."""
    slices: tuple[int, ...]
    """Indices of slices with voxels to fill, sorted; never empty."""

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
    return np.flatnonzero(~_slices_with(annotation, axis, lambda source: source != _MANUAL))


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
    to_fill = _slices_with(annotation, axis, lambda source: source == _NONE)
    first, last = complete[0], complete[-1]
    ends: list[tuple[int | None, int | None]] = [(None, first), *pairwise(complete), (last, None)]
    gaps = []
    for before, after in ends:
        start = max(0, first - reach) if before is None else before + 1
        stop = last + 1 + reach if after is None else after
        slices = start + np.flatnonzero(to_fill[start:stop])
        if len(slices) and (before is None or after is None or after - before <= widest):
            gaps.append(Gap(before=before, after=after, slices=tuple(slices.tolist())))
    return tuple(gaps)


def _slices_with(
    annotation: Annotation, axis: int, test: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return for each slice across `axis` whether the source of any of its voxels passes a test.

    Works through slices across z, because a mask of the whole volume costs more than the test.
    """
    if axis == 0:
        return np.array([test(source_YX).any() for source_YX in annotation.source_ZYX])
    found = np.zeros(annotation.source_ZYX.shape[axis], bool)
    for source_YX in annotation.source_ZYX:
        found |= test(source_YX).any(axis=2 - axis)
    return found


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

    def fill_slice(
        self,
        index: int,
        labels: np.ndarray,
        confidence: np.ndarray,
        *,
        box: Box = WHOLE,
        beyond: float = 1.0,
    ) -> None:
        """Label the voxels of one slice that have no source yet.

        Args:
            index: Along the axis.
            labels: Label values in the box.
            confidence: In [0, 1], in the box.
            box: Part of the slice; outside it everything becomes background.
            beyond: Confidence in that.
        """
        source = np.moveaxis(self._source_ZYX, self._axis, 0)[index]
        free = source == _NONE
        is_free = bool(free.all())
        for volume_ZYX, inside, outside in (
            (self._labels_ZYX, labels, 0),
            (self._confidence_ZYX, confidence, beyond),
        ):
            old = np.moveaxis(volume_ZYX, self._axis, 0)[index]
            new = old if is_free else np.empty_like(old)
            if box != WHOLE:
                new[...] = outside
            new[box] = inside
            if not is_free:
                np.copyto(old, new, where=free)
        np.copyto(source, _INTERPOLATED, where=free)

    def annotation(self) -> Annotation:
        """Return the filled annotation."""
        return Annotation(
            labels_ZYX=self._labels_ZYX,
            source_ZYX=self._source_ZYX,
            confidence_ZYX=self._confidence_ZYX,
        )
