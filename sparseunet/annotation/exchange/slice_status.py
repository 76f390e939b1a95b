"""Which slices a person dealt with: told by what is drawn, and by what was ticked off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.annotation.annotation_plan import PlannedCase


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewStatus:
    """The slices of one case across one axis, as file indices, sorted."""

    case: str
    axis: int
    num_slices: int
    planned: tuple[int, ...]
    annotated: tuple[int, ...]
    """Indices of annotated slices, planned or not, with objects or without."""
    empty: tuple[int, ...]
    """Indices of annotated slices without any object."""

    @property
    def done(self) -> tuple[int, ...]:
        """Indices of slices that are planned and annotated."""
        return tuple(index for index in self.planned if index in set(self.annotated))

    @property
    def extra(self) -> tuple[int, ...]:
        """Indices of slices that are annotated and not planned."""
        return tuple(index for index in self.annotated if index not in set(self.planned))

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices of slices that are planned and not annotated."""
        return tuple(index for index in self.planned if index not in set(self.annotated))


def find_views(
    labels_ZYX: np.ndarray,
    touched_ZYX: np.ndarray,
    *,
    case: str,
    planned: Mapping[int, Sequence[int]],
    ticked: Mapping[int, frozenset[int]],
) -> tuple[ViewStatus, ...]:
    """Decide which slices are annotated, by axis.

    A slice is, if it was ticked off or holds a touched voxel that no other such slice explains:
    where slices across several axes are planned they cross, and a voxel on the crossing belongs to
    the slice with the most touched voxels, planned ones first.

    Args:
        labels_ZYX: As drawn.
        touched_ZYX: bool, where the drawing differs from what was handed out.
        case: Its name.
        planned: Axis to planned slices; at least one axis.
        ticked: Axis to slices that somebody finished with.

    Returns:
        One entry per axis that is planned or ticked, sorted by axis.
    """
    axes = sorted({*planned, *(axis for axis, slices in ticked.items() if slices)})
    annotated = {axis: set(ticked.get(axis, ())) for axis in axes}
    if len(axes) == 1:  # nothing crosses, and positions of all voxels would need much memory
        others = tuple(other for other in range(3) if other != axes[0])
        drawn = np.flatnonzero(touched_ZYX.any(axis=others)).tolist()
        annotated[axes[0]].update(drawn)
    else:
        _explain(touched_ZYX, axes, planned, annotated)
    return tuple(
        _status(labels_ZYX, case, axis, planned.get(axis, ()), annotated[axis]) for axis in axes
    )


def planned_by_axis(cases: Sequence[PlannedCase]) -> dict[int, tuple[int, ...]]:
    """Return the planned slices of one case, by axis."""
    return {each.axis: tuple(sorted(each.slices)) for each in cases}


def _explain(
    touched_ZYX: np.ndarray,
    axes: Sequence[int],
    planned: Mapping[int, Sequence[int]],
    annotated: dict[int, set[int]],
) -> None:
    """Add slices to `annotated` until every touched voxel lies in one, the fullest first."""
    left = np.stack(np.nonzero(touched_ZYX)).astype(np.int32)
    for axis in axes:
        left = left[:, ~np.isin(left[axis], list(annotated[axis]))]
    for candidates in ({axis: list(planned.get(axis, ())) for axis in axes}, None):
        while left.size:
            best = _axis_with_most_slices(left, axes, candidates)
            if best is None:
                break
            annotated[best[0]].add(best[1])
            left = left[:, left[best[0]] != best[1]]


def _axis_with_most_slices(
    left: np.ndarray, axes: Sequence[int], candidates: Mapping[int, Sequence[int]] | None
) -> tuple[int, int] | None:
    """Return the (axis, slice) with the most voxels left, or None if no candidate has any."""
    best, most = None, 0
    for axis in axes:
        counts = np.bincount(left[axis])
        if candidates is not None:
            allowed = np.zeros(len(counts), bool)
            allowed[[index for index in candidates[axis] if index < len(counts)]] = True
            counts = np.where(allowed, counts, 0)
        index = int(counts.argmax())
        if counts[index] > most:
            best, most = (axis, index), int(counts[index])
    return best


def _status(
    labels_ZYX: np.ndarray, case: str, axis: int, planned: Sequence[int], annotated: set[int]
) -> ViewStatus:
    slices = np.moveaxis(labels_ZYX, axis, 0)
    return ViewStatus(
        case=case,
        axis=axis,
        num_slices=len(slices),
        planned=tuple(sorted(planned)),
        annotated=tuple(sorted(annotated)),
        empty=tuple(index for index in sorted(annotated) if not slices[index].any()),
    )
