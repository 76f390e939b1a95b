"""Rounds of annotation in a raw dataset: each kept as it came, their sum in `labelsTr`."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.exchange.collect import CollectedCase, Request, collect_cases
from sparseunet.annotation.exchange.export_record import ExportRecord
from sparseunet.annotation.exchange.merge import (
    Conflict,
    OnConflict,
    find_conflict,
    merge_annotations,
    merge_records,
    record_of,
    view_of,
)
from sparseunet.annotation.exchange.slice_status import ViewStatus
from sparseunet.annotation.exchange.views import AXIS_NAMES
from sparseunet.annotation.new_dataset import (
    appearing_folder,
    ignore_value,
    link_file,
    link_folder,
)
from sparseunet.artifacts import hash_content
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    read_annotation_records,
    write_annotation_records,
)
from sparseunet.data.dataset import Dataset
from sparseunet.data.io import read_annotation, read_geometry, write_label_map
from sparseunet.errors import DatasetError, Problem
from sparseunet.progress import track
from sparseunet.workspace import (
    ANNOTATION_JSON,
    ANNOTATION_ROUNDS,
    EXPORT_JSON,
    WORK_LIST_CSV,
)

_LABELS = "labelsTr"
_ROUND = re.compile(r"round_(\d{3,})")


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSource:
    """Where a round comes from."""

    folder: Path
    """What annotators returned."""
    request: Request
    record: ExportRecord | None
    problems: tuple[Problem, ...]
    """What is known to be wrong with it already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedRound:
    """What a round brought."""

    number: int | None
    """None if it would have brought nothing new."""
    views: tuple[ViewStatus, ...]
    records: AnnotationRecords
    """Of all rounds together."""
    num_conflicts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arrived:
    """What came back, case by case, without voxels."""

    views: tuple[ViewStatus, ...]
    records: Mapping[str, AnnotationRecord]
    """Of cases in which something is annotated."""
    news: frozenset[str]
    """Cases that get voxels or slices they did not have."""
    num_conflicts: int


def add_round(
    folder: Path, source: RoundSource, *, on_conflict: OnConflict, is_new: bool = False
) -> AddedRound:
    """Add what came back to the labels of a dataset and keep it as a round.

    Interrupted at any point, the same call again finishes the work. A round that brings nothing is
    not kept.

    Args:
        folder: A raw dataset with an ignore label.
        source: What came back.
        on_conflict: Who wins where a voxel was labelled differently before.
        is_new: Whether the dataset was made for this round. Otherwise its labels are kept as round
            0 before the first round changes them.

    Raises:
        DatasetError: Every problem of every case, conflicts among them.
    """
    rounds = folder / ANNOTATION_ROUNDS
    before = _records_of(folder)
    number = max([0, *_numbers(rounds)]) + 1
    with appearing_folder(rounds / f"round_{number:03d}") as kept:
        arrived = _keep_round(kept, source, folder, on_conflict, before)
        if not arrived.news:
            shutil.rmtree(kept)  # so that it does not appear
            return AddedRound(number=None, views=arrived.views, records=before, num_conflicts=0)
        if not is_new and number == 1 and not (rounds / "round_000").exists():
            _keep_what_was_there(folder, rounds / "round_000")
        records = _merge_into(folder, kept, source, arrived, before=before, on_conflict=on_conflict)
    write_annotation_records(folder / ANNOTATION_JSON, records)
    return AddedRound(
        number=number, views=arrived.views, records=records, num_conflicts=arrived.num_conflicts
    )


def _keep_round(
    kept: Path,
    source: RoundSource,
    folder: Path,
    on_conflict: OnConflict,
    before: AnnotationRecords,
) -> _Arrived:
    """Write what came back as it came, having compared all of it with what is there."""
    request = source.request
    ignore = ignore_value(request.dataset.labels)
    problems: list[Problem] = [*source.problems]
    views: list[ViewStatus] = []
    records: dict[str, AnnotationRecord] = {}
    news: set[str] = set()
    num_conflicts = 0
    total = len({*request.returned.files, *(each.case for each in request.plan.cases)})
    for case in track(collect_cases(request), total=total, label="Importing"):
        if isinstance(case, list):
            problems += case
            continue
        views += case.views
        if not case.annotation.annotated_ZYX.any():
            continue
        records[case.name] = _record_of(case, tuple(request.dataset.labels.foreground))
        earlier = _read_labels(folder, case.name, request.dataset)
        conflict = find_conflict(earlier, case.annotation, axis=records[case.name].axis)
        if conflict is not None:
            num_conflicts += conflict.num_voxels
            if on_conflict == "refuse":
                problems.append(_conflict_problem(case.name, conflict))
        if _is_news(case, records[case.name], earlier, before.cases.get(case.name)) or (
            conflict is not None and on_conflict == "newest"
        ):
            news.add(case.name)
        path = kept / _LABELS / f"{case.name}{request.dataset.file_ending}"
        wide = np.promote_types(case.annotation.labels_ZYX.dtype, np.min_scalar_type(ignore))
        labels_ZYX = case.annotation.to_label_map(ignore=ignore).astype(wide, copy=False)
        write_label_map(path, labels_ZYX, case.geometry)
    if problems:
        raise DatasetError(problems)
    write_annotation_records(kept / ANNOTATION_JSON, _round_records(source, records))
    for name in (WORK_LIST_CSV, EXPORT_JSON):
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, kept / name)
    return _Arrived(
        views=tuple(views), records=records, news=frozenset(news), num_conflicts=num_conflicts
    )


