import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, RequestError
from sparseunet.evaluation.evaluate import evaluate, write_scores
from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.scores import NNUNET_METRICS, OUR_METRICS, Scores
from sparseunet.evaluation.summary import scores_to_json

SHAPE = (6, 10, 8)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5), origin_mm=(1.0, 2.0, 3.0))
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "lesion": 2}, regions={})
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "file_ending": ".nii.gz",
}
STRANGE_NAMES = ("Fälle 肝 (1)", 'it\'s "quoted" & [more], one;two', "plain")


def _folders(
    tmp_path: Path, *, names=("a", "b", "c"), references=None, predictions=None
) -> tuple[Path, Path]:
    for index, name in enumerate(names):
        reference = blobs(SHAPE, seed=index) if references is None else references[index]
        prediction = blobs(SHAPE, seed=index + 50) if predictions is None else predictions[index]
        for folder, labels_ZYX in (("references", reference), ("predictions", prediction)):
            write_label_map(tmp_path / folder / f"{name}.nii.gz", labels_ZYX, GEOMETRY)
    return tmp_path / "references", tmp_path / "predictions"


def _evaluate(references: Path, predictions: Path, **changes) -> Scores:
    options = {"labels": LABELS, "file_ending": ".nii.gz", "num_workers": 1}
    return evaluate(references, predictions, **{**options, **changes})


def test_every_case_has_the_scores_of_its_label_maps(tmp_path):
    references, predictions = _folders(tmp_path)

    scores = _evaluate(references, predictions)

    assert [case.name for case in scores.cases] == ["a", "b", "c"]
    for case in scores.cases:
        reference_ZYX, geometry = read_label_map(case.reference)
        prediction_ZYX, _ = read_label_map(case.prediction)
        assert case.classes == score_label_maps(
            reference_ZYX,
            prediction_ZYX,
            classes={"organ": (1,), "lesion": (2,)},
            spacing_mm=geometry.spacing_mm,
        )


def test_the_number_of_workers_changes_nothing(tmp_path):
    folders = _folders(tmp_path)

    assert _evaluate(*folders, num_workers=1) == _evaluate(*folders, num_workers=3)


def test_the_summary_has_the_keys_of_nnunet_and_ours_beside_them(tmp_path):
    summary = scores_to_json(_evaluate(*_folders(tmp_path)))

    nnunet = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}
    assert set(summary) == {"foreground_mean", "mean", "metric_per_case", "sparseunet"}
    assert set(summary["foreground_mean"]) == nnunet
    assert set(summary["mean"]) == {"1", "2"}
    assert all(set(metrics) == nnunet for metrics in summary["mean"].values())
    for case in summary["metric_per_case"]:
        assert set(case) == {"metrics", "prediction_file", "reference_file"}
        assert set(case["metrics"]) == {"1", "2"}
        assert all(set(metrics) == nnunet for metrics in case["metrics"].values())
    ours = summary["sparseunet"]
    assert ours["num_cases"] == 3
    assert ours["class_names"] == {"1": "organ", "2": "lesion"}
    assert set(ours["mean"]["1"]) == {*OUR_METRICS, "pooled_IoU"}
    assert [case["case"] for case in ours["metric_per_case"]] == ["a", "b", "c"]


def test_means_are_over_cases_then_over_classes(tmp_path):
    summary = scores_to_json(_evaluate(*_folders(tmp_path)))

    for metric in NNUNET_METRICS:
        means = []
        for key in ("1", "2"):
            values = [case["metrics"][key][metric] for case in summary["metric_per_case"]]
            means.append(sum(values) / 3)
            assert summary["mean"][key][metric] == pytest.approx(means[-1])
        assert summary["foreground_mean"][metric] == pytest.approx(sum(means) / 2)


