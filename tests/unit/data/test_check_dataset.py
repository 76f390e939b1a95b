"""The integrity check gives every dataset the verdict it deserves, and says why."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from sparseunet.data.check import CheckReport, check_dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.errors import Severity

FOUND = {
    "00_control_valid": [],
    "01_undeclared_label": ["20 voxels of value 5", "0, 1, 2"],
    "02_shape_mismatch": ["(33, 52, 35)", "(34, 52, 35)"],
    "03a_spacing_mismatch": ["(1.2, 1, 1)", "(1, 1, 1)"],
    "03b_origin_mismatch": ["(-11, -1, 1)", "(-1, -1, 1)"],
    "04_missing_channel": ["channel 1 is missing"],
    "05a_nan_voxels": ["27 NaN"],
    "05b_inf_voxels": ["2 infinite"],
    "06a_truncated_image": ["cut off"],
    "06b_truncated_label": ["cut off"],
    "06c_zero_byte_file": ["0 bytes"],
    "07a_empty_label_one_case": ["only background"],
    "07b_empty_label_all_cases": ["no foreground voxel in any label file"],
    "08a_float_label_1.0000001": ["1.0000001", "2.0000002", "rounded"],
    "08c_float_label_exact": [],
    "09_image_4d": ["(35, 52, 34, 2)", "CASE_0001"],
    "10_image_2d_in_3d": ["2D", "3D"],
    "11a_one_slice_volume": [],
    "12a_flipped_direction": [],
    "12c_negative_pixdim": ["(-1, 1, 1)", "absolute"],
    "12e_sheared_affine": ["sheared", "78.6901"],
    "13a_names_spaces_unicode": [],
    "14a_dataset_json_missing": ["14a_dataset_json_missing/dataset.json"],
    "14b_dataset_json_invalid": ["line 13, column 1"],
    "14c_wrong_numTraining": ["numTraining 5", "3 cases"],
    "14d_labels_not_consecutive": ["0, 1, 3", "0, 1, 2"],
    "14e_ignore_not_highest": ["value 1", "up to 3", "highest"],
    "14g_old_style_json": ["old format", "convert", '"channel_names": {"0": "MRI"}'],
    "14h_wrong_file_ending": [".nrrd", "3 .nii.gz"],
    "15a_label_missing": ["without label"],
    "15b_image_missing": ["without image"],
    "16_constant_image": ["7 in every voxel"],
}
"""What the table must say about each dataset of bad inputs."""

SHAPE = (3, 4, 5)
GRID = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))


@pytest.mark.parametrize("name", FOUND)
def test_each_bad_input_gets_its_verdict(data_root: Path, name: str) -> None:
    folder = data_root.parent / "bad_inputs"
    manifest = json.loads((folder / "manifest.json").read_text())
    (entry,) = [entry for entry in manifest if entry["folder"] == name]
    report = check_dataset(folder / name)
    verdict = "warn" if report.of(Severity.WARNING) else "accept"
    assert (verdict if report.accepted else "reject") == entry["expect"]
    assert not report.of(Severity.NOTE) or name.startswith("07")
    text = report.format()
    for found in FOUND[name]:
        assert found in text
    where = entry["where"]
    if report.problems and where not in (None, "all"):
        assert where.removesuffix("/*") in text
    others = {"hippocampus_001", "hippocampus_004"}
    assert not others & {problem.case for problem in report.problems} or name.startswith("07b")


def test_the_manifest_has_no_dataset_without_a_test(data_root: Path) -> None:
    manifest = json.loads((data_root.parent / "bad_inputs" / "manifest.json").read_text())
    assert {entry["folder"] for entry in manifest} == FOUND.keys()


def test_a_real_dataset_is_accepted_without_a_word(data_root: Path) -> None:
    assert check_dataset(data_root / "Dataset120_ISBI2012EM", num_workers=2).problems == ()


def test_two_scans_per_patient_are_all_there_is_to_say_about_a_real_dataset(
    data_root: Path,
) -> None:
    (note,) = check_dataset(data_root / "Dataset027_ACDC", num_workers=2).problems
    assert note.severity is Severity.NOTE
    assert "several scans of one patient" in note.found


def make_dataset(folder: Path, labels_of: dict[str, np.ndarray], **changes: object) -> Path:
    generator = np.random.default_rng(0)
    for name, labels in labels_of.items():
        image = generator.normal(size=SHAPE)
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image, GRID)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", labels, GRID)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3},
        "numTraining": len(labels_of),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description | changes))
    return folder


def slices(*values: int) -> np.ndarray:
    """Return a label map with one value per slice."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None], SHAPE)


def found_in(report: CheckReport, severity: Severity) -> list[tuple[str, str]]:
    return [(problem.case, problem.found) for problem in report.of(severity)]


def test_sparse_annotation_is_normal(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, {"x": slices(3, 1, 3), "y": slices(3, 3, 2)})
    assert check_dataset(folder).problems == ()


def test_a_case_without_annotation_is_a_note(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, {"x": slices(3, 3, 3), "y": slices(0, 1, 2)})
    report = check_dataset(folder)
    assert report.accepted
    assert not report.of(Severity.WARNING)
    assert found_in(report, Severity.NOTE) == [
        ("x", "no annotated voxel, all have the ignore value")
    ]


