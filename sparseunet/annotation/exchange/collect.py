"""Understand a returned folder: what was drawn in every case, and every problem at once."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.exchange.returned import (
    DrawnCase,
    Returned,
    ReturnedFile,
    read_drawing,
)
from sparseunet.annotation.exchange.slice_status import ViewStatus, find_views, planned_by_axis
from sparseunet.annotation.exchange.views import AXIS_NAMES
from sparseunet.annotation.exchange.work_list import NOTHING_DONE, Progress
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry
from sparseunet.errors import DatasetError, Problem

_FEWEST_MIRRORED = 2
"""One slice alone may be anything; from two on, mirrored positions are no coincidence."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CollectedCase:
    """The returned annotation of one case."""

    name: str
    geometry: Geometry
    annotation: Annotation
    """Every voxel of the annotated slices is manual, unless the file itself hides some."""
    views: tuple[ViewStatus, ...]
    minutes: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The inputs of an import that all cases share."""

    dataset: Dataset
    plan: AnnotationPlan
    returned: Returned
    progress: Mapping[str, Progress]
    """Case to the slices marked as done in the work list."""
    planned_are_done: bool
    """Whether every planned slice of a returned case counts as ticked off."""


def collect_cases(request: Request) -> Iterator[CollectedCase | list[Problem]]:
    """Yield the annotation of every planned or returned case, by name, or its problems."""
    planned = {each.case for each in request.plan.cases}
    for name in sorted({*planned, *request.returned.files}):
        try:
            yield _collect(request, name)
        except DatasetError as error:
            yield [replace(problem, case=name) for problem in error.problems]


def check_progress(request: Request, path: Path) -> list[Problem]:
    """Return a problem for every unknown case and slice in the work list."""
    cases = {case.name: case for case in request.dataset.cases}
    problems = []
    for name, progress in request.progress.items():
        if name not in cases:
            problems.append(_problem(name, path, "an unknown case", "a case of the dataset"))
            continue
        shape = read_geometry(cases[name].images[0]).shape
        problems += [
            _problem(
                name,
                path,
                f"slice {AXIS_NAMES[axis]} {index}",
                f"slices from 0 to {shape[axis] - 1}",
            )
            for axis, indices in progress.done.items()
            for index in sorted(indices)
            if index >= shape[axis]
        ]
    return problems


def _collect(request: Request, name: str) -> CollectedCase:
    """Read the drawing of one case and find which of its slices are annotated.

    Raises:
        DatasetError: A file is missing or wrong, or the work list and the drawing contradict each
            other; holds every problem.
    """
    geometry = read_geometry(request.dataset.case(name).images[0])
    files = request.returned.files.get(name, ())
    progress = request.progress.get(name, NOTHING_DONE)
    planned = planned_by_axis(request.plan.of_case(name)) or {_most_frequent_axis(request.plan): ()}
    _require_files(name, files, progress)
    drawn = read_drawing(files, geometry, request.dataset, own=request.returned.labels)
    ticked = {axis: set(slices) for axis, slices in progress.done.items()}
    if request.planned_are_done:
        for axis, slices in planned.items():
            ticked.setdefault(axis, set()).update(
                index for index in slices if _has_slice(files, axis, index)
            )
    shown = {axis: _not_hidden(drawn, axis, slices) for axis, slices in ticked.items()}
    views = find_views(
        drawn.labels_ZYX, drawn.touched_ZYX, case=name, planned=planned, ticked=shown
    )
    problems = [*_contradictions(views, progress), *_mirrored(views, shown)]
    if problems:
        raise DatasetError(problems)
    return CollectedCase(
        name=name,
        geometry=geometry,
        annotation=_annotation(drawn, views),
        views=views,
        minutes=progress.minutes,
    )


def _annotation(drawn: DrawnCase, views: Sequence[ViewStatus]) -> Annotation:
    labels_ZYX = np.zeros_like(drawn.labels_ZYX)
    source_ZYX = np.zeros(drawn.labels_ZYX.shape, np.uint8)
    for view in views:
        slices = list(view.annotated)
        np.moveaxis(source_ZYX, view.axis, 0)[slices] = Source.MANUAL
        drawn_slices = np.moveaxis(drawn.labels_ZYX, view.axis, 0)[slices]
        np.moveaxis(labels_ZYX, view.axis, 0)[slices] = drawn_slices
    source_ZYX[drawn.hidden_ZYX] = Source.NONE  # labels are 0 there already
    return Annotation(labels_ZYX=labels_ZYX, source_ZYX=source_ZYX)


def _not_hidden(drawn: DrawnCase, axis: int, slices: set[int]) -> frozenset[int]:
    """Return the slices that the file does not mark as unannotated."""
    hidden = np.moveaxis(drawn.hidden_ZYX, axis, 0)
    return frozenset(index for index in slices if not hidden[index].all())


def _most_frequent_axis(plan: AnnotationPlan) -> int:
    """Return the axis across which most planned slices lie, for cases without a plan."""
    counts: Counter[int] = Counter()
    for each in plan.cases:
        counts[each.axis] += len(each.slices)
    return counts.most_common(1)[0][0] if counts else 0


def _has_slice(files: Sequence[ReturnedFile], axis: int, index: int) -> bool:
    return any(file.holds(axis=axis, index=index) for file in files)


def _require_files(name: str, files: Sequence[ReturnedFile], progress: Progress) -> None:
    """Refuse ticks for slices of which nothing was returned: a lost file is no empty slice."""
    without = [
        f"{AXIS_NAMES[axis]} {index}"
        for axis, indices in sorted(progress.done.items())
        for index in sorted(indices)
        if not _has_slice(files, axis, index)
    ]
    if without:
        problem = _problem(
            name,
            Path("labels"),
            f"slices ticked off as done, but no label file of them: {', '.join(without)}",
            "a label file, even if nothing had to be drawn",
            fix="return the file, or clear the ticks",
        )
        raise DatasetError([problem])


def _contradictions(views: Sequence[ViewStatus], progress: Progress) -> list[Problem]:
    return [
        _problem(
            view.case,
            Path("labels"),
            f"objects in slice {AXIS_NAMES[view.axis]} {index}, which is ticked off as empty",
            "no object there",
            fix="write x in place of empty, or erase what is drawn",
        )
        for view in views
        for index in sorted(progress.empty.get(view.axis, ()))
        if index in view.annotated and index not in view.empty
    ]


def _mirrored(views: Sequence[ViewStatus], ticked: Mapping[int, frozenset[int]]) -> list[Problem]:
    """Refuse drawings that lie only where planned slices would be in a flipped file."""
    problems = []
    for view in views:
        drawn = [index for index in view.extra if index not in ticked.get(view.axis, ())]
        planned = set(view.planned)
        if (
            len(drawn) >= _FEWEST_MIRRORED
            and not view.done
            and all(view.num_slices - 1 - index in planned for index in drawn)
        ):
            problems.append(
                _problem(
                    view.case,
                    Path("labels"),
                    f"no planned slice drawn, but slices {AXIS_NAMES[view.axis]} {_text(drawn)}, "
                    "which are the planned ones counted from the other end",
                    f"slices {_text(view.planned)}; the file seems flipped without its header",
                    fix="look at labels and scan together; if they fit, add these slices to the "
                    "work list and tick them off, else flip the file back",
                )
            )
    return problems


def _text(slices: Sequence[int]) -> str:
    return ", ".join(map(str, slices))


def _problem(
    case: str, path: Path, found: str, expected: str, *, fix: str = "correct the row"
) -> Problem:
    return Problem(case=case, file=str(path), found=found, expected=expected, fix=fix)
