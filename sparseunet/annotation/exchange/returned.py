"""Find and read what annotators give back, whatever tool they saved it with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.annotation.exchange.classes import DrawnClass, drawn_classes
from sparseunet.annotation.exchange.export_record import ExportedFile, ExportRecord
from sparseunet.annotation.exchange.placement import MisplacedError, place_voxels, slice_geometry
from sparseunet.annotation.exchange.segments import find_segments, paint_segments
from sparseunet.annotation.new_dataset import ignore_value
from sparseunet.artifacts import hash_file, read_json
from sparseunet.data.dataset import Dataset
from sparseunet.data.formats import FORMATS
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import count_values, read_label_map
from sparseunet.data.itk import read_itk_layers
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.data.stored import unreadable
from sparseunet.errors import DatasetError, Problem
from sparseunet.workspace import DATASET_JSON

_ENDINGS = (".seg.nrrd", *FORMATS)
_WITHOUT_POSITION = (".tif", ".tiff", ".png", ".bmp")
_FIX_GEOMETRY = "save the labels on the grid of the exported image, without resampling or moving it"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReturnedFile:
    """One label file of a case as annotators returned it."""

    path: Path
    axis: int | None = None
    """With `index`, if it holds that one slice only."""
    index: int | None = None
    handed_out: Path | None = None
    """The label map as it was handed out; None if it was empty."""
    handed_out_hash: str | None = None

    def holds(self, *, axis: int, index: int) -> bool:
        """Return whether this slice of the scan could be drawn in the file."""
        return self.axis is None or (self.axis, self.index) == (axis, index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """All label files that annotators returned."""

    files: Mapping[str, tuple[ReturnedFile, ...]]
    """Case to its files, sorted by name."""
    labels: LabelSchema | None
    """The classes of a returned nnU-Net dataset, else None: the values are the dataset's own."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnCase:
    """The drawing of one case on the grid of its scan."""

    labels_ZYX: np.ndarray
    """The dataset's label values, 0 where nothing is drawn or annotated."""
    touched_ZYX: np.ndarray
    """bool, where it differs from what was handed out; where it is not the ignore value, for files
    that use one."""
    hidden_ZYX: np.ndarray
    """bool, voxels that hold the ignore value in a file: not annotated."""


def find_returned(folder: Path, dataset: Dataset, record: ExportRecord | None) -> Returned:
    """List the label files of an exported folder, of an nnU-Net dataset or of a plain folder.

    A file may have another ending than it was handed out with. Problems are files that belong to
    no case and cases with several files.
    """
    if record is not None:
        return _find_exported(folder, dataset, record)
    labels = None
    if (folder / DATASET_JSON).is_file():
        labels = parse_labels(read_json(folder / DATASET_JSON))
    inner = [folder / name for name in ("labelsTr", "labels") if (folder / name).is_dir()]
    found = _label_files([*inner, folder][0])
    handed_out = {case.name: ExportedFile(file=case.name) for case in dataset.cases}
    return _match(found, {name: (name, each) for name, each in handed_out.items()}, folder, labels)


def read_drawing(
    files: Sequence[ReturnedFile], geometry: Geometry, dataset: Dataset, *, own: LabelSchema | None
) -> DrawnCase:
    """Read the files of one case and bring them onto the grid of its scan.

    Where files of single slices cross, a voxel drawn in one of them has the label drawn there.

    Args:
        files: One for the whole scan, or one per slice.
        geometry: Of the scan.
        dataset: Gives the classes.
        own: Classes of the files, if they are not the dataset's; matched by name.

    Raises:
        DatasetError: A file cannot be read, does not lie on the scan, holds unknown classes, or
            crosses another one with other labels.
    """
    ignore = ignore_value(dataset.labels)
    labels_ZYX = np.zeros(geometry.shape, np.uint8 if ignore < 256 else np.uint16)
    touched_ZYX, hidden_ZYX = np.zeros(geometry.shape, bool), np.zeros(geometry.shape, bool)
    problems: list[Problem] = []
    for file in files:
        here = _region(file)
        try:
            drawn_ZYX = _read_onto(file, geometry, dataset, own)
            before_ZYX = _read_handed_out(file, geometry, dataset)
        except DatasetError as error:
            problems += error.problems
            continue
        is_hidden_ZYX = drawn_ZYX == ignore
        marks_unannotated = bool(is_hidden_ZYX.any()) or (
            own is not None and own.ignore is not None
        )
        is_touched_ZYX = ~is_hidden_ZYX if marks_unannotated else drawn_ZYX != before_ZYX
        crossed_ZYX = touched_ZYX[here]
        clash_ZYX = crossed_ZYX & is_touched_ZYX & (labels_ZYX[here] != drawn_ZYX)
        if clash_ZYX.any():
            problems.append(_crossing(file.path, int(np.count_nonzero(clash_ZYX))))
        taken_ZYX = is_touched_ZYX | ~crossed_ZYX
        hidden_ZYX[here] = is_hidden_ZYX & ~crossed_ZYX
        labels_ZYX[here][taken_ZYX] = np.where(is_hidden_ZYX, 0, drawn_ZYX)[taken_ZYX]
        touched_ZYX[here] |= is_touched_ZYX
    if problems:
        raise DatasetError(problems)
    return DrawnCase(labels_ZYX=labels_ZYX, touched_ZYX=touched_ZYX, hidden_ZYX=hidden_ZYX)


