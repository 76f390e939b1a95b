"""From sparse labels to dense ones by a trained network, and what later stages make of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.annotation import Source
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.data.provenance import read_case_annotation
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.fit import trust_table
from sparseunet.training.patches import read_training_patch, weight_table
from sparseunet.training.recipe import Recipe

SHAPE = (12, 20, 18)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(1.5, 1.0, 1.0), origin_mm=(3.0, -4.0, 5.0))
IGNORE = 3
KEPT = [2, 6, 9]
NAMES = ("case_0", "case_1", "case_2", "case_3")
SMALL = ["--base-features", "4", "--batch-size", "2", "--iterations", "3", "-device", "cpu"]
FAST = ["--disable-tta", "-device", "cpu", "-np", "1"]


def run(workspace: Path, *words: str) -> int:
    return main(["--workspace", str(workspace), *words])


def make_dataset(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        dense_ZYX = blobs(SHAPE, seed=number)
        sparse_ZYX = np.full(SHAPE, IGNORE, np.uint8)
        sparse_ZYX[KEPT] = dense_ZYX[KEPT]
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", sparse_ZYX, GEOMETRY)
        add_scan(folder, name, seed=number)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": IGNORE},
            "numTraining": len(NAMES),
            "file_ending": ".nii.gz",
        },
    )


def remove(folder: Path, names: set[str]) -> None:
    """Remove training cases."""
    for name in names:
        for file in folder.glob(f"*Tr/{name}*"):
            file.unlink()
    count_scans(folder)


def count_scans(folder: Path) -> None:
    """Write into the description how many training scans there are."""
    description = read_json(folder / "dataset.json")
    number = len(list((folder / "imagesTr").iterdir()))
    write_json(folder / "dataset.json", description | {"numTraining": number})


def add_scan(folder: Path, name: str, *, seed: int) -> None:
    scan_ZYX = intensities(blobs(SHAPE, seed=seed), seed=seed)
    write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", scan_ZYX, GEOMETRY)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two folds of a cross-validation of four, and a scan without labels."""
    root = tmp_path_factory.mktemp("workspace")
    folder = root / "raw" / "Dataset012_Sparse"
    make_dataset(folder)
    assert run(root, "plan_and_preprocess", "-d", "12", "-c", "3d_fullres", "-np", "1") == 0
    for fold in ("0", "1"):
        words = ["train", "12", "3d_fullres", fold, "--num-workers", "0", "--run", "folds"]
        assert run(root, *words, *SMALL) == 0
    add_scan(folder, "case_new", seed=9)
    count_scans(folder)
    return root


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "workspace"))


def complete(workspace: Path, *words: str) -> int:
    return run(workspace, "complete", "-d", "12", "-o", "Dataset014_Dense", *FAST, *words)


def completed(workspace: Path) -> Dataset:
    return load_dataset(workspace / "raw" / "Dataset014_Dense")


def trained_on(workspace: Path, fold: int) -> list[str]:
    run_folder = workspace / "results" / "Dataset012_Sparse" / "3d_fullres" / "folds"
    names: list[str] = read_json(run_folder / f"fold_{fold}" / "run.json")["cases"]["train"]
    return names


def predict(workspace: Path, *folds: str) -> Path:
    """Predict the training scans and return the folder of label files and probabilities."""
    output = workspace / "predictions"
    words = ["predict", "-i", str(workspace / "raw" / "Dataset012_Sparse" / "imagesTr"), "-o"]
    words += [str(output), "-d", "12", "-c", "3d_fullres", "--save-probabilities", *FAST]
    assert run(workspace, *words, "-f", *folds) == 0
    return output


