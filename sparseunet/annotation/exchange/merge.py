"""Put a new round of annotation together with what was annotated before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import AnnotatedView, AnnotationRecord

OnConflict = Literal["refuse", "newest", "oldest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Voxels that were annotated twice, differently."""

    num_voxels: int
    axis: int
    slices: tuple[int, ...]
    """Indices of the slices across `axis` that hold them."""


def find_conflict(earlier: Annotation, new: Annotation, *, axis: int) -> Conflict | None:
    """Return the voxels annotated in both with different labels, or None if there are none."""
    differ_ZYX = earlier.annotated_ZYX & new.annotated_ZYX
    differ_ZYX &= earlier.labels_ZYX != new.labels_ZYX
    if not differ_ZYX.any():
        return None
    others = tuple(other for other in range(3) if other != axis)
    slices = np.flatnonzero(differ_ZYX.any(axis=others)).tolist()
    num_voxels = int(np.count_nonzero(differ_ZYX))
    return Conflict(num_voxels=num_voxels, axis=axis, slices=tuple(slices))


def merge_annotations(earlier: Annotation, new: Annotation, *, newest_wins: bool) -> Annotation:
    """Return everything that is annotated in either; where both are, one of them wins."""
    taken_ZYX = new.annotated_ZYX
    if not newest_wins:
        taken_ZYX &= ~earlier.annotated_ZYX
    kind = np.promote_types(earlier.labels_ZYX.dtype, new.labels_ZYX.dtype)
    labels_ZYX = np.where(taken_ZYX, new.labels_ZYX, earlier.labels_ZYX).astype(kind)
    source_ZYX = np.where(taken_ZYX, new.source_ZYX, earlier.source_ZYX)
    return Annotation(labels_ZYX=labels_ZYX, source_ZYX=source_ZYX)


def merge_records(
    earlier: AnnotationRecord | None,
    new: AnnotationRecord,
    *,
    merged: Annotation,
    minutes: float | None,
) -> AnnotationRecord:
    """Return the record of a merged annotation: all slices of both, empty ones looked up again.

    A class counts as looked for if it was in both, as a record speaks for all slices of a case.

    Args:
        earlier: Of what was there before; None if nobody recorded it.
        new: Of the new round.
        merged: Decides which slices are empty.
        minutes: Working time over all rounds.
    """
    slices: dict[int, set[int]] = {}
    for record in (earlier, new) if earlier is not None else (new,):
        for view in record.views:
            slices.setdefault(view.axis, set()).update(view.annotated_slices)
    views = [
        view_of(merged.labels_ZYX, axis=axis, annotated=sorted(indices))
        for axis, indices in slices.items()
    ]
    classes = new.annotated_classes
    if earlier is not None:
        classes = tuple(name for name in classes if name in earlier.annotated_classes)
    return replace(record_of(views, classes=classes), minutes=minutes)


def view_of(labels_ZYX: np.ndarray, *, axis: int, annotated: Sequence[int]) -> AnnotatedView:
    """Return the view with these annotated slices; those without any object count as empty."""
    slices = np.moveaxis(labels_ZYX, axis, 0)
    return AnnotatedView(
        axis=axis,
        num_slices=len(slices),
        annotated_slices=tuple(annotated),
        reviewed_empty_slices=tuple(index for index in annotated if not slices[index].any()),
    )


def record_of(views: Sequence[AnnotatedView], *, classes: Sequence[str]) -> AnnotationRecord:
    """Return the record of a case with at least one view; the first with slices comes first."""
    first, *others = sorted(views, key=lambda view: not view.annotated_slices)
    return AnnotationRecord(
        axis=first.axis,
        num_slices=first.num_slices,
        annotated_slices=first.annotated_slices,
        reviewed_empty_slices=first.reviewed_empty_slices,
        annotated_classes=tuple(classes),
        further_views=tuple(view for view in others if view.annotated_slices),
    )
