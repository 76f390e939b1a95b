"""A class that nobody looked for in a case, and labels that nobody drew, have no part in scores."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.cli.main import main
from sparseunet.data.annotation import Source
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError
from sparseunet.evaluation.compare import compare_scores
from sparseunet.evaluation.evaluate import ReferenceAnnotation, evaluate
from sparseunet.evaluation.scores import METRICS
from sparseunet.evaluation.summary import scores_to_json
from sparseunet.report.worst_cases import find_worst_slice

SHAPE = (6, 10, 8)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5))
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "lesion": 2}, regions={})
NAMES = ("a", "b", "c")
ORGAN_ONLY = {"a": ("organ",)}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A raw dataset's labels and predictions; in case a nobody looked for lesions."""
    dataset, predictions = tmp_path / "Dataset001_Scans", tmp_path / "predictions"
    for seed, name in enumerate(NAMES):
        reference_ZYX = blobs(SHAPE, seed=seed)
        if name in ORGAN_ONLY:
            reference_ZYX[reference_ZYX == 2] = 0
        for folder, labels_ZYX in (
            (dataset / "labelsTr", reference_ZYX),
            (predictions, blobs(SHAPE, seed=seed + 50)),
        ):
            write_label_map(folder / f"{name}.nii.gz", labels_ZYX, GEOMETRY)
    record = AnnotationRecord(
        axis=0, num_slices=6, annotated_slices=tuple(range(6)), annotated_classes=("organ",)
    )
    write_annotation_records(dataset / "annotation.json", AnnotationRecords(cases={"a": record}))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (dataset / "dataset.json").write_text(json.dumps(description))
    return dataset / "labelsTr", predictions


def score(folders: tuple[Path, Path], **changes):
    options = {"labels": LABELS, "file_ending": ".nii.gz", "num_workers": 1}
    return evaluate(*folders, **{**options, **changes})


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_of_a_class_is_that_of_the_cases_in_which_it_was_looked_for(folders, metric):
    scores = score(folders, annotation=ReferenceAnnotation(classes=ORGAN_ONLY))
    others = score(folders, cases=["b", "c"])
    everything = score(folders)
    same = {"nan_ok": True, "rel": 1e-12}
    assert scores.mean("lesion", metric) == pytest.approx(others.mean("lesion", metric), **same)
    assert scores.mean("organ", metric) == pytest.approx(everything.mean("organ", metric), **same)
    assert scores.median("lesion", metric) == pytest.approx(others.median("lesion", metric), **same)
    assert scores.num_valid("lesion", metric) == 2
    assert scores.num_valid("organ", metric) == 3


def test_scoring_a_class_that_nobody_looked_for_would_have_been_wrong(folders):
    every_class = score(folders, annotation=ReferenceAnnotation())
    assert every_class.mean("lesion", "Dice") < score(folders, cases=["b", "c"]).mean(
        "lesion", "Dice"
    )


def test_pooled_overlap_and_counts_leave_such_cases_out(folders):
    scores = score(folders, annotation=ReferenceAnnotation(classes=ORGAN_ONLY))
    others = score(folders, cases=["b", "c"])
    assert scores.pooled_iou("lesion") == others.pooled_iou("lesion")
    content = scores_to_json(scores)
    where = content["sparseunet"]["num_cases_where"]["2"]
    assert where == {"not_annotated": 1, "missed": 0, "invented": 0, "absent": 0}
    assert content["sparseunet"]["metric_per_case"][0]["not_annotated"] == ["2"]
    of_case = content["metric_per_case"][0]["metrics"]
    assert all(math.isnan(value) for value in of_case["2"].values())
    assert not any(math.isnan(value) for value in of_case["1"].values())


def test_a_comparison_has_no_pair_where_the_class_is_not_annotated(folders):
    scores = score(folders, annotation=ReferenceAnnotation(classes=ORGAN_ONLY))
    lesion = [each for each in compare_scores(scores, scores) if each.class_name == "lesion"]
    assert {each.num_pairs for each in lesion} == {2}
    assert {each.num_rightly_empty for each in lesion} == {0}