def test_manual_voxels_stay_and_the_others_are_what_predict_says(workspace: Path) -> None:
    assert complete(workspace, "-c", "3d_fullres") == 0
    predictions = predict(workspace, "0", "1")
    dataset = completed(workspace)
    assert [case.name for case in dataset.cases] == [*NAMES, "case_new"]
    for case in dataset.cases:
        annotation, geometry = read_case_annotation(case, dataset.labels)
        assert geometry == GEOMETRY
        drawn_ZYX = np.zeros(SHAPE, bool)
        if case.name != "case_new":
            drawn_ZYX[KEPT] = True
            source = workspace / "raw" / "Dataset012_Sparse" / "labelsTr" / f"{case.name}.nii.gz"
            before_ZYX, _ = read_label_map(source)
            assert np.array_equal(annotation.labels_ZYX[drawn_ZYX], before_ZYX[drawn_ZYX])
        assert (annotation.source_ZYX[drawn_ZYX] == Source.MANUAL).all()
        assert (annotation.source_ZYX[~drawn_ZYX] == Source.PSEUDO).all()
        predicted_ZYX, _ = read_label_map(predictions / f"{case.name}.nii.gz")
        assert np.array_equal(annotation.labels_ZYX[~drawn_ZYX], predicted_ZYX[~drawn_ZYX])
        winner_ZYX = np.load(predictions / f"{case.name}.npy").astype(np.float32).max(axis=0)
        assert annotation.confidence_ZYX is not None
        stated = annotation.confidence_ZYX[~drawn_ZYX]
        assert stated.min() >= 0.33
        # Rounded down to a percent, and a half-precision file to compare with.
        assert (winner_ZYX[~drawn_ZYX] - stated).min() > -0.001
        assert (winner_ZYX[~drawn_ZYX] - stated).max() < 0.011
    assert not list((workspace / "raw").glob(".*"))