def test_a_class_that_never_occurs_is_a_warning_or_a_note_if_sparse(tmp_path: Path) -> None:
    labels_of = {"x": slices(0, 1, 1)}
    sparse = check_dataset(make_dataset(tmp_path / "sparse", labels_of))
    assert found_in(sparse, Severity.NOTE) == [("", "no voxel of 'b' in any label file")]
    assert not sparse.of(Severity.WARNING)
    plain = {"background": 0, "a": 1, "b": 2}
    dense = check_dataset(make_dataset(tmp_path / "dense", labels_of, labels=plain))
    assert found_in(dense, Severity.WARNING) == [("", "no voxel of 'b' in any label file")]


def test_regions_declare_the_values_they_hold(tmp_path: Path) -> None:
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    changes = {"labels": regions, "regions_class_order": [1, 2]}
    good = make_dataset(tmp_path / "good", {"x": slices(0, 1, 2)}, **changes)
    assert check_dataset(good).problems == ()
    bad = make_dataset(tmp_path / "bad", {"x": slices(0, 1, 3)}, **changes)
    assert found_in(check_dataset(bad), Severity.ERROR) == [("x", "20 voxels of value 3")]


def test_masks_of_0_and_255_are_told_what_to_do(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, {"x": slices(0, 255, 255)}, labels={"background": 0, "a": 1})
    (problem,) = check_dataset(folder).of(Severity.ERROR)
    assert problem.found == "40 voxels of value 255"
    assert problem.fix == "map 255 to 1"


def test_no_problem_hides_another(tmp_path: Path) -> None:
    """Ten faults in five cases and in the description: every one is listed."""
    names = ["a", "b", "c", "d", "e"]
    folder = make_dataset(tmp_path, dict.fromkeys(names, slices(0, 1, 2)), numTraining=9)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    (images / "a_0000.nii.gz").write_bytes(b"")
    write_label_map(labels / "a.nii.gz", slices(0, 1, 7), GRID)
    image = np.ones(SHAPE)
    image[0, 0, 0] = np.nan
    write_image(images / "b_0000.nii.gz", image, GRID)
    (labels / "b.nii.gz").write_bytes(b"nothing of the kind")
    write_image(
        images / "c_0000.nii.gz",
        np.zeros((2, 4, 5)),
        Geometry(shape=(2, 4, 5), spacing_mm=(1, 1, 1)),
    )
    write_label_map(labels / "c.nii.gz", slices(9, 9, 9), GRID)
    (images / "d_0000.nii.gz").unlink()
    shutil.copy(labels / "e.nii.gz", images / "e_0001.nii.gz")
    report = check_dataset(folder, num_workers=3)
    found = [(problem.case, problem.file) for problem in report.of(Severity.ERROR)]
    assert sorted(found) == [
        ("", "dataset.json"),
        ("a", "imagesTr/a_0000.nii.gz"),
        ("a", "labelsTr/a.nii.gz"),
        ("b", "imagesTr/b_0000.nii.gz"),
        ("b", "labelsTr/b.nii.gz"),
        ("c", "labelsTr/c.nii.gz"),
        ("c", "labelsTr/c.nii.gz"),
        ("d", "imagesTr/d_0000.nii.gz"),
        ("e", "imagesTr/e_0001.nii.gz"),
    ]
    assert [problem.case for problem in report.of(Severity.WARNING)] == ["c"]
    assert report.format().startswith("ERRORS")
    assert report.verdict == f"{folder.name}: rejected, 5 cases, 9 errors, 1 warning"


def test_the_number_of_threads_changes_nothing(data_root: Path) -> None:
    folder = data_root.parent / "bad_inputs" / "07b_empty_label_all_cases"
    assert check_dataset(folder, num_workers=1) == check_dataset(folder, num_workers=4)


def test_cases_with_the_same_finding_share_one_row_of_text(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, {"x": slices(0, 7, 1), "long name": slices(0, 7, 2)})
    text = check_dataset(folder).format()
    assert text.count("20 voxels of value 7") == 1
    assert "  x          labelsTr/x.nii.gz\n" in text
    assert "  long name  labelsTr/long name.nii.gz\n" in text


def test_pictures_in_colour_must_be_declared(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    Picture.fromarray(pixels).save(tmp_path / "imagesTr" / "x_0000.png")
    Picture.fromarray(pixels[:, :, 0] // 128).save(tmp_path / "labelsTr" / "x.png")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 1,
        "file_ending": ".png",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert check_dataset(tmp_path).problems == ()
    (tmp_path / "dataset.json").write_text(json.dumps(description | {"channel_names": {"0": "R"}}))
    assert found_in(check_dataset(tmp_path), Severity.ERROR) == [
        ("x", "3 channels (a picture in colour)")
    ]


@pytest.mark.parametrize(("axis", "named"), [(0, ""), (1, "y"), (2, "x")])
def test_slices_that_would_be_lines_are_a_warning(tmp_path: Path, axis: int, named: str) -> None:
    folder = make_dataset(tmp_path, {"a": slices(0, 1, 1)}, labels={"background": 0, "a": 1})
    shape = [6, 5, 4]
    shape[axis] = 1
    grid = Geometry(shape=(shape[0], shape[1], shape[2]), spacing_mm=(1.0, 1.0, 1.0))
    values = np.arange(np.prod(shape)).reshape(shape)
    write_image(folder / "imagesTr" / "a_0000.nii.gz", values.astype(np.float32), grid)
    write_label_map(folder / "labelsTr" / "a.nii.gz", (values % 2).astype(np.uint8), grid)
    found = found_in(check_dataset(folder), Severity.WARNING)
    assert found == ([("a", f"one voxel along {named}")] if named else [])