def test_an_absent_class_is_nan_as_in_nnunet_and_written_so(tmp_path):
    with_both, organ_only = blobs(SHAPE, seed=1), np.minimum(blobs(SHAPE, seed=2), 1)
    maps = [with_both, organ_only, organ_only]
    references, predictions = _folders(tmp_path, references=maps, predictions=maps)
    scores = _evaluate(references, predictions)

    write_scores(tmp_path / "summary.json", scores)

    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text)
    assert "NaN" in text
    assert math.isnan(summary["metric_per_case"][1]["metrics"]["2"]["Dice"])
    assert math.isnan(summary["metric_per_case"][1]["metrics"]["2"]["IoU"])
    assert summary["metric_per_case"][1]["metrics"]["2"]["TN"] == np.prod(SHAPE)
    assert summary["mean"]["2"]["Dice"] == 1.0
    assert summary["sparseunet"]["num_cases_where"]["2"] == {
        "not_annotated": 0,
        "missed": 0,
        "invented": 0,
        "absent": 2,
    }
    assert summary["sparseunet"]["n_valid"]["2"]["Dice"] == 1


def test_a_class_that_occurs_nowhere_leaves_the_foreground_mean_undefined(tmp_path):
    maps = [np.minimum(blobs(SHAPE, seed=2), 1)]
    folders = _folders(tmp_path, names=("a",), references=maps, predictions=maps)

    scores = _evaluate(*folders)

    assert math.isnan(scores.mean("lesion", "Dice"))
    assert math.isnan(scores.foreground_mean("Dice"))
    assert scores.mean("organ", "Dice") == 1


def test_a_missed_class_pulls_the_mean_distance_up_to_the_diagonal(tmp_path):
    reference = blobs(SHAPE, seed=1)
    missed = np.where(reference == 2, 0, reference)
    folders = _folders(
        tmp_path, names=("a", "b"), references=[reference] * 2, predictions=[reference, missed]
    )

    scores = _evaluate(*folders)

    diagonal = np.linalg.norm(np.array(SHAPE) * GEOMETRY.spacing_mm)
    assert scores.values("lesion", "HD95").tolist() == pytest.approx([0, diagonal])
    assert scores.mean("lesion", "HD95") == pytest.approx(diagonal / 2)
    assert scores.mean("lesion", "Dice") == 0.5
    special = scores_to_json(scores)["sparseunet"]["num_cases_where"]["2"]
    assert special == {"not_annotated": 0, "missed": 1, "invented": 0, "absent": 0}


def test_only_annotated_voxels_count_and_distances_to_sparse_references_are_unknown(tmp_path):
    dense = [blobs(SHAPE, seed=seed) for seed in range(3)]
    sparse = [np.where(np.arange(6)[:, None, None] == 3, labels, 3) for labels in dense]
    guessed = [np.where(labels == 3, 1, labels) for labels in sparse]
    folders = _folders(tmp_path, references=sparse, predictions=guessed)

    scores = _evaluate(*folders, labels=replace(LABELS, ignore=3))

    assert scores.foreground_mean("Dice") == 1.0
    assert math.isnan(scores.foreground_mean("HD95"))
    ours = scores_to_json(scores)["sparseunet"]
    assert ours["num_sparse_references"] == 3
    assert ours["n_valid"]["1"]["HD95"] == ours["n_valid"]["1"]["VolumeError"] == 0


def test_a_value_of_no_class_counts_as_background_but_not_silently(tmp_path, caplog):
    references, predictions = _folders(tmp_path)
    assert _evaluate(references, predictions).cases[0].undeclared_values == ()
    assert caplog.text == ""
    labels_ZYX, _ = read_label_map(references / "b.nii.gz")
    labels_ZYX[labels_ZYX == 2] = 7
    write_label_map(references / "b.nii.gz", labels_ZYX, GEOMETRY)

    scores = _evaluate(references, predictions)

    assert scores.cases[1].undeclared_values == (7,)
    assert scores.cases[1].classes["lesion"].num_reference == 0
    assert "7 in" in caplog.text
    assert "declare the ignore label" in caplog.text


def test_a_predicted_value_of_no_class_counts_as_background_but_not_silently(tmp_path, caplog):
    references, predictions = _folders(tmp_path)
    labels_ZYX, _ = read_label_map(predictions / "b.nii.gz")
    labels_ZYX[labels_ZYX == 2] = 7
    write_label_map(predictions / "b.nii.gz", labels_ZYX, GEOMETRY)

    scores = _evaluate(references, predictions)

    assert scores.cases[1].undeclared_predicted_values == (7,)
    assert scores.cases[1].classes["lesion"].num_predicted == 0
    assert f"e.g. 7 in {predictions / 'b.nii.gz'}" in caplog.text


