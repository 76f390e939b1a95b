"""Hand planned slices out to annotators: images, empty or prefilled label files, a checklist."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_plan import AnnotationPlan, PlannedCase
from sparseunet.annotation.exchange.classes import DrawnClass, drawn_classes
from sparseunet.annotation.exchange.export_record import (
    ExportedCase,
    ExportedFile,
    ExportRecord,
    write_export_record,
)
from sparseunet.annotation.exchange.placement import (
    MisplacedError,
    place_voxels,
)
from sparseunet.annotation.exchange.tools import TOOLS, Tool
from sparseunet.annotation.exchange.views import AXIS_NAMES, as_shown, swaps_axes, view_name
from sparseunet.annotation.exchange.work_list import WorkItem, write_work_list
from sparseunet.annotation.new_dataset import appearing_folder, image_files
from sparseunet.artifacts import hash_content, hash_file
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import (
    read_annotation,
    read_geometry,
    read_image,
    write_image,
    write_label_map,
)
from sparseunet.errors import DatasetError, Problem, RequestError
from sparseunet.progress import track
from sparseunet.workspace import WORK_LIST_CSV

LABELS_FOLDER = "labels"
_IMAGES_FOLDER = "images"
_HANDED_OUT = "handed_out"
_LARGEST_THUMBNAIL = 320
"""Pixels along the longer side; more is left out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedPicture:
    """One planned slice, to be drawn on a contact sheet."""

    case: str
    caption: str
    """Which slice, in the file's order and as the tool shows it."""
    priority: int
    image_YX: np.ndarray
    """float32, the first channel, turned as radiologists look at it."""
    spacing_mm: tuple[float, float]
    """Pixel size along (y, x) of the picture."""


DrawSheets = Callable[[Path, Sequence[PlannedPicture]], object]
"""Draws contact sheets into a folder; passed in, because drawing lies above annotation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """Result of an export: the files handed out to annotators."""

    folder: Path
    num_cases: int
    num_slices: int
    num_prefilled: int
    """Number of label files that hold predictions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Export:
    """The settings of an export, the same for all cases."""

    dataset: Dataset
    tool: Tool
    classes: tuple[DrawnClass, ...]
    predictions: Path | None
    single_slices: bool
    folder: Path


def export_annotation(
    dataset: Dataset,
    *,
    plan: AnnotationPlan,
    tool: str,
    folder: Path,
    prefill: Path | None = None,
    single_slices: bool = False,
    draw_sheets: DrawSheets | None = None,
) -> ExportSummary:
    """Write a folder to give to annotators. It appears complete or not at all.

    It holds `images/`, `labels/` with one label file per case in the tool's own form,
    `work_list.csv`, contact sheets and `export.json`. Images are copies, not links, so that nothing
    a tool saves can change the raw dataset.

    Args:
        dataset: May be without labels.
        plan: Which slices; every case must be in the dataset, with as many slices.
        tool: Key of `TOOLS`.
        folder: Must not exist.
        prefill: Folder of label maps CASE.ext on the scans' grids. Planned slices are handed out
            with these labels; other slices stay empty, so that nobody takes them for drawn.
        single_slices: Hand out every planned slice as files of its own, one voxel thick.
        draw_sheets: Draws the contact sheets; None draws none.

    Raises:
        RequestError: The folder exists, the tool opens no such images, or nothing is planned.
        DatasetError: The plan does not fit the dataset, or predictions do not fit the scans; all
            problems at once.
    """
    _check_request(plan, tool, folder)
    geometries = _geometries(dataset, plan, TOOLS[tool], tool)
    planned = sorted((each for each in plan.cases if each.slices), key=_first_rank)
    names = list(dict.fromkeys(each.case for each in planned))
    pictures: list[PlannedPicture] = []
    exported: dict[str, ExportedCase] = {}
    with appearing_folder(folder) as new:
        export = _Export(
            dataset=dataset,
            tool=TOOLS[tool],
            classes=drawn_classes(dataset.labels),
            predictions=prefill,
            single_slices=single_slices,
            folder=new,
        )
        problems: list[Problem] = []
        for name in track(names, total=len(names), label="Exporting"):
            try:
                exported[name] = _export_case(export, plan.of_case(name), geometries[name])
            except DatasetError as error:
                problems += [replace(problem, case=name) for problem in error.problems]
                continue
            if draw_sheets is not None:
                pictures += _pictures(export, plan.of_case(name), geometries[name])
        if problems:
            raise DatasetError(problems)
        write_work_list(new / WORK_LIST_CSV, _work_items(plan, names, geometries, export.tool))
        if export.tool.write_legend is not None:
            export.tool.write_legend(new, export.classes)
        if draw_sheets is not None:
            draw_sheets(new, pictures)
        hashes = [file.handed_out_hash for each in exported.values() for file in each.files]
        record = ExportRecord(
            dataset=dataset.name,
            tool=tool,
            plan_hash=hash_content(plan),
            labels={each.name: each.value for each in export.classes},
            prefilled_from=None if prefill is None else str(prefill),
            prefill_hash=None if prefill is None else hash_content(hashes),
            cases=dict(sorted(exported.items())),
        )
        write_export_record(new, record)
    return ExportSummary(
        folder=folder,
        num_cases=len(names),
        num_slices=plan.num_slices,
        num_prefilled=sum(each is not None for each in hashes),
    )


