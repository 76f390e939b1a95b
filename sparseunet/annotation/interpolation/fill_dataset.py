"""Fill the labels of a whole dataset, and judge beforehand whether that is worth it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sparseunet.annotation.interpolation import load_interpolator
from sparseunet.annotation.interpolation.gaps import complete_slices, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.quality import (
    HiddenSlices,
    add_up,
    compare_hidden_slices,
)
from sparseunet.annotation.interpolation.verdict import Verdict, judge
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.provenance import read_case_annotation, write_provenance
from sparseunet.errors import DatasetError, Problem, RequestError
from sparseunet.named_functions import path_of
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes
from sparseunet.workspace import CONFIDENCE, PROVENANCE

Result = TypeVar("Result")
FROM_LABELS = ("nearest", "shape", "spline", "morphological")
"""Methods that do not look at intensities, so that images need not be read."""
JUDGED = ("nearest", "shape", "spline", "fused")
"""Methods that `auto` chooses from: those that train within seconds and need no package."""
JUDGED_CASES = 40
"""So many cases at most are looked at to judge a dataset, spread evenly over their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpolationOptions:
    """Options of filling a dataset."""

    method: str
    """Key of `INTERPOLATORS`, or `package.module:function`; the function itself may be given."""
    axis: int | None = None
    """None: in each case the axis across which the largest share of slices is complete."""
    until_gap_mm: float | None = None
    """Width in mm of the widest gap to fill, see `InterpolationRequest`."""
    seed: int = 0
    time_budget_s: float | None = None
    device: str = "cpu"
    cache: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", path_of(self.method, what="method of interpolation"))


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledCase:
    """What was done to one case. Without a complete slice, or without a gap, nothing."""

    case: str
    axis: int | None
    num_slices: int
    """Number of slices across the axis."""
    num_annotated_slices: int
    """Number of complete slices across the axis."""
    num_filled_slices: int
    num_filled_voxels: int
    mean_confidence: float | None
    """Mean confidence of the filled voxels; None if no voxel was filled."""