@pytest.mark.parametrize("flag", ["-o", "--html"])
@pytest.mark.parametrize("place", [".", "a.nii.gz/summary.json"])
def test_a_place_where_nothing_can_be_written_is_told_before_scoring(tmp_path, capsys, flag, place):
    references, predictions = _folders(tmp_path)
    words = ["evaluate", str(references), str(predictions), "-l", "1", "2"]
    before = set(tmp_path.rglob("*"))
    assert main([*words, flag, str(references / place)]) == 2
    assert str(references) in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before


def test_regions_have_nnunets_keys(tmp_path):
    labels = LabelSchema(
        classes={"background": 0},
        regions={"whole": (1, 2), "core": (2,)},
        regions_class_order=(1, 2),
    )

    summary = scores_to_json(_evaluate(*_folders(tmp_path), labels=labels))

    assert set(summary["mean"]) == {"(1, 2)", "2"}
    assert summary["sparseunet"]["class_names"] == {"(1, 2)": "whole", "2": "core"}
    organ_and_lesion = summary["metric_per_case"][0]["metrics"]["(1, 2)"]["n_ref"]
    assert organ_and_lesion == (blobs(SHAPE, seed=0) > 0).sum()


def test_pooled_iou_is_one_intersection_over_one_union(tmp_path):
    scores = _evaluate(*_folders(tmp_path))

    reference = np.stack([blobs(SHAPE, seed=seed) == 1 for seed in range(3)])
    prediction = np.stack([blobs(SHAPE, seed=seed + 50) == 1 for seed in range(3)])
    expected = (reference & prediction).sum() / (reference | prediction).sum()
    assert scores.pooled_iou("organ") == pytest.approx(expected)


def test_every_missing_prediction_is_named_at_once(tmp_path):
    references, predictions = _folders(tmp_path)
    for name in ("a", "c"):
        (predictions / f"{name}.nii.gz").unlink()

    with pytest.raises(RequestError, match=r"2 of 3 .*a\.nii\.gz, c\.nii\.gz"):
        _evaluate(references, predictions)

    assert len(_evaluate(references, predictions, cases=["b"]).cases) == 1


def test_extra_predictions_are_left_out_with_a_warning(tmp_path, caplog):
    references, predictions = _folders(tmp_path)
    (references / "b.nii.gz").unlink()

    scores = _evaluate(references, predictions)

    assert [case.name for case in scores.cases] == ["a", "c"]
    assert "b.nii.gz" in caplog.text


def test_every_prediction_on_another_grid_is_named_at_once(tmp_path):
    references, predictions = _folders(tmp_path)
    write_label_map(
        predictions / "a.nii.gz",
        np.zeros((6, 10, 9), np.uint8),
        replace(GEOMETRY, shape=(6, 10, 9)),
    )
    write_label_map(
        predictions / "c.nii.gz", np.zeros(SHAPE, np.uint8), replace(GEOMETRY, spacing_mm=(2, 1, 1))
    )

    with pytest.raises(DatasetError) as caught:
        _evaluate(references, predictions)

    assert [problem.case for problem in caught.value.problems] == ["a.nii.gz", "c.nii.gz"]
    assert "shape" in caught.value.problems[0].found
    assert "spacing" in caught.value.problems[1].found


def test_another_origin_is_told_and_voxels_are_matched_by_index(tmp_path, caplog):
    references, predictions = _folders(tmp_path)
    expected = _evaluate(references, predictions)
    labels_ZYX, _ = read_label_map(predictions / "b.nii.gz")
    write_label_map(
        predictions / "b.nii.gz", labels_ZYX, replace(GEOMETRY, origin_mm=(11.0, 2.0, 3.0))
    )

    assert _evaluate(references, predictions) == expected
    assert "origin" in caplog.text