def check_plan(dataset: Dataset, plan: AnnotationPlan) -> dict[str, Geometry]:
    """Return the geometry of every planned case.

    Raises:
        DatasetError: Cases that the dataset lacks, or that have another number of slices.
    """
    problems: list[Problem] = []
    geometries: dict[str, Geometry] = {}
    cases = {case.name: case for case in dataset.cases}
    for planned in plan.cases:
        case = cases.get(planned.case)
        if case is None:
            there = f"a case of {dataset.name}"
            problems.append(
                _plan_problem(planned, "an unknown case", there, "take the plan's own dataset")
            )
            continue
        geometry = geometries.setdefault(planned.case, read_geometry(case.images[0]))
        num_slices = geometry.shape[planned.axis]
        if num_slices != planned.num_slices:
            found = f"{planned.num_slices} slices across {AXIS_NAMES[planned.axis]} in the plan"
            expected = f"{num_slices}, as the scan has"
            problems.append(
                _plan_problem(planned, found, expected, "plan again; the scan has changed")
            )
    if problems:
        raise DatasetError(problems)
    return geometries


def _check_request(plan: AnnotationPlan, tool: str, folder: Path) -> None:
    if tool not in TOOLS:
        raise RequestError(f"There is no format {tool!r}; choose from {', '.join(TOOLS)}.")
    if folder.exists():
        raise RequestError(
            f"{folder} exists already and is not overwritten; choose another folder or remove it."
        )
    if not plan.num_slices:
        raise RequestError("The plan holds no slice, there is nothing to export.")


def _geometries(
    dataset: Dataset, plan: AnnotationPlan, tool: Tool, name: str
) -> dict[str, Geometry]:
    geometries = check_plan(dataset, plan)
    flat = [case for case, geometry in geometries.items() if geometry.dimensions == 2]
    if flat and not tool.opens_2d:
        able = ", ".join(other for other, each in TOOLS.items() if each.opens_2d)
        raise RequestError(
            f"{len(flat)} cases are 2D images ({', '.join(flat[:3])}), which {name} does not "
            f"annotate; choose another format: {able}."
        )
    return geometries


def _export_case(
    export: _Export, planned: Sequence[PlannedCase], geometry: Geometry
) -> ExportedCase:
    case = export.dataset.case(planned[0].case)
    labels_ZYX = _labels_to_hand_out(export, case, planned, geometry)
    if export.single_slices:
        files = list(_export_slices(export, case, planned, labels_ZYX, geometry))
    else:
        _copy_images(export, case, geometry)
        files = [_write_labels(export, case.name, labels_ZYX, geometry)]
    return ExportedCase(geometry=geometry, files=tuple(files))


def _labels_to_hand_out(
    export: _Export, case: Case, planned: Sequence[PlannedCase], geometry: Geometry
) -> np.ndarray:
    labels_ZYX = np.zeros(geometry.shape, np.uint8)
    if export.predictions is None:
        return labels_ZYX
    path = export.predictions / f"{case.name}{export.dataset.file_ending}"
    annotation, found = read_annotation(path, export.dataset.labels)
    try:
        predicted_ZYX = place_voxels(annotation.labels_ZYX, found, onto=geometry)
    except MisplacedError as error:
        raise misplaced(case.name, path, error) from error
    labels_ZYX = labels_ZYX.astype(predicted_ZYX.dtype)
    for each in planned:
        here = (slice(None),) * each.axis + (list(each.slices),)
        labels_ZYX[here] = predicted_ZYX[here]
    return labels_ZYX


def misplaced(case: str, path: Path, error: MisplacedError) -> DatasetError:
    """Return what to raise for labels that do not lie on their scan."""
    problem = Problem(
        case=case,
        file=str(path),
        found=error.found,
        expected=error.expected,
        fix="save the labels on the grid of the exported image, without resampling or moving it",
    )
    return DatasetError([problem])


