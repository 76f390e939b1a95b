"""From sparse labels to filled ones, and what later stages make of who drew what."""

import json
from pathlib import Path

import numpy as np
import pytest
from phantoms import intensities, sphere

from sparseunet.annotation.interpolation.fill_dataset import (
    InterpolationOptions,
    fill_dataset,
    judge_dataset,
)
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.cli.main import main
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_image, read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.data.provenance import read_case_annotation
from sparseunet.errors import DatasetError
from sparseunet.preprocessing.manifest import read_manifest

SHAPE = (40, 24, 24)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0), origin_mm=(3.0, -4.0, 5.0))
IGNORE = 2


def make_dataset(workspace: Path, *, kept: list[int]) -> Path:
    folder = workspace / "raw" / "Dataset012_Balls"
    for number in range(2):
        labels_ZYX = sphere(
            SHAPE, center=(20, 12, 11 + number), radius_mm=9, spacing_mm=(0.5, 1.0, 1.0)
        ).astype(np.uint8)
        sparse_ZYX = np.full(SHAPE, IGNORE, np.uint8)
        sparse_ZYX[kept] = labels_ZYX[kept]
        case = f"ball_{number}"
        write_label_map(folder / "labelsTr" / f"{case}.nii.gz", sparse_ZYX, GEOMETRY)
        write_image(
            folder / "imagesTr" / f"{case}_0000.nii.gz", intensities(labels_ZYX, seed=1), GEOMETRY
        )
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "ball": 1, "ignore": IGNORE},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def run(workspace: Path, *words: str) -> int:
    return main(["--workspace", str(workspace), *words])


@pytest.fixture
def filled(tmp_path: Path) -> Dataset:
    make_dataset(tmp_path, kept=[4, 14, 24, 34])
    words = ["interpolate", "-d", "12", "-o", "Dataset013_Filled", "--method", "shape", "-np", "1"]
    assert run(tmp_path, *words) == 0
    return load_dataset(tmp_path / "raw" / "Dataset013_Filled")


def test_the_new_dataset_says_who_drew_what_in_the_geometry_of_the_source(filled: Dataset) -> None:
    source = load_dataset(filled.folder.parent / "Dataset012_Balls")
    for before, after in zip(source.cases, filled.cases, strict=True):
        assert after.label is not None
        assert before.label is not None
        drawn_ZYX, geometry = read_label_map(before.label)
        for path in after.label_files:
            assert read_label_map(path)[1] == geometry
        annotation, _ = read_case_annotation(after, filled.labels)
        was_drawn = drawn_ZYX != IGNORE
        assert (annotation.source_ZYX[was_drawn] == Source.MANUAL).all()
        assert (annotation.source_ZYX[~was_drawn] == Source.INTERPOLATED).all()
        assert np.array_equal(annotation.labels_ZYX[was_drawn], drawn_ZYX[was_drawn])
        assert annotation.labels_ZYX[19].any()
        assert annotation.confidence_ZYX is not None
        assert (annotation.confidence_ZYX[was_drawn] == 1).all()
        assert 0 < annotation.confidence_ZYX[~was_drawn].min() < 0.9


def test_gaps_that_are_too_wide_keep_the_ignore_value(tmp_path: Path) -> None:
    make_dataset(tmp_path, kept=[4, 10, 30, 34])
    words = ["--method", "spline", "--until-gap", "12", "--axis", "0", "-np", "1"]
    assert run(tmp_path, "interpolate", "-d", "12", "-o", "Dataset013_Filled", *words) == 0
    folder = tmp_path / "raw" / "Dataset013_Filled"
    labels_ZYX, _ = read_label_map(folder / "labelsTr" / "ball_0.nii.gz")
    ignored = (labels_ZYX == IGNORE).all(axis=(1, 2))
    assert np.flatnonzero(ignored).tolist() == [0, *range(11, 30), 38, 39]


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, filled: Dataset) -> None:
    words = ["interpolate", "-d", "12", "-o", "Dataset014_Again", "--method", "shape", "-np", "2"]
    assert run(tmp_path, *words) == 0
    again = load_dataset(tmp_path / "raw" / "Dataset014_Again")
    for one, other in zip(filled.cases, again.cases, strict=True):
        for a, b in zip(one.label_files, other.label_files, strict=True):
            assert a.read_bytes() == b.read_bytes()