def _find_exported(folder: Path, dataset: Dataset, record: ExportRecord) -> Returned:
    by_folder: dict[Path, dict[str, tuple[str, ExportedFile]]] = {}
    for case, exported in record.cases.items():
        for each in exported.files:
            path = folder / each.file
            by_folder.setdefault(path.parent, {})[stem_of(path)] = (case, each)
    files: dict[str, list[ReturnedFile]] = {}
    problems: list[Problem] = []
    for inner, expected in by_folder.items():
        others = {case.name: (case.name, ExportedFile(file=case.name)) for case in dataset.cases}
        part = _match(_label_files(inner), {**others, **expected}, folder, None)
        problems += part.problems
        for case, found in part.files.items():
            files.setdefault(case, []).extend(found)
    return Returned(
        files={case: tuple(found) for case, found in sorted(files.items())},
        labels=None,
        problems=tuple(problems),
    )


def _match(
    found: Iterable[Path],
    expected: Mapping[str, tuple[str, ExportedFile]],
    folder: Path,
    labels: LabelSchema | None,
) -> Returned:
    """Assign returned files to exported files by the stem of their names.

    Args:
        found: Label files that came back.
        expected: Stem to case and exported file.
        folder: The export folder.
        labels: Classes of the returned files, if a `dataset.json` came with them.

    Returns:
        Files by case. A file with an unknown stem or with the stem of another is a problem.
    """
    files: dict[str, list[ReturnedFile]] = {}
    problems: list[Problem] = []
    taken: dict[str, Path] = {}
    for path in found:
        stem = stem_of(path)
        if stem not in expected:
            problems.append(_unknown_file(path, expected))
        elif stem in taken:
            problems.append(_second_file(path, taken[stem], expected[stem][0]))
        else:
            taken[stem] = path
            case, each = expected[stem]
            returned = ReturnedFile(
                path=path,
                axis=each.axis,
                index=each.index,
                handed_out=None if each.handed_out is None else folder / each.handed_out,
                handed_out_hash=each.handed_out_hash,
            )
            files.setdefault(case, []).append(returned)
    return Returned(
        files={case: tuple(each) for case, each in sorted(files.items())},
        labels=labels,
        problems=tuple(problems),
    )


def stem_of(path: Path) -> str:
    """Return the name of a label file without its ending."""
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def _label_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.lower().endswith(tuple(_ENDINGS))
    )


def _region(file: ReturnedFile) -> tuple[slice, ...]:
    whole = [slice(None)] * 3
    if file.axis is not None and file.index is not None:
        whole[file.axis] = slice(file.index, file.index + 1)
    return tuple(whole)


def _read_onto(
    file: ReturnedFile, geometry: Geometry, dataset: Dataset, own: LabelSchema | None
) -> np.ndarray:
    """Return the labels of one file, shaped like the part of the scan it stands for."""
    path = file.path
    labels_ZYX, found, may_be_part = _read_labels(path, dataset, own)
    onto = _part_of_scan(file, geometry)
    try:
        if path.name.lower().endswith(_WITHOUT_POSITION):
            return _place_by_shape(labels_ZYX, onto, axis=file.axis)
        return place_voxels(labels_ZYX, found, onto=onto, may_be_part=may_be_part)
    except MisplacedError as error:
        raise unreadable(
            path, found=error.found, expected=error.expected, fix=_FIX_GEOMETRY
        ) from error


