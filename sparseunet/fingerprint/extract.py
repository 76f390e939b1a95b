"""Read every case of a dataset once: check it, measure it, and combine the measurements."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparseunet.artifacts import hash_content, hash_file, remove_unfinished
from sparseunet.data.annotation import Annotation
from sparseunet.data.check import examine_case, findings_of_worker_death, judge
from sparseunet.data.check_report import CheckReport
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.density import LabelDensity, measure_label_density
from sparseunet.data.load import Survey, survey_dataset
from sparseunet.data.provenance import add_provenance
from sparseunet.errors import DatasetError, RequestError, Severity
from sparseunet.fingerprint.case_record import (
    CaseRecord,
    read_record,
    remove_other_records,
    write_record,
)
from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.fingerprint.measure import combine, measure_case
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes

logger = logging.getLogger(__name__)

_RULES_VERSION = 2
"""Raised when the same data would give other findings or numbers than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What is wrong with a dataset and, if that is little enough, what it measures."""

    report: CheckReport
    dataset: Dataset | None
    """None if the dataset is rejected, like the rest."""
    fingerprint: Fingerprint | None
    densities: tuple[LabelDensity, ...]
    """How densely each case is annotated, in the order of the cases; empty if it is rejected."""
    data_hash: str
    """SHA-256 of everything the fingerprint depends on: description and content of all files."""
    num_unchanged: int
    """Cases known from an earlier examination, which were not read again."""


def examine_dataset(
    folder: Path, *, num_workers: int, records: Path | None = None, redo: bool = False
) -> Examination:
    """Check a raw dataset (see `check_dataset`) and measure it, reading every file once.

    Measured are the box of nonzero voxels, the spacing, and the intensities of what a person
    labelled as something other than background (see `measure.combine`).

    Args:
        folder: The dataset folder with `dataset.json`, `imagesTr` and `labelsTr`.
        num_workers: Cases in memory at the same time, one per process.
        records: Where what was found in each case is kept; cases whose files have not changed
            since are not read again. None keeps nothing.
        redo: Look at every case again, whatever is kept.
    """
    survey = survey_dataset(folder)
    if records is not None:
        remove_unfinished(records)
    examined = _examine_cases(survey, num_workers=num_workers, records=records, redo=redo)
    if records is not None:
        remove_unfinished(records)  # again: a killed run's workers may have outlived it
        remove_other_records(records, {case.name for case in survey.cases})
    report = judge(survey, [record.findings for record, _ in examined])
    hashes = [record.input_hash for record, _ in examined]
    fingerprint = None
    densities: tuple[LabelDensity, ...] = ()
    if report.accepted:
        fingerprint = _combine(survey, [record for record, _ in examined])
        densities = tuple(record.density for record, _ in examined if record.density)
    return Examination(
        report=report,
        dataset=survey.to_dataset() if report.accepted else None,
        fingerprint=fingerprint,
        densities=densities,
        data_hash=hash_content([survey.description, hashes]),
        num_unchanged=sum(is_known for _, is_known in examined),
    )


def extract_fingerprint(dataset: Dataset, *, num_workers: int) -> Fingerprint:
    """Measure a dataset like `examine_dataset`, keeping nothing.

    Args:
        dataset: Cases without a label file contribute shape and spacing.
        num_workers: Cases in memory at the same time, one per process.

    Raises:
        DatasetError: Lists every error of every case.
        RequestError: The dataset has no case, or images have other channels than it says.
    """
    if not dataset.cases:
        raise RequestError(
            f"{dataset.name} has no training cases in {dataset.folder}; put images into imagesTr."
        )
    survey = Survey.of(dataset)
    examined = _examine_cases(survey, num_workers=num_workers, records=None, redo=False)
    records = [record for record, _ in examined]
    errors = [
        problem
        for record in records
        for problem in record.findings.problems
        if problem.severity is Severity.ERROR
    ]
    if errors:
        raise DatasetError(errors)
    return _combine(survey, records)


def _combine(survey: Survey, records: list[CaseRecord]) -> Fingerprint:
    fingerprint = combine([record.measurement for record in records if record.measurement])
    if len(fingerprint.intensities) != len(survey.channel_names):
        raise RequestError(
            f"The images of {survey.folder} have {len(fingerprint.intensities)} channels; expected "
            f"{len(survey.channel_names)}: {', '.join(survey.channel_names)}."
        )
    if fingerprint.intensity_source == "body":
        logger.warning(
            "%s: only %d voxels of annotated foreground in %d cases; intensity statistics come "
            "from the nonzero voxels of the images instead.",
            survey.folder.name,
            fingerprint.num_foreground_voxels,
            fingerprint.num_foreground_cases,
        )
    return fingerprint


def _examine_cases(
    survey: Survey, *, num_workers: int, records: Path | None, redo: bool
) -> list[tuple[CaseRecord, bool]]:
    """Return the record of every case, and whether it was known."""
    look = partial(_examine_case, survey=survey.without_cases(), records=records, redo=redo)
    results = map_in_processes(look, survey.cases, num_workers=num_workers)
    named = zip(survey.cases, results, strict=True)
    return [
        (_record_of_worker_death(case, result), False)
        if isinstance(result, WorkerDiedError)
        else result
        for case, result in track(named, total=len(survey.cases), label="examine")
    ]


def _record_of_worker_death(case: Case, error: WorkerDiedError) -> CaseRecord:
    return CaseRecord(
        input_hash="",
        findings=findings_of_worker_death(case, error),
        measurement=None,
        density=None,
    )


def _examine_case(
    case: Case, *, survey: Survey, records: Path | None, redo: bool
) -> tuple[CaseRecord, bool]:
    input_hash = "" if records is None else _input_hash(case, survey)
    if records is not None and input_hash and not redo:
        known = read_record(records, case.name, input_hash=input_hash)
        if known is not None:
            return known, True
    findings, loaded = examine_case(case, survey)
    measurement = density = None
    if findings.accepted and loaded.image is not None:
        annotation = None
        if loaded.labels_ZYX is not None and survey.labels is not None:
            annotation = Annotation.from_label_map(loaded.labels_ZYX, ignore=survey.labels.ignore)
            annotation = add_provenance(annotation, loaded.image.geometry, case)
        measurement = measure_case(loaded.image, annotation)
        density = measure_label_density(case.name, annotation, loaded.image.geometry)
    record = CaseRecord(
        input_hash=input_hash, findings=findings, measurement=measurement, density=density
    )
    if records is not None and input_hash:
        write_record(records, case.name, record)
    return record, False


def _input_hash(case: Case, survey: Survey) -> str:
    """Hash what the record depends on; "" where a file cannot be read."""
    files = [*case.images, *case.label_files]
    try:
        described = [[path.name, hash_file(path)] for path in files]
    except OSError:
        return ""
    return hash_content([_RULES_VERSION, survey.channel_names, survey.labels, described])