def test_preprocessing_keeps_provenance_and_validation_sees_manual_slices_only(
    tmp_path: Path, filled: Dataset
) -> None:
    words = ["plan_and_preprocess", "-c", "2d", "-np", "1"]
    assert run(tmp_path, *words, "-d", "12", "13") == 0
    plain, new = (tmp_path / "preprocessed" / name for name in ("Dataset012_Balls", filled.name))
    one, other = (
        json.loads((folder / "dataset_fingerprint.json").read_text()) for folder in (plain, new)
    )
    same = "foreground_intensity_properties_per_channel"
    assert one[same] == other[same]
    manifest = read_manifest(new / "nnUNetPlans_2d", "ball_0")
    assert manifest.is_dense
    assert not read_manifest(plain / "nnUNetPlans_2d", "ball_0").is_dense
    truth = read_label_map(new / "gt_segmentations" / "ball_0.nii.gz")[0]
    assert np.array_equal(truth, read_label_map(plain / "gt_segmentations" / "ball_0.nii.gz")[0])
    assert filled.cases[0].confidence is not None
    confidence_ZYX, geometry = read_label_map(filled.cases[0].confidence)
    write_label_map(filled.cases[0].confidence, confidence_ZYX // 2, geometry)
    assert run(tmp_path, "preprocess", "-d", "13", "-c", "2d", "-np", "1") == 0
    changed = read_manifest(new / "nnUNetPlans_2d", "ball_0")
    assert changed.annotation_hash != manifest.annotation_hash
    assert changed.image_hash == manifest.image_hash


def test_wrong_provenance_is_found_by_the_check(
    tmp_path: Path, filled: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert filled.cases[1].provenance is not None
    write_label_map(filled.cases[1].provenance, np.full(SHAPE, 7, np.uint8), GEOMETRY)
    assert main(["check", str(filled.folder)]) == 2
    assert "found values up to 7 expected sources of annotation, 0 to 3" in " ".join(
        capsys.readouterr().out.split()
    )


def test_auto_refuses_where_interpolation_is_not_expected_to_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path, kept=[4, 14, 24, 34])
    words = ["interpolate", "-d", "12", "-o", "Dataset013_Filled", "-np", "1"]
    assert run(tmp_path, *words) == 2
    said = capsys.readouterr()
    assert "| expected IoU of filled slices | mean | ball |" in said.out
    assert "interpolated labels are not expected to help" in said.err
    assert not (tmp_path / "raw" / "Dataset013_Filled").exists()


def refuse_own_scan(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Fill nothing, and fail if what it may learn from holds the scan itself."""
    for case in request.scans:
        if np.array_equal(read_image(case.images).voxels_CZYX, image.voxels_CZYX):
            raise ValueError("The labels of this scan would be seen before they are hidden.")
    return annotation


def test_what_learns_from_labels_is_judged_on_scans_that_it_did_not_see(tmp_path: Path) -> None:
    dataset = load_dataset(make_dataset(tmp_path, kept=[4, 14, 24, 34]))
    methods = ["fused", f"{__name__}:refuse_own_scan"]
    verdict = judge_dataset(dataset, axis=0, num_workers=1, methods=methods)
    assert verdict is not None
    assert {item.method for item in verdict.estimates} == set(methods)
    with pytest.raises(DatasetError, match="would be seen"):
        fill_dataset(
            dataset,
            options=InterpolationOptions(method=methods[1]),
            folder=tmp_path / "new",
            num_workers=1,
        )


def test_auto_while_preprocessing_says_why_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path, kept=[4, 14, 24, 34])
    words = ["plan_and_preprocess", "-d", "12", "-c", "2d", "-np", "1", "--interpolate"]
    assert run(tmp_path, *words, "auto") == 0
    assert "preprocessed with the annotated slices only" in capsys.readouterr().out
    folder = tmp_path / "preprocessed" / "Dataset012_Balls"
    assert "## Interpolation" in (folder / "nnUNetPlans_report.md").read_text(encoding="utf-8")
    assert not read_manifest(folder / "nnUNetPlans_2d", "ball_0").is_dense
    assert run(tmp_path, *words, "nearest") == 0
    assert read_manifest(folder / "nnUNetPlans_2d", "ball_0").is_dense


def test_the_report_shows_no_verdict_on_labels_that_have_changed_since(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, kept=[4, 14, 24, 34])
    words = ["plan_and_preprocess", "-d", "12", "-c", "2d", "-np", "1"]
    report = tmp_path / "preprocessed" / "Dataset012_Balls" / "nnUNetPlans_report.md"
    table, stale = "| expected IoU of filled slices |", "labels have changed since"
    assert run(tmp_path, *words, "--interpolate", "auto") == 0
    assert run(tmp_path, *words) == 0
    assert table in report.read_text()
    assert stale not in report.read_text()
    label = folder / "labelsTr" / "ball_1.nii.gz"
    labels_ZYX, geometry = read_label_map(label)
    labels_ZYX[6] = 0
    write_label_map(label, labels_ZYX, geometry)
    assert run(tmp_path, *words) == 0
    assert table not in report.read_text()
    assert stale in report.read_text()
    assert run(tmp_path, *words, "--interpolate", "auto") == 0
    assert table in report.read_text()


def test_dense_labels_have_nothing_to_fill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path, kept=list(range(40)))
    words = ["interpolate", "-d", "12", "-o", "Dataset013_Filled", "--method", "shape", "-np", "1"]
    assert run(tmp_path, *words) == 2
    assert "Nothing can be filled" in capsys.readouterr().err