def _write_labels(
    export: _Export,
    stem: str,
    labels_ZYX: np.ndarray,
    geometry: Geometry,
    *,
    axis: int | None = None,
    index: int | None = None,
) -> ExportedFile:
    path = export.folder / LABELS_FOLDER / f"{stem}{export.tool.label_ending}"
    export.tool.write_labels(path, labels_ZYX, geometry, export.classes)
    record = ExportedFile(file=f"{LABELS_FOLDER}/{path.name}", axis=axis, index=index)
    if not labels_ZYX.any():
        return record
    copy = export.folder / _HANDED_OUT / f"{stem}.nii.gz"  # tools save over what they opened
    write_label_map(copy, labels_ZYX, geometry)
    return replace(record, handed_out=f"{_HANDED_OUT}/{copy.name}", handed_out_hash=hash_file(copy))


def _export_slices(
    export: _Export,
    case: Case,
    planned: Sequence[PlannedCase],
    labels_ZYX: np.ndarray,
    geometry: Geometry,
) -> Iterator[ExportedFile]:
    image = read_image(case.images)
    for each in planned:
        for index in sorted(each.slices):
            stem = f"{case.name}_{AXIS_NAMES[each.axis]}{index:04d}"
            grid = export.tool.slice_grid(geometry, each.axis, index)
            as_written = partial(_one_slice, axis=each.axis, index=index, grid=grid)
            for channel, voxels_ZYX in enumerate(image.voxels_CZYX):
                ending = ".tif" if export.tool.images_as_tiff else ".nii.gz"
                path = export.folder / _IMAGES_FOLDER / f"{stem}_{channel:04d}{ending}"
                write_image(path, as_written(voxels_ZYX), grid)
            labels = as_written(labels_ZYX)
            yield _write_labels(export, stem, labels, grid, axis=each.axis, index=index)


def _one_slice(voxels_ZYX: np.ndarray, *, axis: int, index: int, grid: Geometry) -> np.ndarray:
    return np.take(voxels_ZYX, index, axis).reshape(grid.shape)


def _copy_images(export: _Export, case: Case, geometry: Geometry) -> None:
    folder = export.folder / _IMAGES_FOLDER
    folder.mkdir(exist_ok=True)
    ending = export.dataset.file_ending
    if export.tool.images_as_tiff and ending not in (".tif", ".tiff", ".png", ".bmp"):
        for channel, voxels_ZYX in enumerate(read_image(case.images).voxels_CZYX):
            write_image(folder / f"{case.name}_{channel:04d}.tif", voxels_ZYX, geometry)
        return
    for source, target in image_files([case], folder, file_ending=ending):
        shutil.copyfile(source, target)


def _pictures(
    export: _Export, planned: Sequence[PlannedCase], geometry: Geometry
) -> Iterator[PlannedPicture]:
    image: Image = read_image(export.dataset.case(planned[0].case).images)
    for each in planned:
        first, second = (geometry.spacing_mm[other] for other in range(3) if other != each.axis)
        spacing_mm = (second, first) if swaps_axes(geometry, each.axis) else (first, second)
        for index, rank in sorted(zip(each.slices, each.ranks, strict=True)):
            plane = as_shown(np.take(image.voxels_CZYX[0], index, each.axis), geometry, each.axis)
            step = max(1, max(plane.shape) // _LARGEST_THUMBNAIL)
            shown = export.tool.shown_as(geometry, each.axis, index)
            name = AXIS_NAMES[each.axis]
            yield PlannedPicture(
                case=each.case,
                caption=f"{name} {index}" + (f", shown as {shown}" if shown != str(index) else ""),
                priority=rank,
                image_YX=plane[::step, ::step].copy(),
                spacing_mm=spacing_mm,
            )


def _work_items(
    plan: AnnotationPlan, names: Sequence[str], geometries: dict[str, Geometry], tool: Tool
) -> Iterator[WorkItem]:
    """Yield rows case by case, the case with the most important slice first."""
    for name in names:
        rows = [
            (rank, each, index, reason)
            for each in plan.of_case(name)
            for index, rank, reason in zip(each.slices, each.ranks, each.reasons, strict=True)
        ]
        for rank, each, index, reason in sorted(rows, key=lambda row: row[0]):
            yield WorkItem(
                case=name,
                axis=each.axis,
                view=view_name(geometries[name], each.axis),
                index=index,
                shown_as=tool.shown_as(geometries[name], each.axis, index),
                priority=rank,
                reason=reason,
                expected_minutes=each.expected_minutes / len(each.slices),
            )


def _first_rank(planned: PlannedCase) -> tuple[int, str]:
    return min(planned.ranks), planned.case


def _plan_problem(planned: PlannedCase, found: str, expected: str, fix: str) -> Problem:
    return Problem(
        case=planned.case, file="annotation plan", found=found, expected=expected, fix=fix
    )