def _place_by_shape(labels_ZYX: np.ndarray, onto: Geometry, *, axis: int | None) -> np.ndarray:
    moved_ZYX = labels_ZYX if axis is None else np.moveaxis(labels_ZYX, 0, axis)
    if moved_ZYX.shape != onto.shape:
        raise MisplacedError(
            found=f"shape {moved_ZYX.shape}", expected=f"shape {onto.shape} as the scan"
        )
    return moved_ZYX


def _read_labels(
    path: Path, dataset: Dataset, own: LabelSchema | None
) -> tuple[np.ndarray, Geometry, bool]:
    """Return labels with the dataset's values, their grid, and whether it may be a part only."""
    classes = drawn_classes(dataset.labels)
    ignore = ignore_value(dataset.labels)
    if path.suffix.lower() == ".nrrd":
        stored = read_itk_layers(path)
        segments = find_segments(path, stored)
        if segments is not None:
            labels_ZYX = paint_segments(path, stored, segments, classes, others={"ignore": ignore})
            return labels_ZYX, stored.geometry, True
    labels_ZYX, geometry = read_label_map(path)
    value_of = {each.value: each.value for each in classes} | {0: 0, ignore: ignore}
    if own is not None:
        value_of = _translation(own, classes, ignore)
    unknown = {
        value: count for value, count in count_values(labels_ZYX).items() if value not in value_of
    }
    if unknown:
        raise _unknown_values(path, unknown, classes)
    table = np.zeros(max(value_of) + 1, np.uint8 if max(value_of.values()) < 256 else np.uint16)
    for value, meaning in value_of.items():
        table[value] = meaning
    return table[labels_ZYX], geometry, False


def _translation(own: LabelSchema, classes: Sequence[DrawnClass], ignore: int) -> dict[int, int]:
    values = {each.name: each.value for each in classes}
    value_of = {each.value: values[each.name] for each in drawn_classes(own) if each.name in values}
    return value_of | {0: 0} | ({} if own.ignore is None else {own.ignore: ignore})


def _read_handed_out(file: ReturnedFile, geometry: Geometry, dataset: Dataset) -> np.ndarray | int:
    """Return the labels as they were handed out; 0 for an empty file."""
    if file.handed_out is None:
        return 0
    if not file.handed_out.is_file() or hash_file(file.handed_out) != file.handed_out_hash:
        raise unreadable(
            file.handed_out,
            found="no file" if not file.handed_out.is_file() else "a file that was changed",
            expected="the labels as they were handed out, to tell what a person changed",
            fix="put back the file of the export",
        )
    labels_ZYX, _, _ = _read_labels(file.handed_out, dataset, None)
    return labels_ZYX.reshape(_part_of_scan(file, geometry).shape)


def _part_of_scan(file: ReturnedFile, geometry: Geometry) -> Geometry:
    if file.axis is None or file.index is None:
        return geometry
    return slice_geometry(geometry, axis=file.axis, index=file.index)


def _unknown_values(
    path: Path, unknown: Mapping[int, int], classes: Sequence[DrawnClass]
) -> DatasetError:
    known = ", ".join(f"{each.value} ({each.name})" for each in classes)
    return unreadable(
        path,
        found=", ".join(f"{count} voxels of value {value}" for value, count in unknown.items()),
        expected=f"0 or {known}",
        fix="give these voxels the right label in the tool, or erase them",
    )


def _crossing(path: Path, num_voxels: int) -> Problem:
    return Problem(
        file=str(path),
        found=f"{num_voxels} voxels drawn otherwise in a slice that crosses this one",
        expected="the same label in both",
        fix="correct one of the two",
    )


def _unknown_file(path: Path, expected: Iterable[str]) -> Problem:
    shown = ", ".join(sorted(expected)[:3])
    return Problem(
        file=str(path),
        found="a label file that belongs to no case",
        expected=f"files named after their case, such as {shown}",
        fix="rename it, or move it out of the folder",
    )


def _second_file(path: Path, first: Path, case: str) -> Problem:
    return Problem(
        case=case,
        file=str(path),
        found=f"a second file beside {first.name}",
        expected="one label file",
        fix="remove the one that is not meant",
    )
