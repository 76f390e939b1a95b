"""How good interpolation is, judged without dense labels: hide annotated slices and compare."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparseunet.annotation.interpolation import load_interpolator
from sparseunet.annotation.interpolation.gaps import complete_slices
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema

_KEEP_EVERY = (2, 3, 4)
"""Of the annotated slices, every n-th is kept, and those between are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenSlices:
    """What a method made of annotated slices that it did not see: sums over slices of one kind."""

    method: str
    class_name: str
    gap_mm: float | None
    """Distance of the two slices that it saw; None for slices beyond the last that it saw."""
    distance_mm: float
    """Distance in mm to the nearer annotated slice."""
    num_slices: int
    both: int
    """Voxels of the class in labels and interpolation."""
    either: int
    """Voxels of the class in labels or interpolation."""

    @property
    def iou(self) -> float:
        """Batched intersection over union (Z25 §3.2); 1 if there was nothing to find."""
        return self.both / self.either if self.either else 1.0

    @property
    def dice(self) -> float:
        """Batched Dice; 1 if there was nothing to find."""
        return 2 * self.both / (self.both + self.either) if self.either else 1.0


def compare_hidden_slices(
    image: Image,
    annotation: Annotation,
    *,
    labels: LabelSchema,
    methods: Sequence[str],
    request: InterpolationRequest,
) -> tuple[HiddenSlices, ...]:
    """Hide annotated slices of one case, interpolate them from the others, and compare.

    Every second, third and fourth complete slice is kept, beginning with the first and with the
    second, so that gaps of several widths are seen, all of them wider than the real ones.

    Args:
        image: The scan.
        annotation: On the same grid.
        labels: Classes or regions to compare.
        methods: Of the interpolators.
        request: Axis and means; `until_gap_mm` is not looked at.

    Returns:
        One sum per method, class, gap and distance; nothing with fewer than two complete slices.
    """
    request = replace(request, until_gap_mm=None)
    complete = complete_slices(annotation, request.axis).tolist()
    step_mm = image.geometry.spacing_mm[request.axis]
    found: dict[tuple[str, str, float | None, float], np.ndarray] = {}
    for kept in _kept_slices(complete):
        thinned = hide_some(annotation, complete, kept, request.axis)
        hidden = [index for index in complete if index not in kept]
        truth_KYX = np.moveaxis(annotation.labels_ZYX, request.axis, 0)[hidden]
        places = [_place(index, kept, step_mm) for index in hidden]
        for method in methods:
            filled = load_interpolator(method)(image, thinned, request=request)
            guess_KYX = np.moveaxis(filled.labels_ZYX, request.axis, 0)[hidden]
            for name, both_K, either_K in _compare(truth_KYX, guess_KYX, labels.foreground):
                for place, both, either in zip(places, both_K, either_K, strict=True):
                    sums = found.setdefault((method, name, *place), np.zeros(3, np.int64))
                    sums += (1, both, either)
    return tuple(
        HiddenSlices(
            method=method,
            class_name=name,
            gap_mm=gap_mm,
            distance_mm=distance_mm,
            num_slices=int(sums[0]),
            both=int(sums[1]),
            either=int(sums[2]),
        )
        for (method, name, gap_mm, distance_mm), sums in found.items()
    )


def add_up(cases: Sequence[Sequence[HiddenSlices]]) -> tuple[HiddenSlices, ...]:
    """Add up the sums of all cases, sorted by method, class, and distance; slices at ends last."""
    totals: dict[tuple[str, str, float | None, float], HiddenSlices] = {}
    for item in (item for case in cases for item in case):
        key = (item.method, item.class_name, item.gap_mm, item.distance_mm)
        before = totals.get(key)
        totals[key] = (
            item
            if before is None
            else replace(
                item,
                num_slices=item.num_slices + before.num_slices,
                both=item.both + before.both,
                either=item.either + before.either,
            )
        )
    return tuple(sorted(totals.values(), key=_order))


def _order(item: HiddenSlices) -> tuple[str, str, float, float]:
    gap_mm = np.inf if item.gap_mm is None else item.gap_mm
    return item.method, item.class_name, float(gap_mm), item.distance_mm


def _kept_slices(complete: Sequence[int]) -> Iterator[list[int]]:
    seen = set()
    for every in _KEEP_EVERY:
        for first in (0, 1):
            kept = list(complete[first::every])
            if kept and len(kept) < len(complete) and tuple(kept) not in seen:
                seen.add(tuple(kept))
                yield kept


def hide_some(
    annotation: Annotation, complete: Sequence[int], kept: Sequence[int], axis: int
) -> Annotation:
    """Return the annotation as if only some of its complete slices had been drawn.

    The others are to be filled; the real gaps count as filled (with background), because nobody
    knows what is right there.
    """
    thinned = hide_slices(annotation, keep=kept, axis=axis)
    real_gaps = np.ones(annotation.labels_ZYX.shape[axis], bool)
    real_gaps[list(complete)] = False
    np.moveaxis(thinned.source_ZYX, axis, 0)[real_gaps] = Source.PSEUDO
    return thinned


def _place(index: int, kept: Sequence[int], step_mm: float) -> tuple[float | None, float]:
    """Return the width of the gap that a slice lies in, and its distance to the nearer end."""
    before = [other for other in kept if other < index][-1:]
    after = [other for other in kept if other > index][:1]
    distance_mm = min(abs(index - other) for other in (*before, *after)) * step_mm
    if not before or not after:
        return None, round(distance_mm, 3)
    return round((after[0] - before[0]) * step_mm, 3), round(distance_mm, 3)


def _compare(
    truth_KYX: np.ndarray, guess_KYX: np.ndarray, classes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, values in classes.items():
        truth, guess = np.isin(truth_KYX, values), np.isin(guess_KYX, values)
        yield name, (truth & guess).sum(axis=(1, 2)), (truth | guess).sum(axis=(1, 2))
