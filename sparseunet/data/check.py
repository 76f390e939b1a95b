"""Look at every file of a raw dataset and report everything that is wrong with it, at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sparseunet.data.annotation import Annotation
from sparseunet.data.check_report import CheckReport
from sparseunet.data.dataset import Case
from sparseunet.data.grids import compare_grids
from sparseunet.data.groups import examine_groups
from sparseunet.data.image import Image
from sparseunet.data.io import (
    ReadLabels,
    count_values,
    read_image_with_warnings,
    read_labels_with_warnings,
)
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import Survey, survey_dataset
from sparseunet.data.near_misses import find_near_misses
from sparseunet.data.provenance import add_provenance
from sparseunet.errors import DatasetError, Problem, Severity
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes
from sparseunet.workspace import DATASET_JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Result of examining one case."""

    problems: tuple[Problem, ...]
    """Files as in `Survey.cases`, relative to the dataset folder where they lie in it."""
    dimensions: int | None = None
    """Dimensions of the scan, 2 or 3; None if no file could be read."""
    num_voxels_of: dict[int, int] | None = None
    """How often each label value occurs, or None if the label could not be read."""

    @property
    def accepted(self) -> bool:
        """Whether the case can be used: there is no error."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedCase:
    """The files of one case, as far as they could be read."""

    image: Image | None
    labels_ZYX: np.ndarray | None


def check_dataset(folder: Path, *, num_workers: int = 1) -> CheckReport:
    """Check the description, the files and the voxels of a raw dataset.

    All problems of all cases are collected; one case's problem never hides another's. What counts
    as wrong follows nnU-Net 2.8.1's verification, plus what that does not see: NaN and infinity
    in NIfTI files, cut-off files, almost-whole labels, datasets without any foreground. Voxels
    of the ignore value are normal.

    Args:
        folder: The dataset folder with `dataset.json`, `imagesTr` and `labelsTr`.
        num_workers: Cases read at the same time, in processes; each needs memory for one case.
    """
    survey = survey_dataset(folder)
    results = map_in_processes(
        partial(_find_in_case, survey=survey.without_cases()),
        survey.cases,
        num_workers=num_workers,
    )
    named = zip(survey.cases, results, strict=True)
    findings = [
        findings_of_worker_death(case, result) if isinstance(result, WorkerDiedError) else result
        for case, result in track(named, total=len(survey.cases), label="check")
    ]
    return judge(survey, findings)


def judge(survey: Survey, findings: Sequence[Findings]) -> CheckReport:
    """Put the findings of all cases together, in the order of `survey.cases`."""
    problems = [*survey.problems, *(problem for each in findings for problem in each.problems)]
    problems += _odd_dimensions(survey.cases, findings)
    problems += examine_groups(survey.description, [case.name for case in survey.cases])
    if survey.labels is not None:
        problems += find_near_misses(survey.channel_names, survey.labels)
        problems += _class_problems(findings, survey.labels)
    return CheckReport(
        name=survey.folder.name,
        num_cases=len(survey.cases),
        problems=tuple(_relative(problem, survey.folder) for problem in problems),
    )


def examine_case(case: Case, survey: Survey) -> tuple[Findings, LoadedCase]:
    """Read the files of one case and look for everything that is wrong with them.

    Never raises for what is in the files: whatever happens becomes a problem.

    Args:
        case: One of the survey's.
        survey: Gives classes and channels; its own cases are not looked at.
    """
    try:
        findings, loaded = _examine_files(case, survey)
    except Exception as error:  # noqa: BLE001 - one case's surprise must not hide the others'
        found = f"a failure while looking at it: {type(error).__name__}: {error}"
        findings, loaded = _failed(case, found), LoadedCase(image=None, labels_ZYX=None)
    problems = (_relative(problem, survey.folder) for problem in findings.problems)
    return replace(findings, problems=tuple(problems)), loaded


def findings_of_worker_death(case: Case, error: WorkerDiedError) -> Findings:
    """Return what to report of a case whose process died."""
    return _failed(case, f"that the process looking at it {error}")


def _find_in_case(case: Case, *, survey: Survey) -> Findings:
    return examine_case(case, survey)[0]


def _failed(case: Case, found: str) -> Findings:
    problem = _problem(
        Severity.ERROR,
        case,
        case.images[0] if case.images else case.label,
        found=found,
        expected="files that can be read",
        fix="look at the files of this case; with fewer workers there is more memory for it",
    )
    return Findings(problems=(problem,))


def _examine_files(case: Case, survey: Survey) -> tuple[Findings, LoadedCase]:
    problems: list[Problem] = []
    image = labels = counts = None
    if case.images:
        image = _examine_image(case, survey, problems)
    if case.label is not None:
        labels, counts = _examine_label(case, survey.labels, problems)
    if image is not None and labels is not None:
        problems += compare_grids(
            labels.geometry,
            image.geometry,
            case=case.name,
            file=str(case.label),
            reference_file=case.images[0].name,
        )
        problems += _provenance_problems(case, labels, survey.labels)
    known = image or labels
    findings = Findings(
        problems=tuple(problems),
        dimensions=known.geometry.dimensions if known else None,
        num_voxels_of=counts,
    )
    return findings, LoadedCase(image=image, labels_ZYX=labels.labels_ZYX if labels else None)


def _examine_image(case: Case, survey: Survey, problems: list[Problem]) -> Image | None:
    """Read the images of a case and add what is wrong with them to `problems`.

    Returns:
        The scan; None if it cannot be read.
    """
    try:
        read = read_image_with_warnings(case.images, case=case.name)
    except DatasetError as error:
        problems += [replace(problem, case=case.name) for problem in error.problems]
        return None
    problems += read.warnings
    voxels_CZYX = read.image.voxels_CZYX
    num_channels, num_declared = len(voxels_CZYX), len(survey.channel_names)
    if num_channels > len(case.images) and num_channels != num_declared:
        problems.append(
            _problem(
                Severity.ERROR,
                case,
                case.images[0],
                found=f"{num_channels} channels (a picture in colour)",
                expected=f"{num_declared} channels, as channel_names of {DATASET_JSON} says",
                fix="declare each colour as a channel, or convert the picture to grey",
            )
        )
    flat = [name for name, size in zip("zyx", read.image.geometry.shape, strict=False) if size == 1]
    if read.image.geometry.dimensions == 3 and set(flat) & {"y", "x"}:
        problems.append(
            _problem(
                Severity.WARNING,
                case,
                case.images[0],
                found=f"one voxel along {' and '.join(flat)}",
                expected="slices across z: the slices of a 2D network would be lines here",
                fix="reorder the axes of image and label so that z is the one of one voxel",
            )
        )
    for channel, voxels_ZYX in enumerate(voxels_CZYX):
        low, high = voxels_ZYX.min(), voxels_ZYX.max()
        if low == high:
            file = case.images[min(channel, len(case.images) - 1)]
            problems.append(
                _problem(
                    Severity.WARNING,
                    case,
                    file,
                    found=f"a constant image, {low:g} in every voxel",
                    expected="different values; a standard deviation of 0 cannot be normalised",
                    fix="look at the scan; it gives a network nothing to learn from",
                )
            )
    return read.image


def _examine_label(
    case: Case, labels: LabelSchema | None, problems: list[Problem]
) -> tuple[ReadLabels | None, dict[int, int] | None]:
    assert case.label is not None
    try:
        read = read_labels_with_warnings(case.label, case=case.name)
    except DatasetError as error:
        problems += [replace(problem, case=case.name) for problem in error.problems]
        return None, None
    problems += read.warnings
    counts = count_values(read.labels_ZYX)
    if labels is not None:
        problems += _value_problems(case, counts, labels)
    return read, counts


def _provenance_problems(case: Case, read: ReadLabels, labels: LabelSchema | None) -> list[Problem]:
    """Return what is wrong with the files that say who drew the labels."""
    beside = case.provenance or case.confidence
    if beside is None or labels is None:
        return []
    if labels.ignore is None:
        return [
            _problem(
                Severity.ERROR,
                case,
                beside,
                found="labels that are not all drawn by a person, and no ignore label",
                expected="an ignore label, which stands for them where only manual ones count",
                fix=f'declare "ignore" in labels of {DATASET_JSON}',
            )
        ]
    annotation = Annotation.from_label_map(read.labels_ZYX, ignore=labels.ignore)
    try:
        add_provenance(annotation, read.geometry, case)
    except DatasetError as error:
        return [replace(problem, case=case.name) for problem in error.problems]
    return []


def _value_problems(case: Case, counts: dict[int, int], labels: LabelSchema) -> list[Problem]:
    declared = {*labels.values} if labels.ignore is None else {*labels.values, labels.ignore}
    undeclared = sorted(counts.keys() - declared)
    if undeclared:
        is_binary_picture = undeclared == [255] and counts.keys() <= {0, 255}
        shown = [f"{counts[value]} voxels of value {value}" for value in undeclared[:10]]
        more = f" and {len(undeclared) - 10} more values" if len(undeclared) > 10 else ""
        fix = "map 255 to 1" if is_binary_picture else "correct the file, or declare the value"
        found = ", ".join(shown) + more
        expected = f"the declared values {', '.join(map(str, sorted(declared)))}"
        return [_problem(Severity.ERROR, case, case.label, found=found, expected=expected, fix=fix)]
    if counts.keys() == {labels.ignore}:
        return [_note(case, "no annotated voxel, all have the ignore value", "annotated voxels")]
    if not counts.keys() - {0, labels.ignore}:
        return [_note(case, "only background", "some foreground, in most cases")]
    return []


def _class_problems(findings: Sequence[Findings], labels: LabelSchema) -> list[Problem]:
    """Return what is wrong with the classes over all cases together."""
    total: Counter[int] = Counter()
    for each in findings:
        total.update(each.num_voxels_of or {})
    if not total:
        return []
    present = {value for value in total if value not in (0, labels.ignore)}
    if not present:
        return [
            _dataset_problem(
                Severity.WARNING,
                found="no foreground voxel in any label file",
                expected="foreground in at least one case",
                fix="annotate some; there is nothing to learn from yet",
            )
        ]
    absent = [
        name for name, values in labels.foreground.items() if not present.intersection(values)
    ]
    is_sparse = labels.ignore is not None
    return [
        _dataset_problem(
            Severity.NOTE if is_sparse else Severity.WARNING,
            found=f"no voxel of {name!r} in any label file",
            expected="every declared class in at least one case",
            fix="annotate it" if is_sparse else "check the label values, or remove the class",
        )
        for name in absent
    ]


def _odd_dimensions(cases: Sequence[Case], findings: Sequence[Findings]) -> list[Problem]:
    """Return an error for each case that is 2D among mostly 3D ones, or the reverse."""
    votes = Counter(each.dimensions for each in findings if each.dimensions is not None)
    if len(votes) < 2:
        return []
    usual = votes.most_common(1)[0][0]
    return [
        _problem(
            Severity.ERROR,
            case,
            case.images[0] if case.images else case.label,
            found=f"a {each.dimensions}D image",
            expected=f"{usual}D images, as {votes[usual]} other cases have",
            fix="export the whole volume again, or move the case to a dataset of its own kind",
        )
        for case, each in zip(cases, findings, strict=True)
        if each.dimensions not in (None, usual)
    ]


def _note(case: Case, found: str, expected: str) -> Problem:
    fix = "nothing, if that is so"
    return _problem(Severity.NOTE, case, case.label, found=found, expected=expected, fix=fix)


def _dataset_problem(severity: Severity, *, found: str, expected: str, fix: str) -> Problem:
    return Problem(severity=severity, file="labelsTr", found=found, expected=expected, fix=fix)


def _problem(
    severity: Severity, case: Case, path: Path | None, *, found: str, expected: str, fix: str
) -> Problem:
    return Problem(
        severity=severity,
        case=case.name,
        file=str(path or ""),
        found=found,
        expected=expected,
        fix=fix,
    )


def _relative(problem: Problem, folder: Path) -> Problem:
    path = Path(problem.file)
    if path.is_absolute() and path.is_relative_to(folder):
        return replace(problem, file=str(path.relative_to(folder)))
    return problem
