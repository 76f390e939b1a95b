"""Slices that are exported, drawn in a tool's own files and imported are what was drawn."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import slicerio
from drawing_tools import DRAW, ENDING, draw_with_nibabel, make_plan, only_slices
from phantoms import blobs, box, intensities

from sparseunet.annotation.annotation_plan import AnnotationPlan, write_annotation_plan
from sparseunet.annotation.exchange import TOOL_NAMES
from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.annotation.exchange.tools import TOOLS
from sparseunet.annotation.simulate import simulate_annotation
from sparseunet.cli.main import main
from sparseunet.data.annotation_record import read_annotation_records
from sparseunet.data.check import check_dataset
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset

SHAPE = (12, 9, 7)
TILTED = (0.0, -0.8, 0.6, 1.0, 0.0, 0.0, 0.0, 0.6, 0.8)
GEOMETRY = Geometry(
    shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5), direction=TILTED
)
VALUES = {"organ": 1, "lesion": 2}


def make_dense(folder: Path, *, names=("a", "b"), geometry=GEOMETRY) -> Dataset:
    """A dataset whose outer thirds of slices are empty, so that empty slices get planned."""
    middle = box(SHAPE, start=(4, 0, 0), stop=(8, *SHAPE[1:]))
    for index, name in enumerate(names):
        labels_ZYX = np.where(middle, blobs(SHAPE, seed=index), 0).astype(np.uint8)
        image = folder / "imagesTr" / f"{name}_0000.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=index), geometry)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", labels_ZYX, geometry)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **VALUES},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder)


def plan_like(simulated: Path, dataset: Dataset, *, axis: int = 0) -> AnnotationPlan:
    """The plan that asks for exactly the slices a simulation kept."""
    records = read_annotation_records(simulated / "annotation.json").cases
    shapes = {case.name: read_label_map(case.label)[0].shape for case in dataset.cases}
    slices = {name: record.annotated_slices for name, record in records.items()}
    return make_plan(slices, shapes, axis=axis, dataset=dataset.name)


def draw_all(
    folder: Path, tool: str, dataset: Dataset, plan: AnnotationPlan, values=VALUES
) -> None:
    for planned in plan.cases:
        dense_ZYX, _ = read_label_map(dataset.case(planned.case).label)
        drawn_ZYX = only_slices(dense_ZYX, planned.slices, axis=planned.axis)
        DRAW[tool](folder / "labels" / f"{planned.case}{ENDING[tool]}", drawn_ZYX, values)


def assert_same_labels(imported: Path, expected: Path) -> None:
    files = sorted(path.name for path in (expected / "labelsTr").glob("*.nii.gz"))
    assert files
    for name in files:
        found, geometry = read_label_map(imported / "labelsTr" / name)
        wanted, wanted_geometry = read_label_map(expected / "labelsTr" / name)
        assert np.array_equal(found, wanted), name
        assert geometry == wanted_geometry


def tick_all(folder: Path) -> None:
    """Tick every row off, as somebody with a spreadsheet program would."""
    path = folder / "work_list.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    for row in rows:
        row |= {"done": "x", "minutes": "1,5"}
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def test_the_command_line_knows_the_tools_there_are():
    assert tuple(TOOLS) == TOOL_NAMES


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_drawn_in_planned_slices_comes_back_voxel_for_voxel(tmp_path, tool, axis):
    dataset = make_dense(tmp_path / "Dataset001_Dense")
    simulated = tmp_path / "Dataset002_Sparse"
    simulate_annotation(dataset, density=0.4, selector="fixed", axis=axis, seed=0, folder=simulated)
    plan = plan_like(simulated, dataset, axis=axis)
    export_annotation(dataset, plan=plan, tool=tool, folder=tmp_path / "export")
    draw_all(tmp_path / "export", tool, dataset, plan)
    tick_all(tmp_path / "export")

    summary = import_annotation(
        dataset, plan=plan, returned=tmp_path / "export", folder=tmp_path / "Dataset003_Drawn"
    )

    assert_same_labels(tmp_path / "Dataset003_Drawn", simulated)
    wanted = read_annotation_records(simulated / "annotation.json").cases
    found = read_annotation_records(tmp_path / "Dataset003_Drawn" / "annotation.json")
    assert found == summary.records
    for name, record in found.cases.items():
        assert (record.axis, record.annotated_slices) == (axis, wanted[name].annotated_slices)
        assert record.reviewed_empty_slices == wanted[name].reviewed_empty_slices
        assert record.annotated_classes == ("organ", "lesion")
        assert record.minutes == 1.5 * len(record.annotated_slices)


@pytest.mark.parametrize("tool", TOOLS)
def test_single_slices_come_back_into_their_volume(tmp_path, tool):
    dataset = make_dense(tmp_path / "Dataset001_Dense")
    plan = make_plan({"a": {0: [5, 6], 1: [4]}, "b": {2: [3]}}, {"a": SHAPE, "b": SHAPE})
    folder = tmp_path / "export"
    export_annotation(dataset, plan=plan, tool=tool, folder=folder, single_slices=True)
    for planned in plan.cases:
        dense_ZYX, _ = read_label_map(dataset.case(planned.case).label)
        for index in planned.slices:
            stem = f"{planned.case}_{'zyx'[planned.axis]}{index:04d}"
            plane = np.take(dense_ZYX, [index], planned.axis)
            if tool == "napari":
                plane = np.moveaxis(plane, planned.axis, 0)
            DRAW[tool](folder / "labels" / f"{stem}{ENDING[tool]}", plane, VALUES)

    import_annotation(dataset, plan=plan, returned=folder, folder=tmp_path / "Dataset003_Drawn")

    for name, views in {"a": {0: [5, 6], 1: [4]}, "b": {2: [3]}}.items():
        dense_ZYX, _ = read_label_map(dataset.case(name).label)
        expected_ZYX = np.full(SHAPE, 3, np.uint8)
        for axis, indices in views.items():
            here = (slice(None),) * axis + (indices,)
            expected_ZYX[here] = dense_ZYX[here]
        found_ZYX, _ = read_label_map(tmp_path / "Dataset003_Drawn" / "labelsTr" / f"{name}.nii.gz")
        assert np.array_equal(found_ZYX, expected_ZYX)
    record = read_annotation_records(tmp_path / "Dataset003_Drawn" / "annotation.json").cases["a"]
    assert [(view.axis, view.annotated_slices) for view in record.views] == [(0, (5, 6)), (1, (4,))]


def _reorient_nifti(path: Path) -> None:
    nibabel.save(nibabel.as_closest_canonical(nibabel.load(path)), path)


def _reorient_nrrd(code: str):
    def reorient(path: Path) -> None:
        image = SimpleITK.ReadImage(str(path))
        turned = SimpleITK.DICOMOrient(image, code)
        for key in image.GetMetaDataKeys():
            if key.startswith(("Segment", "org.mitk", "modality")):
                turned.SetMetaData(key, image.GetMetaData(key))
        assert turned.GetDirection() != image.GetDirection()
        SimpleITK.WriteImage(turned, str(path), useCompression=True)

    return reorient


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("tool", ["itksnap", "slicer", "mitk", "nifti"])
def test_files_that_a_tool_reoriented_come_back_voxel_for_voxel(tmp_path, tool, code):
    dataset = make_dense(tmp_path / "Dataset001_Dense")
    simulated = tmp_path / "Dataset002_Sparse"
    simulate_annotation(dataset, density=0.4, selector="fixed", axis=0, seed=0, folder=simulated)
    plan = plan_like(simulated, dataset)
    export_annotation(dataset, plan=plan, tool=tool, folder=tmp_path / "export")
    draw_all(tmp_path / "export", tool, dataset, plan)
    reorient = _reorient_nifti if tool == "nifti" else _reorient_nrrd(code)
    for path in (tmp_path / "export" / "labels").iterdir():
        reorient(path)

    import_annotation(
        dataset,
        plan=plan,
        returned=tmp_path / "export",
        folder=tmp_path / "Dataset003_Drawn",
        planned_are_done=True,
    )

    assert_same_labels(tmp_path / "Dataset003_Drawn", simulated)


def test_a_segmentation_cropped_to_what_is_drawn_comes_back_in_its_place(tmp_path):
    dataset = make_dense(tmp_path / "Dataset001_Dense", names=("a",))
    plan = make_plan({"a": [5, 6]}, {"a": SHAPE})
    export_annotation(dataset, plan=plan, tool="slicer", folder=tmp_path / "export")
    draw_all(tmp_path / "export", "slicer", dataset, plan)
    path = tmp_path / "export" / "labels" / "a.seg.nrrd"
    image = SimpleITK.ReadImage(str(path))
    voxels = SimpleITK.GetArrayFromImage(image)
    present = np.argwhere(voxels)
    start, stop = present.min(0), present.max(0) + 1
    cropped = image[
        tuple(slice(int(a), int(b)) for a, b in zip(start[::-1], stop[::-1], strict=True))
    ]
    for key in image.GetMetaDataKeys():
        if key.startswith("Segment"):
            cropped.SetMetaData(key, image.GetMetaData(key))
    SimpleITK.WriteImage(cropped, str(path))
    assert cropped.GetSize() != image.GetSize()

    import_annotation(
        dataset, plan=plan, returned=tmp_path / "export", folder=tmp_path / "Dataset003_Drawn"
    )

    dense_ZYX, _ = read_label_map(dataset.case("a").label)
    found_ZYX, _ = read_label_map(tmp_path / "Dataset003_Drawn" / "labelsTr" / "a.nii.gz")
    assert np.array_equal(found_ZYX[[5, 6]], dense_ZYX[[5, 6]])


def test_segments_in_layers_come_back_as_classes(tmp_path):
    dataset = make_dense(tmp_path / "Dataset001_Dense", names=("a",))
    plan = make_plan({"a": [5]}, {"a": SHAPE})
    export_annotation(dataset, plan=plan, tool="slicer", folder=tmp_path / "export")
    path = tmp_path / "export" / "labels" / "a.seg.nrrd"
    dense_ZYX, _ = read_label_map(dataset.case("a").label)
    drawn = slicerio.read_segmentation(path)
    layers = np.stack([np.equal(only_slices(dense_ZYX, [5]).T, value) for value in (1, 2)])
    drawn["voxels"] = layers.astype(np.uint8)
    for layer, segment in enumerate(drawn["segments"]):
        segment |= {"labelValue": 1, "layer": layer}
    slicerio.write_segmentation(str(path), drawn)

    import_annotation(
        dataset, plan=plan, returned=tmp_path / "export", folder=tmp_path / "Dataset003_Drawn"
    )

    found_ZYX, _ = read_label_map(tmp_path / "Dataset003_Drawn" / "labelsTr" / "a.nii.gz")
    assert np.array_equal(found_ZYX[5], dense_ZYX[5])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("name", "num_cases"), [("Dataset004_Hippocampus", 3), ("Dataset027_ACDC", 2)]
)
def test_real_scans_come_back_as_simulated(tmp_path, data_root, name, num_cases, tool):
    whole = load_dataset(data_root / name)
    few = tmp_path / name
    for case in whole.cases[:num_cases]:
        for image in case.images:
            (few / "imagesTr").mkdir(parents=True, exist_ok=True)
            (few / "imagesTr" / image.name).write_bytes(image.read_bytes())
        (few / "labelsTr").mkdir(exist_ok=True)
        (few / "labelsTr" / case.label.name).write_bytes(case.label.read_bytes())
    description = {**whole.description, "numTraining": num_cases}
    (few / "dataset.json").write_text(json.dumps(description))
    dataset = load_dataset(few)
    simulated = tmp_path / "Dataset902_Sparse"
    simulate_annotation(dataset, density=0.2, selector="fixed", axis=0, seed=0, folder=simulated)
    plan = plan_like(simulated, dataset)
    write_annotation_plan(tmp_path / "plan.json", plan)
    words = ["-d", str(few), "--plan", str(tmp_path / "plan.json")]
    export = tmp_path / "export"
    assert main(["export_annotation", *words, "--format", tool, "-o", str(export)]) == 0
    values = {each: value for each, value in dataset.labels.classes.items() if value}
    draw_all(export, tool, dataset, plan, values)

    drawn = str(tmp_path / "Dataset903_Drawn")
    flags = ["-o", drawn, "--planned-are-done"]
    assert main(["import_annotation", str(export), *words, *flags]) == 0

    assert_same_labels(tmp_path / "Dataset903_Drawn", simulated)
    if tool == "nifti":
        words = ["plan_and_preprocess", "-d", drawn, "-c", "2d", "-np", "1"]
        assert main(["--workspace", str(tmp_path), *words]) == 0
        assert (tmp_path / "preprocessed" / "Dataset903_Drawn" / "nnUNetPlans_2d").is_dir()
    assert (export / "contact_sheet_001.png").is_file()
    assert (export / "contact_sheets.pdf").read_bytes().startswith(b"%PDF")


def test_a_dataset_without_any_label_can_be_exported_and_imported(tmp_path):
    dense = make_dense(tmp_path / "Dataset001_Dense")
    labels = {case.name: read_label_map(case.label)[0] for case in dense.cases}
    for case in dense.cases:
        case.label.unlink()
    dense.cases[0].label.parent.rmdir()
    dataset = load_dataset(tmp_path / "Dataset001_Dense", needs_labels=False)
    plan = make_plan({"a": [5]}, {"a": SHAPE})
    export_annotation(dataset, plan=plan, tool="nifti", folder=tmp_path / "export")
    path = tmp_path / "export" / "labels" / "a.nii.gz"
    draw_with_nibabel(path, only_slices(labels["a"], [5]), VALUES)

    import_annotation(
        dataset, plan=plan, returned=tmp_path / "export", folder=tmp_path / "Dataset003_Drawn"
    )

    report = check_dataset(tmp_path / "Dataset003_Drawn")
    assert report.accepted
    assert any("no annotated voxel" in problem.found for problem in report.problems)
    found_ZYX, _ = read_label_map(tmp_path / "Dataset003_Drawn" / "labelsTr" / "b.nii.gz")
    assert (found_ZYX == 3).all()