def _merge_into(
    folder: Path,
    kept: Path,
    source: RoundSource,
    arrived: _Arrived,
    *,
    before: AnnotationRecords,
    on_conflict: OnConflict,
) -> AnnotationRecords:
    """Rewrite the label maps that get something new, and return the records of all rounds."""
    dataset = source.request.dataset
    ignore = ignore_value(dataset.labels)
    minutes = _minutes_by_export(folder / ANNOTATION_ROUNDS)
    minutes[_export_id(source)] = {name: each.minutes for name, each in arrived.records.items()}
    records = dict(before.cases)
    for name in sorted(arrived.news):
        merged = merge_annotations(
            _read_labels(folder, name, dataset),
            _read_labels(kept, name, dataset),
            newest_wins=on_conflict == "newest",
        )
        path = folder / _LABELS / f"{name}{dataset.file_ending}"
        wide = np.promote_types(merged.labels_ZYX.dtype, np.min_scalar_type(ignore))
        labels_ZYX = np.where(merged.annotated_ZYX, merged.labels_ZYX.astype(wide), ignore)
        write_label_map(path, labels_ZYX, read_geometry(path))
        known = [each[name] or 0.0 for each in minutes.values() if each.get(name) is not None]
        records[name] = merge_records(
            before.cases.get(name),
            arrived.records[name],
            merged=merged,
            minutes=sum(known) if known else None,
        )
    return AnnotationRecords(
        cases=dict(sorted(records.items())),
        selector=source.request.plan.selector,
        seed=source.request.plan.seed,
        provenance={"imported_from": dataset.name},
    )


def _record_of(case: CollectedCase, classes: Sequence[str]) -> AnnotationRecord:
    views = [
        view_of(case.annotation.labels_ZYX, axis=view.axis, annotated=view.annotated)
        for view in case.views
    ]
    return replace(record_of(views, classes=classes), minutes=case.minutes)


def _is_news(
    case: CollectedCase,
    record: AnnotationRecord,
    earlier: Annotation,
    earlier_record: AnnotationRecord | None,
) -> bool:
    if (case.annotation.annotated_ZYX & ~earlier.annotated_ZYX).any() or earlier_record is None:
        return True
    known = {view.axis: set(view.annotated_slices) for view in earlier_record.views}
    return any(not known.get(view.axis, set()) >= {*view.annotated_slices} for view in record.views)


def _round_records(
    source: RoundSource, records: Mapping[str, AnnotationRecord]
) -> AnnotationRecords:
    plan = source.request.plan
    return AnnotationRecords(
        cases=dict(sorted(records.items())),
        selector=plan.selector,
        seed=plan.seed,
        provenance={
            "export": _export_id(source),
            "plan_hash": hash_content(plan),
            "planned_are_done": source.request.planned_are_done,
        },
    )


def _export_id(source: RoundSource) -> str:
    """Return what tells two imports of one export from imports of two."""
    return hash_content(str(source.folder.resolve()) if source.record is None else source.record)


def _minutes_by_export(rounds: Path) -> dict[str, dict[str, float | None]]:
    """Return the working time per case of every export, as its last import said."""
    minutes: dict[str, dict[str, float | None]] = {}
    for number in _numbers(rounds):
        path = rounds / f"round_{number:03d}" / ANNOTATION_JSON
        if path.is_file():
            records = read_annotation_records(path)
            cases = {name: record.minutes for name, record in records.cases.items()}
            minutes.setdefault(str(records.provenance.get("export", number)), {}).update(cases)
    return minutes


def _keep_what_was_there(folder: Path, round_0: Path) -> None:
    """Link labels and records as they are; writing replaces files, so that the links keep them."""
    with appearing_folder(round_0) as kept:
        link_folder(folder / _LABELS, kept / _LABELS)
        if (folder / ANNOTATION_JSON).is_file():
            link_file(folder / ANNOTATION_JSON, kept / ANNOTATION_JSON)


def _numbers(rounds: Path) -> list[int]:
    if not rounds.is_dir():
        return []
    found = (_ROUND.fullmatch(path.name) for path in rounds.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _records_of(folder: Path) -> AnnotationRecords:
    path = folder / ANNOTATION_JSON
    return read_annotation_records(path) if path.is_file() else AnnotationRecords(cases={})


def _conflict_problem(name: str, conflict: Conflict) -> Problem:
    slices = ", ".join(map(str, conflict.slices))
    return Problem(
        case=name,
        file=_LABELS,
        found=f"{conflict.num_voxels} voxels labelled differently before, in slices "
        f"{AXIS_NAMES[conflict.axis]} {slices}",
        expected="the same labels, or a choice",
        fix="say whether the newest or the oldest wins; both stay in annotation_rounds",
        setting="on_conflict",
    )


def _read_labels(folder: Path, name: str, dataset: Dataset) -> Annotation:
    schema = replace(dataset.labels, ignore=ignore_value(dataset.labels))
    return read_annotation(folder / _LABELS / f"{name}{dataset.file_ending}", schema)[0]