def test_every_file_that_cannot_be_read_is_named_at_once(tmp_path):
    references, predictions = _folders(tmp_path)
    for path in (references / "a.nii.gz", predictions / "c.nii.gz"):
        path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(DatasetError) as caught:
        _evaluate(references, predictions)

    files = [Path(problem.file).name for problem in caught.value.problems]
    assert files == ["a.nii.gz", "c.nii.gz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_ending": ".nrrd"}, "CASE.nrrd"),
        ({"cases": ["zebra"]}, r"zebra\.nii\.gz"),
        ({"predictions": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_folders_that_hold_something_else_are_refused(tmp_path, change, message):
    references, predictions = _folders(tmp_path)
    options = dict(change)
    predictions = tmp_path / options.pop("predictions", predictions)

    with pytest.raises(RequestError, match=message):
        _evaluate(references, predictions, **options)


def test_strange_names_survive_json_and_csv(tmp_path):
    references, predictions = _folders(tmp_path, names=STRANGE_NAMES)

    write_scores(tmp_path / "out" / "summary.json", _evaluate(references, predictions))

    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    files = [Path(case["prediction_file"]) for case in summary["metric_per_case"]]
    assert files == [predictions / f"{name}.nii.gz" for name in sorted(STRANGE_NAMES)]
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [n for n in sorted(STRANGE_NAMES) for _ in (1, 2)]
    for index, case in enumerate(summary["metric_per_case"]):
        for row, key in zip(rows[2 * index : 2 * index + 2], ("1", "2"), strict=True):
            assert row["label"] == key
            assert float(row["Dice"]) == case["metrics"][key]["Dice"]
            assert float(row["HD95_mm"]) >= 0


@pytest.mark.parametrize("place", ["predictions", "references", ".", "option"])
def test_the_command_finds_the_classes_where_they_are(tmp_path, capsys, place):
    references, predictions = _folders(tmp_path)
    folder = tmp_path / ("elsewhere" if place == "option" else place)
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    words = ["evaluate", str(references), str(predictions)]
    if place == "option":
        words += ["--dataset-json", str(folder / "dataset.json")]

    assert main(words) == 0

    out = capsys.readouterr().out
    summary = json.loads((predictions / "summary.json").read_text())
    assert f"{summary['foreground_mean']['Dice']:.4f}" in out
    for name in ("organ", "lesion"):
        assert name in out
    assert (predictions / "summary.csv").is_file()


def test_the_command_scores_given_values_without_any_description(tmp_path, capsys):
    references, predictions = _folders(tmp_path)
    words = ["evaluate", str(references), str(predictions)]

    assert main(words) == 2
    assert "the label values" in capsys.readouterr().err
    assert main([*words, "--labels", "0", "1"]) == 2
    assert main([*words, "--labels", "2", "-o", str(tmp_path / "two.json"), "-np", "1"]) == 0

    summary = json.loads((tmp_path / "two.json").read_text())
    assert set(summary["mean"]) == {"2"}
    assert not (predictions / "summary.json").exists()


def test_the_command_says_which_predictions_are_missing_unless_told_to_chill(tmp_path, capsys):
    references, predictions = _folders(tmp_path)
    (predictions / "b.nii.gz").unlink()
    words = ["evaluate", str(references), str(predictions), "-l", "1", "2"]

    assert main(words) == 2
    assert "b.nii.gz" in capsys.readouterr().err
    assert main([*words, "--chill"]) == 0
    assert "2 cases" in capsys.readouterr().out


def test_predictions_of_nnunet_for_real_scans_are_scored(data_root):
    predictions = data_root.parent / "reference" / "nnunet_model" / "predictions_notta"
    names = sorted(path.name.removesuffix(".nii.gz") for path in predictions.glob("*.nii.gz"))
    labels = LabelSchema(classes={"background": 0, "anterior": 1, "posterior": 2}, regions={})

    scores = _evaluate(
        data_root / "Dataset004_Hippocampus" / "labelsTs", predictions, labels=labels, cases=names
    )

    assert len(scores.cases) == len(names) == 8
    assert scores.foreground_mean("Dice") > 0.5
    assert all(0 < case.classes["anterior"].surfaces.assd_mm < 10 for case in scores.cases)