def test_the_report_counts_what_is_there_and_says_what_the_model_had_seen(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(workspace, "-c", "3d_fullres", "-f", "0") == 0
    said = capsys.readouterr().out
    dataset = completed(workspace)
    report = read_json(dataset.folder / "completion.json")
    annotations = [read_case_annotation(case, dataset.labels)[0] for case in dataset.cases]
    for value, name in enumerate(("background", "liver", "tumour")):
        for source in (Source.MANUAL, Source.PSEUDO):
            expected = sum(
                int(((each.labels_ZYX == value) & (each.source_ZYX == source)).sum())
                for each in annotations
            )
            assert report["classes"][name][f"{source.name.lower()}_voxels"] == expected
    assert {each["case"]: each["model"] for each in report["cases"]} == {
        case.name: "seen in training" if case.name in trained_on(workspace, 0) else "out of fold"
        for case in dataset.cases
    }
    predictions = predict(workspace, "0")
    seen = report["agreement"]["seen in training"]
    assert seen["num_cases"] == 3
    assert seen["num_slices"] == 3 * len(KEPT)
    both = total = 0
    for name in trained_on(workspace, 0):
        drawn_ZYX = blobs(SHAPE, seed=int(name[-1]))[KEPT] == 1
        predicted_ZYX = read_label_map(predictions / f"{name}.nii.gz")[0][KEPT] == 1
        both += int((drawn_ZYX & predicted_ZYX).sum())
        total += int(drawn_ZYX.sum() + predicted_ZYX.sum())
    assert seen["pooled"]["liver"]["pooled_Dice"] == pytest.approx(2 * both / total)
    assert "not calibrated" in said
    assert "Dice with manual voxels, seen in training, 3 cases, 9 annotated slices" in said


def test_out_of_fold_takes_the_folds_that_have_not_seen_a_case(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "3d_fullres", "--out-of-fold"]
    assert complete(workspace, *words) == 2
    assert "2 of 5 cases were trained on by every fold there is (0 1)" in capsys.readouterr().err
    assert not list((workspace / "raw").glob(".*"))
    seen = [set(trained_on(workspace, fold)) for fold in (0, 1)]
    remove(workspace / "raw" / "Dataset012_Sparse", seen[0] & seen[1])
    assert complete(workspace, *words) == 0
    report = read_json(completed(workspace).folder / "completion.json")
    assert {each["model"] for each in report["cases"]} == {"out of fold"}
    assert {each["case"]: each["folds"] for each in report["cases"]} == {
        **{name: [1] for name in seen[0] - seen[1]},
        **{name: [0] for name in seen[1] - seen[0]},
        "case_new": [0, 1],
    }


def test_what_is_not_sure_enough_stays_unannotated(workspace: Path) -> None:
    assert complete(workspace, "-c", "3d_fullres", "--min-confidence", "0.5") == 0
    dataset = completed(workspace)
    report = read_json(dataset.folder / "completion.json")
    num_open = 0
    for case in dataset.cases:
        annotation, _ = read_case_annotation(case, dataset.labels)
        assert annotation.confidence_ZYX is not None
        pseudo_ZYX = annotation.source_ZYX == Source.PSEUDO
        assert (annotation.confidence_ZYX[pseudo_ZYX] >= 0.5).all()
        num_open += int((~annotation.annotated_ZYX).sum())
    assert num_open == report["num_left_unannotated"]["below_min_confidence"] > 0


def test_interpolated_labels_stay_unless_they_are_to_be_replaced(workspace: Path) -> None:
    remove(workspace / "raw" / "Dataset012_Sparse", {"case_new"})
    words = ["interpolate", "-d", "12", "-o", "Dataset013_Filled", "--method", "shape"]
    assert run(workspace, *words, "--until-gap", "5", "-np", "1") == 0
    run_folder = workspace / "results" / "Dataset012_Sparse" / "3d_fullres" / "folds"
    words = ["complete", "-d", "13", "-m", str(run_folder), *FAST]
    assert run(workspace, *words, "-o", "Dataset014_Dense") == 0
    assert run(workspace, *words, "-o", "Dataset015_New", "--replace-interpolated") == 0
    filled, kept, replaced = (
        [read_case_annotation(case, dataset.labels)[0] for case in dataset.cases]
        for dataset in (
            load_dataset(workspace / "raw" / name)
            for name in ("Dataset013_Filled", "Dataset014_Dense", "Dataset015_New")
        )
    )
    for before, after, new in zip(filled, kept, replaced, strict=True):
        stood_ZYX = before.annotated_ZYX
        assert (before.source_ZYX == Source.INTERPOLATED).any()
        assert np.array_equal(after.source_ZYX[stood_ZYX], before.source_ZYX[stood_ZYX])
        assert np.array_equal(after.labels_ZYX[stood_ZYX], before.labels_ZYX[stood_ZYX])
        assert before.confidence_ZYX is not None
        assert after.confidence_ZYX is not None
        assert np.array_equal(after.confidence_ZYX[stood_ZYX], before.confidence_ZYX[stood_ZYX])
        assert set(np.unique(new.source_ZYX)) == {Source.MANUAL, Source.PSEUDO}
        manual_ZYX = before.source_ZYX == Source.MANUAL
        assert np.array_equal(new.source_ZYX == Source.MANUAL, manual_ZYX)


def test_completing_again_is_completing_the_original(workspace: Path) -> None:
    assert complete(workspace, "-c", "3d_fullres") == 0
    run_folder = workspace / "results" / "Dataset012_Sparse" / "3d_fullres" / "folds"
    words = ["complete", "-d", "14", "-m", "folds", *FAST, "-o", "Dataset015_Again"]
    assert run(workspace, *words) == 0
    again = load_dataset(workspace / "raw" / "Dataset015_Again")
    for one, other in zip(completed(workspace).cases, again.cases, strict=True):
        for a, b in zip(one.label_files, other.label_files, strict=True):
            assert a.read_bytes() == b.read_bytes()
    assert read_json(again.folder / "completion.json")["model"]["folder"] == str(run_folder)


def test_an_interrupted_completion_goes_on_with_the_same_command_only(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = workspace / "raw" / "Dataset012_Sparse" / "imagesTr" / "case_new_0000.nii.gz"
    whole = broken.read_bytes()
    scan_ZYX = intensities(blobs(SHAPE, seed=9), seed=9)
    scan_ZYX[0, 0, 0] = np.nan  # the header is fine, so that only prediction finds out
    write_image(broken, scan_ZYX, GEOMETRY)
    assert complete(workspace, "-c", "3d_fullres") != 0
    assert "case_new" in capsys.readouterr().err
    unfinished = workspace / "raw" / ".completing-Dataset014_Dense"
    made = {path: path.stat().st_mtime_ns for path in unfinished.glob("predicted/*/case_*.nii.gz")}
    assert len(made) == 4
    assert not (workspace / "raw" / "Dataset014_Dense").exists()
    broken.write_bytes(whole)
    (unfinished / "Dataset014_Dense" / "labelsTr").mkdir(parents=True)  # killed before it moved
    assert complete(workspace, "-c", "3d_fullres", "-f", "1") == 2
    assert "unfinished completion with another weights" in capsys.readouterr().err
    assert complete(workspace, "-c", "3d_fullres") == 0
    assert not unfinished.exists()
    assert len(completed(workspace).cases) == 5


def test_classes_that_were_not_looked_for_are_not_filled_in(workspace: Path) -> None:
    folder = workspace / "raw" / "Dataset012_Sparse"
    path = folder / "labelsTr" / "case_0.nii.gz"
    labels_ZYX, _ = read_label_map(path)
    write_label_map(path, np.where(labels_ZYX == 2, 0, labels_ZYX).astype(np.uint8), GEOMETRY)
    record = AnnotationRecord(
        axis=0, num_slices=12, annotated_slices=tuple(KEPT), annotated_classes=("liver",)
    )
    write_annotation_records(
        folder / "annotation.json", AnnotationRecords(cases={"case_0": record})
    )
    assert complete(workspace, "-c", "3d_fullres") == 0
    dataset = completed(workspace)
    predicted_ZYX, _ = read_label_map(predict(workspace, "0", "1") / "case_0.nii.gz")
    open_ZYX = predicted_ZYX == 2
    open_ZYX[KEPT] = False
    assert open_ZYX.any()
    annotation, _ = read_case_annotation(dataset.case("case_0"), dataset.labels)
    assert np.array_equal(~annotation.annotated_ZYX, open_ZYX)
    assert run(workspace, "plan_and_preprocess", "-d", "14", "-c", "3d_fullres", "-np", "1") == 0


def test_training_weighs_pseudo_labels_by_trust_and_confidence_and_validates_on_manual_ones(
    workspace: Path,
) -> None:
    assert complete(workspace, "-c", "3d_fullres") == 0
    assert run(workspace, "plan_and_preprocess", "-d", "14", "-c", "3d_fullres", "-np", "1") == 0
    dataset = completed(workspace)
    folder = workspace / "preprocessed" / "Dataset014_Dense"
    for name in NAMES:
        truth_ZYX, _ = read_label_map(folder / "gt_segmentations" / f"{name}.nii.gz")
        source = workspace / "raw" / "Dataset012_Sparse" / "labelsTr" / f"{name}.nii.gz"
        assert np.array_equal(truth_ZYX, read_label_map(source)[0])
    fingerprints = [
        json.loads((folder.with_name(name) / "dataset_fingerprint.json").read_text())
        for name in ("Dataset012_Sparse", "Dataset014_Dense")
    ]
    key = "foreground_intensity_properties_per_channel"
    assert fingerprints[0][key] == fingerprints[1][key]
    old, new = (
        read_json(folder.with_name(name) / "splits_final.json")
        for name in ("Dataset012_Sparse", "Dataset014_Dense")
    )
    for before, after in zip(old, new, strict=True):
        assert set(before["val"]) <= set(after["val"])

    store = CaseStore(folder / "nnUNetPlans_3d_fullres")
    annotation, _ = read_case_annotation(dataset.case("case_0"), dataset.labels)
    trust = trust_table(Recipe(trust={"manual": 1.0, "interpolated": 1.0, "pseudo": 0.25}).trust)
    patch = read_training_patch(
        store, "case_0", (0, 0, 0), SHAPE, shape=SHAPE, weights=weight_table(trust)
    )
    assert annotation.confidence_ZYX is not None
    assert np.array_equal(patch.weight_ZYX[KEPT], np.ones((3, 20, 18), np.float32))
    others = [index for index in range(12) if index not in KEPT]
    expected = np.float32(0.25) * annotation.confidence_ZYX[others]
    np.testing.assert_allclose(patch.weight_ZYX[others], expected, rtol=1e-6)

    words = ["train", "14", "3d_fullres", "0", "--num-workers", "0", *SMALL]
    assert run(workspace, *words) == 0


def test_everything_that_is_wrong_with_a_request_is_said_at_once(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(workspace, "--min-confidence", "70") == 2
    said = capsys.readouterr().err
    assert "--min-confidence is a probability" in said
    assert "say which model" in said
    folder = workspace / "raw" / "Dataset012_Sparse"
    for name in ("case_0", "case_2"):
        small_ZYX = np.zeros((3, 4, 5), np.uint8)
        write_label_map(
            folder / "labelsTr" / f"{name}.nii.gz",
            small_ZYX,
            Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0)),
        )
    assert complete(workspace, "-c", "3d_fullres") == 2
    said = capsys.readouterr().err
    assert "case_0" in said
    assert "case_2" in said
    description = read_json(folder / "dataset.json")
    description["labels"] = {"background": 0, "lung": 1, "ignore": IGNORE - 1}
    write_json(folder / "dataset.json", description)
    assert complete(workspace, "-c", "3d_fullres") == 2
    assert "lung" in capsys.readouterr().err


def test_dense_labels_have_nothing_to_complete(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace / "raw" / "Dataset012_Sparse"
    for number, name in enumerate((*NAMES, "case_new")):
        labels_ZYX = blobs(SHAPE, seed=number)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", labels_ZYX, GEOMETRY)
    assert complete(workspace, "-c", "3d_fullres") == 2
    assert "Nothing can be completed" in capsys.readouterr().err
    assert not list((workspace / "raw").glob(".*"))
