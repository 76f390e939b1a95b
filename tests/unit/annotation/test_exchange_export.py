"""What annotators are given opens in their tools and says what to do."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import slicerio
import tifffile
from drawing_tools import make_plan
from phantoms import blobs, intensities
from PIL import Image

from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.artifacts import hash_content
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.data.stored import picture_geometry
from sparseunet.errors import DatasetError, RequestError
from sparseunet.report.contact_sheet import draw_contact_sheets

SHAPE = (12, 9, 7)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5))
PLAN = make_plan({"a": {0: [8, 2], 1: [4]}, "b": {2: [3]}}, {"a": SHAPE, "b": SHAPE})


def _make(folder: Path, names=("a", "b"), *, geometry=GEOMETRY, ending=".nii.gz", **changes):
    for index, name in enumerate(names):
        image = intensities(blobs(geometry.shape, seed=index), seed=index)
        image = np.clip(np.rint(image), 0, 255) if ending == ".png" else image
        write_image(folder / "imagesTr" / f"{name}_0000{ending}", image, geometry)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1, 'le"sion': 2},
        "numTraining": len(names),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps({**description, **changes}))
    return load_dataset(folder, needs_labels=False)


@pytest.fixture
def dataset(tmp_path):
    return _make(tmp_path / "Dataset001_Scans")


@pytest.mark.parametrize(
    ("tool", "shown"),
    [
        ("itksnap", ["9", "3", "5", "4"]),
        ("slicer", ["S 54.50 mm", "S 36.50 mm", "A -7.20 mm", "R 2.90 mm"]),
        ("mitk", ["8", "2", "4", "3"]),
        ("napari", ["8", "2", "4", "3"]),
        ("nifti", ["8", "2", "4", "3"]),
    ],
)
def test_the_work_list_names_slices_as_the_file_and_as_the_tool_counts(
    dataset, tmp_path, tool, shown
):
    summary = export_annotation(dataset, plan=PLAN, tool=tool, folder=tmp_path / "export")

    text = (tmp_path / "export" / "work_list.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["case"], row["axis"], row["slice"]) for row in rows] == [
        ("a", "z", "8"),
        ("a", "z", "2"),
        ("a", "y", "4"),
        ("b", "x", "3"),
    ]
    assert [row["shown_as"] for row in rows] == shown
    assert [row["view"] for row in rows] == ["axial", "axial", "coronal", "sagittal"]
    assert [row["priority"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["expected_minutes"] for row in rows} == {"2.00"}
    assert {row["reason"] for row in rows} == {"because"}
    assert {row["done"] + row["minutes"] for row in rows} == {""}
    assert (summary.num_cases, summary.num_slices, summary.num_prefilled) == (2, 4, 0)


def test_slicer_finds_empty_named_segments_on_the_grid_of_the_scan(dataset, tmp_path):
    export_annotation(dataset, plan=PLAN, tool="slicer", folder=tmp_path / "export")

    read = slicerio.read_segmentation(tmp_path / "export" / "labels" / "a.seg.nrrd")

    assert [segment["name"] for segment in read["segments"]] == ["organ", 'le"sion']
    assert [segment["labelValue"] for segment in read["segments"]] == [1, 2]
    assert len({tuple(segment["color"]) for segment in read["segments"]}) == 2
    assert not read["voxels"].any()
    assert np.allclose(read["ijkToLPS"][:3, 3], GEOMETRY.origin_mm)
    assert read["voxels"].shape == SHAPE[::-1]
    (geometry,) = (
        each["value"]
        for each in read["conversionParameters"]
        if each["name"] == "Reference image geometry"
    )
    numbers = [float(value) for value in geometry.rstrip(";").split(";")]
    assert np.allclose(np.reshape(numbers[:16], (4, 4))[:3, 3], (5.0, -4.0, 30.5))  # RAS
    assert numbers[16:] == [0, 6, 0, 8, 0, 11]


def test_mitk_finds_its_labels_in_the_header(dataset, tmp_path):
    export_annotation(dataset, plan=PLAN, tool="mitk", folder=tmp_path / "export")

    image = SimpleITK.ReadImage(str(tmp_path / "export" / "labels" / "a.nrrd"))

    assert image.GetMetaData("modality") == "org.mitk.multilabel.segmentation"
    (group,) = json.loads(image.GetMetaData("org.mitk.multilabel.segmentation.labelgroups"))
    assert {label["name"]: label["value"] for label in group["labels"]} == {
        "organ": 1,
        'le"sion': 2,
    }
    assert image.GetPixelID() == SimpleITK.sitkUInt16


def test_itksnap_finds_a_line_per_class(dataset, tmp_path):
    export_annotation(dataset, plan=PLAN, tool="itksnap", folder=tmp_path / "export")

    text = (tmp_path / "export" / "label_description.txt").read_text()

    lines = [line.split(maxsplit=7) for line in text.splitlines() if not line.startswith("#")]
    assert [(line[0], line[7]) for line in lines] == [
        ("0", '"Clear Label"'),
        ("1", '"organ"'),
        ("2", '"le\'sion"'),
    ]
    assert "# ITK-SnAP Label Description File" in text


def test_napari_gets_arrays_it_opens_by_itself(dataset, tmp_path):
    export_annotation(dataset, plan=PLAN, tool="napari", folder=tmp_path / "export")

    labels = tifffile.imread(tmp_path / "export" / "labels" / "a.tif")
    image = tifffile.imread(tmp_path / "export" / "images" / "a_0000.tif")
    assert labels.shape == image.shape == SHAPE
    assert labels.dtype == np.uint8
    spacing = json.loads((tmp_path / "export" / "images" / "a_0000.json").read_text())["spacing"]
    assert spacing == pytest.approx([3.0, 0.8, 0.7])
    table = list(csv.DictReader((tmp_path / "export" / "classes.csv").open()))
    assert [(row["value"], row["name"]) for row in table] == [("1", "organ"), ("2", 'le"sion')]


def test_the_export_remembers_what_it_handed_out(dataset, tmp_path):
    write_label_map(tmp_path / "p" / "a.nii.gz", np.ones(SHAPE, np.uint8), GEOMETRY)
    write_label_map(tmp_path / "p" / "b.nii.gz", np.zeros(SHAPE, np.uint8), GEOMETRY)
    folder = tmp_path / "export"

    summary = export_annotation(
        dataset, plan=PLAN, tool="nifti", folder=folder, prefill=tmp_path / "p"
    )

    record = json.loads((folder / "export.json").read_text())
    assert (record["kind"], record["dataset"], record["tool"]) == (
        "annotation_export",
        "Dataset001_Scans",
        "nifti",
    )
    assert record["plan_hash"] == hash_content(PLAN)
    geometry = record["cases"]["a"]["geometry"]
    assert geometry["spacing_mm"] == pytest.approx([3.0, 0.8, 0.7])
    (file,) = record["cases"]["a"]["files"]
    assert (folder / file["handed_out"]).is_file()
    assert record["cases"]["b"]["files"][0]["handed_out"] is None
    assert summary.num_prefilled == 1
    labels, _ = read_label_map(folder / "labels" / "a.nii.gz")
    planned = np.zeros(SHAPE, bool)
    planned[[2, 8]] = planned[:, 4] = True
    assert np.array_equal(labels, planned)


def test_contact_sheets_hold_twenty_slices_a_page(dataset, tmp_path):
    plan = make_plan({"a": {0: range(12)}, "b": {1: range(9)}}, {"a": SHAPE, "b": SHAPE})

    export_annotation(
        dataset,
        plan=plan,
        tool="itksnap",
        folder=tmp_path / "export",
        draw_sheets=draw_contact_sheets,
    )

    pages = sorted((tmp_path / "export").glob("contact_sheet_*.png"))
    assert len(pages) == 2
    full, rest = (np.asarray(Image.open(page).convert("L")) for page in pages)
    assert full.shape == (1414, 1000)
    assert (full < 200).sum() > 10 * (rest < 200).sum()
    text = (tmp_path / "export" / "contact_sheets.pdf").read_bytes()
    assert text.count(b"/Type /Page\n") == 2 or text.count(b"/Type /Page ") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool": "paint"}, "no format 'paint'; choose from itksnap, slicer"),
        ({"folder": Path()}, "exists already"),
        ({"plan": replace(PLAN, cases=())}, "nothing to export"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(dataset, tmp_path, changes, message):
    options = {"plan": PLAN, "tool": "nifti", "folder": tmp_path / "export"}
    with pytest.raises(RequestError, match=message):
        export_annotation(dataset, **{**options, **changes})
    assert not (tmp_path / "export").exists()


def test_everything_in_a_plan_that_does_not_fit_is_listed(dataset, tmp_path):
    plan = make_plan({"a": {0: [1]}, "z": {0: [1]}}, {"a": (99, 9, 7), "z": SHAPE})
    with pytest.raises(DatasetError) as error:
        export_annotation(dataset, plan=plan, tool="nifti", folder=tmp_path / "export")
    assert [(each.case, each.found) for each in error.value.problems] == [
        ("a", "99 slices across z in the plan"),
        ("z", "an unknown case"),
    ]


def test_predictions_that_do_not_fit_are_all_listed_and_nothing_is_written(dataset, tmp_path):
    moved = replace(GEOMETRY, origin_mm=(-5.0, 4.0, 33.5))
    write_label_map(tmp_path / "p" / "a.nii.gz", np.ones(SHAPE, np.uint8), moved)
    with pytest.raises(DatasetError) as error:
        export_annotation(
            dataset, plan=PLAN, tool="nifti", folder=tmp_path / "export", prefill=tmp_path / "p"
        )
    assert [(each.case, each.found) for each in error.value.problems] == [
        ("a", "a grid shifted by (1, 0, 0) voxels along (z, y, x) of the scan"),
        ("b", "no such file"),
    ]
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("tool", ["nifti", "napari"])
def test_2d_pictures_are_annotated_whole(tmp_path, tool):
    dataset = _make(
        tmp_path / "Dataset001_Pictures", geometry=picture_geometry(20, 30), ending=".png"
    )
    plan = make_plan({"a": {0: [0]}}, {"a": (1, 20, 30)})
    folder = tmp_path / "export"
    export_annotation(dataset, plan=plan, tool=tool, folder=folder, draw_sheets=draw_contact_sheets)
    (label,) = (folder / "labels").glob("a.*")
    drawn_ZYX, geometry = read_label_map(label)
    drawn_ZYX[0, 3:8, 4:9] = 2
    write_label_map(label, drawn_ZYX, geometry)

    import_annotation(dataset, plan=plan, returned=folder, folder=tmp_path / "Dataset002_Drawn")

    found_ZYX, _ = read_label_map(tmp_path / "Dataset002_Drawn" / "labelsTr" / "a.png")
    assert np.array_equal(found_ZYX, drawn_ZYX)
    assert load_dataset(tmp_path / "Dataset002_Drawn").labels.ignore == 3


def test_tools_for_volumes_refuse_pictures(tmp_path):
    dataset = _make(
        tmp_path / "Dataset001_Pictures", geometry=picture_geometry(20, 30), ending=".png"
    )
    plan = make_plan({"a": {0: [0]}}, {"a": (1, 20, 30)})
    with pytest.raises(RequestError, match="choose another format: itksnap, napari, nifti"):
        export_annotation(dataset, plan=plan, tool="slicer", folder=tmp_path / "export")


def test_overlapping_regions_are_drawn_as_their_parts(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    dataset = _make(tmp_path / "Dataset001_Regions", labels=labels, regions_class_order=[1, 2])
    plan = make_plan({"a": {0: [2]}}, {"a": SHAPE})
    folder = tmp_path / "export"
    export_annotation(dataset, plan=plan, tool="slicer", folder=folder)
    path = folder / "labels" / "a.seg.nrrd"
    read = slicerio.read_segmentation(path)
    assert [segment["name"] for segment in read["segments"]] == ["whole", "whole + core"]
    read["voxels"][1, 1, 2] = 2
    slicerio.write_segmentation(str(path), read)

    import_annotation(dataset, plan=plan, returned=folder, folder=tmp_path / "Dataset002_Drawn")

    found_ZYX, _ = read_label_map(tmp_path / "Dataset002_Drawn" / "labelsTr" / "a.nii.gz")
    assert found_ZYX[2, 1, 1] == 2
    made = load_dataset(tmp_path / "Dataset002_Drawn")
    assert (made.labels.ignore, made.labels.has_regions) == (3, True)