def fill_dataset(
    dataset: Dataset, *, options: InterpolationOptions, folder: Path, num_workers: int
) -> tuple[Dataset, tuple[FilledCase, ...]]:
    """Write `labelsTr`, `provenanceTr` and `confidenceTr` with the gaps of every case filled.

    Args:
        dataset: Cases without labels, or without a complete slice, stay as they are.
        options: How.
        folder: Gets the three folders.
        num_workers: Cases in memory at the same time, one per process; methods that train work on
            one after the other.

    Returns:
        The dataset with the new files in place of its labels, and what was done to each case that
        has labels.

    Raises:
        RequestError: The method does not exist or cannot run here, the dataset declares no ignore
            label, or nothing in it can be filled.
        DatasetError: Every problem of every case that failed.
    """
    load_interpolator(options.method)
    if dataset.labels.ignore is None:
        raise RequestError(
            f"{dataset.name} declares no ignore label, so all of its labels count as drawn and "
            'there is nothing to fill; declare "ignore" in labels of dataset.json.'
        )
    labelled = [case for case in dataset.cases if case.label is not None]
    work = partial(
        _fill_case,
        labels=dataset.labels,
        options=options,
        scans=() if options.method in FROM_LABELS else dataset.cases,
        num_threads=max(1, num_workers // max(1, len(labelled))),
        folder=folder,
        file_ending=dataset.file_ending,
    )
    workers = num_workers if options.method in FROM_LABELS else 1
    filled = _run(work, labelled, num_workers=workers, label=f"interpolate ({options.method})")
    if not any(item.num_filled_voxels for item in filled):
        raise RequestError(
            f"Nothing can be filled in {dataset.name}: no case has a gap beside a slice in which "
            "every voxel is annotated"
            + (f", of at most {options.until_gap_mm:g} mm" if options.until_gap_mm else "")
            + "."
        )
    cases = tuple(
        case if case.label is None else _with_new_files(case, folder, dataset.file_ending)
        for case in dataset.cases
    )
    return replace(dataset, cases=cases), tuple(filled)


def judge_dataset(
    dataset: Dataset, *, axis: int | None, num_workers: int, methods: Sequence[str] = JUDGED
) -> Verdict | None:
    """Hide annotated slices, interpolate them from the others, and decide; see `judge`.

    Args:
        dataset: Up to `JUDGED_CASES` of its cases are looked at.
        axis: As in `InterpolationOptions`.
        num_workers: Cases in memory at the same time, one per process.
        methods: To choose from.

    Returns:
        None if no case has two complete slices and a gap.
    """
    labelled = _spread(dataset)
    work = partial(
        _judge_case,
        labels=dataset.labels,
        axis=axis,
        methods=tuple(methods),
        looked_at=labelled,
    )
    found = _run(work, labelled, num_workers=num_workers, label="judge interpolation")
    seen = [item for item in found if item is not None]
    if not seen:
        return None
    distances_mm: Counter[float] = Counter()
    for item in seen:
        distances_mm.update(item.distances_mm)
    return judge(
        add_up([item.hidden for item in seen]),
        distances_mm=distances_mm,
        density=float(np.median([item.density for item in seen])),
    )


def choose_axis(annotation: Annotation) -> int | None:
    """Return the axis with the largest share of complete slices; None if none has any."""
    shares = [
        len(complete_slices(annotation, axis)) / size
        for axis, size in enumerate(annotation.labels_ZYX.shape)
    ]
    return int(np.argmax(shares)) if max(shares) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _JudgedCase:
    hidden: tuple[HiddenSlices, ...]
    distances_mm: Counter[float]
    density: float


def _spread(dataset: Dataset) -> tuple[Case, ...]:
    """Return up to `JUDGED_CASES` labelled cases."""
    labelled = [case for case in dataset.cases if case.label is not None]
    return tuple(labelled[:: max(1, -(-len(labelled) // JUDGED_CASES))])


def _other_half(case: Case, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return cases to learn from whose labels say nothing about the hidden slices of `case`."""
    return cases[(cases.index(case) + 1) % 2 :: 2]


def _judge_case(
    case: Case,
    *,
    labels: LabelSchema,
    axis: int | None,
    methods: tuple[str, ...],
    looked_at: tuple[Case, ...],
) -> _JudgedCase | None:
    """Hide annotated slices of one case, interpolate them by every method and compare.

    Returns:
        The scores, the distances in mm from the slices to be filled to their nearest annotated
        slices, and the share of slices that are complete. None if the case has no gap to fill.
    """
    annotation, geometry = read_case_annotation(case, labels)
    axis = choose_axis(annotation) if axis is None else axis
    if axis is None:
        return None
    scans = () if set(methods) <= set(FROM_LABELS) else _other_half(case, looked_at)
    request = InterpolationRequest(axis=axis, scans=scans, labels=labels)
    step_mm = geometry.spacing_mm[axis]
    distances_mm = Counter(
        round(gap.distance(index) * step_mm, 3)
        for gap in find_gaps(annotation, geometry.spacing_mm, request)
        for index in gap.slices
    )
    if not distances_mm:
        return None
    image = _image(case, geometry, needed=not set(methods) <= set(FROM_LABELS))
    hidden = compare_hidden_slices(
        image, annotation, labels=labels, methods=methods, request=request
    )
    density = len(complete_slices(annotation, axis)) / geometry.shape[axis]
    return _JudgedCase(hidden=hidden, distances_mm=distances_mm, density=density)


def _fill_case(
    case: Case,
    *,
    labels: LabelSchema,
    options: InterpolationOptions,
    scans: tuple[Case, ...],
    num_threads: int,
    folder: Path,
    file_ending: str,
) -> FilledCase:
    """Interpolate one case and write labels, provenance and confidence into `folder`.

    A case in which no axis has gaps to fill is written as it is.
    """
    annotation, geometry = read_case_annotation(case, labels)
    axis = choose_axis(annotation) if options.axis is None else options.axis
    filled = annotation
    if axis is not None:
        request = InterpolationRequest(
            axis=axis,
            until_gap_mm=options.until_gap_mm,
            seed=options.seed,
            scans=scans,
            labels=labels,
            time_budget_s=options.time_budget_s,
            device=options.device,
            num_threads=num_threads,
            cache=options.cache,
        )
        image = _image(case, geometry, needed=options.method not in FROM_LABELS)
        filled = load_interpolator(options.method)(image, annotation, request=request)
    files = _with_new_files(case, folder, file_ending)
    assert files.label is not None
    assert files.provenance is not None
    assert files.confidence is not None
    write_label_map(files.label, filled.to_label_map(ignore=labels.ignore), geometry)
    write_provenance(filled, geometry, provenance=files.provenance, confidence=files.confidence)
    return _describe(case, annotation, filled, axis)


def _describe(case: Case, before: Annotation, after: Annotation, axis: int | None) -> FilledCase:
    new_ZYX = (after.source_ZYX == Source.INTERPOLATED) & ~before.annotated_ZYX
    num_voxels = int(np.count_nonzero(new_ZYX))
    confidence = None
    if num_voxels and after.confidence_ZYX is not None:
        confidence = float(after.confidence_ZYX[new_ZYX].mean(dtype=np.float64))
    others = tuple(other for other in range(3) if other != axis)
    return FilledCase(
        case=case.name,
        axis=axis,
        num_slices=0 if axis is None else new_ZYX.shape[axis],
        num_annotated_slices=0 if axis is None else len(complete_slices(before, axis)),
        num_filled_slices=0 if axis is None else int(new_ZYX.any(axis=others).sum()),
        num_filled_voxels=num_voxels,
        mean_confidence=confidence,
    )


def _image(case: Case, geometry: Geometry, *, needed: bool) -> Image:
    """Return the scan, or one without channels for methods that look at its grid only."""
    if needed:
        return read_image(case.images)
    return Image(voxels_CZYX=np.zeros((0, *geometry.shape), np.float32), geometry=geometry)


def _with_new_files(case: Case, folder: Path, file_ending: str) -> Case:
    name = f"{case.name}{file_ending}"
    return replace(
        case,
        label=folder / "labelsTr" / name,
        provenance=folder / PROVENANCE / name,
        confidence=folder / CONFIDENCE / name,
    )


def _run(
    work: Callable[[Case], Result], cases: Sequence[Case], *, num_workers: int, label: str
) -> list[Result]:
    """Work on every case, and raise the problems of all that failed."""
    results: list[Result] = []
    problems: list[Problem] = []
    attempts = map_in_processes(partial(_attempt, work), cases, num_workers=num_workers)
    for case, result in zip(cases, track(attempts, total=len(cases), label=label), strict=True):
        if isinstance(result, _Failed):
            problems += [replace(item, case=item.case or case.name) for item in result.problems]
        elif isinstance(result, WorkerDiedError):
            problems.append(_problem(case, f"that the process working on it {result}"))
        else:
            results.append(result)
    if problems:
        raise DatasetError(problems)
    return results


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failed:
    problems: tuple[Problem, ...]


def _attempt(work: Callable[[Case], Any], case: Case) -> Any:
    try:
        return work(case)
    except DatasetError as error:
        return _Failed(problems=tuple(error.problems))
    except (ValueError, OSError, MemoryError) as error:
        return _Failed(problems=(_problem(case, str(error) or type(error).__name__),))


def _problem(case: Case, found: str) -> Problem:
    return Problem(
        case=case.name,
        file=str(case.label),
        found=found,
        expected="labels that can be read and fit into memory",
        fix="mend the case, or use fewer workers",
        setting="num_workers",
    )
