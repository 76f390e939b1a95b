"""Take drawings back from annotators into a raw dataset that training can use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.exchange.collect import Request, check_progress
from sparseunet.annotation.exchange.export import check_plan
from sparseunet.annotation.exchange.export_record import ExportRecord, read_export_record
from sparseunet.annotation.exchange.merge import OnConflict
from sparseunet.annotation.exchange.returned import find_returned
from sparseunet.annotation.exchange.rounds import RoundSource, add_round
from sparseunet.annotation.exchange.slice_status import ViewStatus
from sparseunet.annotation.exchange.work_list import read_work_list
from sparseunet.annotation.new_dataset import (
    appearing_folder,
    describe_with_ignore,
    ignore_value,
    link_folder,
    link_images,
)
from sparseunet.artifacts import hash_content, write_json
from sparseunet.data.annotation_record import AnnotationRecords, write_annotation_records
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON, WORK_LIST_CSV


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """Result of an import: the dataset and counts of what was read."""

    folder: Path
    """Folder of the new dataset, or of the one that was added to."""
    round: int | None
    """Number of the round that was added; None if it would have brought nothing new."""
    views: tuple[ViewStatus, ...]
    """Per case and axis, what was planned and what came back."""
    records: AnnotationRecords
    """Of everything annotated so far, as in `annotation.json`."""
    num_conflicts: int
    """Number of voxels whose label has changed."""


def import_annotation(
    dataset: Dataset,
    *,
    plan: AnnotationPlan,
    returned: Path,
    folder: Path,
    planned_are_done: bool = False,
    on_conflict: OnConflict = "refuse",
) -> ImportSummary:
    """Add what annotators drew to a raw dataset, as a new round; nothing earlier is lost.

    Only voxels of annotated slices become labels, all others get the ignore value. A slice is
    annotated if it was ticked off in the work list, or if its drawing differs from what was handed
    out. A case of which nothing is annotated gets a label map that holds the ignore value
    everywhere, because nnU-Net's layout wants a label for every image. Every round is kept as it
    came in `annotation_rounds/`.

    Args:
        dataset: Whose scans were annotated; may be without labels.
        plan: Which slices were to be annotated.
        returned: The export folder with drawings, an nnU-Net dataset, or a folder of label files.
        folder: The dataset to make, or one to add to: with an ignore label, the same classes and
            the same scans.
        planned_are_done: Every planned slice of a returned case counts as ticked off.
        on_conflict: What to do where a voxel was annotated before with another label.

    Raises:
        RequestError: Nothing came back, the export was made from another plan, or `folder` is a
            dataset that cannot be added to.
        DatasetError: Files that cannot be read, do not lie on their scan, hold unknown classes or
            contradict the work list or earlier rounds; all of them.
    """
    record = read_export_record(returned)
    _require_same_plan(plan, record)
    check_plan(dataset, plan)
    source = _read_source(dataset, plan, returned, record=record, planned_are_done=planned_are_done)
    if folder.is_dir():
        _require_same_scans(dataset, folder)
        added = add_round(folder, source, on_conflict=on_conflict)
    else:
        with appearing_folder(folder) as new:
            _write_unannotated(dataset, new)
            added = add_round(new, source, on_conflict=on_conflict, is_new=True)
    return ImportSummary(
        folder=folder,
        round=added.number,
        views=added.views,
        records=added.records,
        num_conflicts=added.num_conflicts,
    )


def _require_same_plan(plan: AnnotationPlan, record: ExportRecord | None) -> None:
    if record is not None and record.plan_hash != hash_content(plan):
        raise RequestError(
            f"The export of {record.dataset} was made from another annotation plan; give the plan "
            "it was exported with."
        )


def _read_source(
    dataset: Dataset,
    plan: AnnotationPlan,
    returned: Path,
    *,
    record: ExportRecord | None,
    planned_are_done: bool,
) -> RoundSource:
    found = find_returned(returned, dataset, record)
    work_list = returned / WORK_LIST_CSV
    request = Request(
        dataset=dataset,
        plan=plan,
        returned=found,
        progress=read_work_list(work_list),
        planned_are_done=planned_are_done,
    )
    problems = (*found.problems, *check_progress(request, work_list))
    if not found.files and not problems:
        raise RequestError(
            f"{returned} holds no label file; expected the folder that export_annotation made, "
            "with drawings in labels/, an nnU-Net dataset, or label files named after their cases."
        )
    return RoundSource(folder=returned, request=request, record=record, problems=problems)


def _write_unannotated(dataset: Dataset, new: Path) -> None:
    """Write the dataset with every label map full of the ignore value."""
    ignore = ignore_value(dataset.labels)
    link_images(dataset.cases, new / "imagesTr", file_ending=dataset.file_ending)
    for name in ("imagesTs", "labelsTs"):
        link_folder(dataset.folder / name, new / name)
    for case in dataset.cases:
        geometry = read_geometry(case.images[0])
        path = new / "labelsTr" / f"{case.name}{dataset.file_ending}"
        write_label_map(path, np.full(geometry.shape, ignore, np.uint16), geometry)
    write_annotation_records(new / ANNOTATION_JSON, AnnotationRecords(cases={}))
    write_json(new / DATASET_JSON, describe_with_ignore(dataset, ignore))


def _require_same_scans(dataset: Dataset, folder: Path) -> None:
    target = load_dataset(folder)
    if target.labels.ignore is None:
        raise RequestError(
            f"{folder} has no ignore label, so its slices are all annotated already; choose "
            "another name for the output, or declare the ignore label in its dataset.json."
        )
    same = (target.labels.classes, target.labels.regions) == (
        dataset.labels.classes,
        dataset.labels.regions,
    )
    if not same or target.labels.ignore != ignore_value(dataset.labels):
        raise RequestError(
            f"{folder} has the labels {target.description['labels']}, but {dataset.name} has "
            f"{dataset.description['labels']}; expected the same classes. Choose another name for "
            "the output."
        )
    problems = _scan_problems(dataset.cases, target)
    if problems:
        raise DatasetError(problems)


def _scan_problems(cases: Sequence[Case], target: Dataset) -> list[Problem]:
    """Return a problem for every case that `target` lacks or holds on another grid."""
    there = {case.name: case for case in target.cases}
    problems = []
    for case in cases:
        if case.name not in there:
            problems.append(
                Problem(
                    case=case.name,
                    file=str(target.folder),
                    found="no such case",
                    expected="every scan of the dataset that was annotated",
                    fix="add its images and a label map full of the ignore value, or choose "
                    "another name for the output",
                )
            )
            continue
        image = there[case.name].images[0]
        problems += [
            problem
            for problem in compare_grids(
                read_geometry(image),
                read_geometry(case.images[0]),
                case=case.name,
                file=str(image),
                reference_file=str(case.images[0]),
            )
            if problem.severity is Severity.ERROR
        ]
    return problems