def test_the_command_finds_the_record_beside_the_references(folders, tmp_path, capsys):
    references, predictions = folders
    page, summary = tmp_path / "worst.html", tmp_path / "summary.json"
    words = ["evaluate", str(references), str(predictions), "-o", str(summary), "--per-slice"]
    assert main([*words, "--html", str(page), "--membrane", "lesion"]) == 0
    assert "lesion: not annotated in 1 cases" in capsys.readouterr().out
    assert "lesion in 1 cases" in page.read_text()
    with summary.with_suffix(".csv").open(newline="") as stream:
        rows = {(row["case"], row["class"]): row for row in csv.DictReader(stream)}
    assert rows["a", "lesion"]["note"] == "not annotated"
    assert rows["a", "lesion"]["Dice"] == rows["a", "lesion"]["n_pred"] == ""
    assert rows["b", "lesion"]["note"] == rows["a", "organ"]["note"] == ""
    assert rows["b", "lesion"]["Dice"] != ""
    slices = json.loads((tmp_path / "summary_slices.json").read_text())
    assert {tuple(each["Dice"]) for each in slices["slices"] if each["case"] == "a"} == {("organ",)}
    objects = json.loads((tmp_path / "summary_rand.json").read_text())
    assert objects["n_valid"] == 2


def test_a_record_elsewhere_has_to_be_named(folders, tmp_path, capsys):
    references, predictions = folders
    record = (references.parent / "annotation.json").rename(tmp_path / "record.json")
    words = ["evaluate", str(references), str(predictions)]
    assert main(words) == 0
    assert "not annotated" not in capsys.readouterr().out
    assert main([*words, "--annotation", str(record)]) == 0
    assert "lesion: not annotated in 1 cases" in capsys.readouterr().out
    record.write_text(record.read_text().replace('"organ"', '"heart"'))
    assert main([*words, "--annotation", str(record)]) == 2
    assert "expected some of organ, lesion" in capsys.readouterr().err


def test_a_picture_shows_no_error_in_a_class_that_is_not_annotated(folders):
    references, predictions = folders
    prediction_ZYX = np.zeros(SHAPE, np.uint8)
    reference_ZYX = np.zeros(SHAPE, np.uint8)
    reference_ZYX[1, 2:5, 2:5] = 1
    prediction_ZYX[3] = 2
    write_label_map(references / "a.nii.gz", reference_ZYX, GEOMETRY)
    write_label_map(predictions / "a.nii.gz", prediction_ZYX, GEOMETRY)
    (case,) = score(folders, cases=["a"], annotation=ReferenceAnnotation(classes=ORGAN_ONLY)).cases
    worst = find_worst_slice(case, labels=LABELS)
    across = np.flatnonzero((reference_ZYX == 1).any(axis=tuple({0, 1, 2} - {worst.axis})))
    assert worst.index in across
    (case,) = score(folders, cases=["a"], annotation=ReferenceAnnotation()).cases
    assert find_worst_slice(case, labels=LABELS).num_wrong > worst.num_wrong


def test_a_reference_of_which_it_is_not_known_who_drew_it_is_refused(folders):
    provenance = folders[0].parent / "provenanceTr"
    manual_ZYX = np.full(SHAPE, Source.MANUAL, np.uint8)
    for name in NAMES[1:]:
        write_label_map(provenance / f"{name}.nii.gz", manual_ZYX, GEOMETRY)
    with pytest.raises(DatasetError, match=rf"{NAMES[0]}.nii.gz.*no such file.*count as drawn"):
        score(folders, annotation=ReferenceAnnotation(provenance=provenance))


@pytest.mark.parametrize("ignore", [None, 3])
def test_only_what_a_person_drew_is_scored(folders, ignore):
    references, predictions = folders
    provenance = references.parent / "provenanceTr"
    source_ZYX = np.full(SHAPE, Source.PSEUDO, np.uint8)
    source_ZYX[[0, 4]] = Source.MANUAL
    for name in NAMES:
        write_label_map(provenance / f"{name}.nii.gz", source_ZYX, GEOMETRY)
    labels = LabelSchema(classes=LABELS.classes, regions={}, ignore=ignore)
    scores = score(folders, labels=labels, annotation=ReferenceAnnotation(provenance=provenance))
    for seed, case in enumerate(scores.cases):
        assert case.is_sparse
        reference, prediction = (blobs(SHAPE, seed=number)[[0, 4]] for number in (seed, seed + 50))
        assert case.classes["organ"].num_true_positives == np.count_nonzero(
            (reference == 1) & (prediction == 1)
        )
    summary = predictions / "summary.json"
    assert main(["evaluate", str(references), str(predictions)]) == 0
    found = json.loads(summary.read_text())["metric_per_case"][1]["metrics"]["1"]["n_ref"]
    assert found == scores.cases[1].classes["organ"].num_reference
