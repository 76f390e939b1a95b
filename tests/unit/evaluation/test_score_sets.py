"""What a set of scores says as a whole: intervals, challenge scores, membranes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs, box

from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.scores import SUMMARISED, CaseScores, Scores
from sparseunet.evaluation.summary import scores_to_json

SHAPE = (6, 12, 10)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
TWO = {"myocardium": (1,), "pool": (2,)}


def _scores(pairs, *, classes=TWO) -> Scores:
    cases = tuple(
        CaseScores(
            name=f"case_{index}",
            reference=Path("r"),
            prediction=Path("p"),
            classes=score_label_maps(
                reference, prediction, classes=classes, spacing_mm=GEOMETRY.spacing_mm
            ),
            is_sparse=False,
        )
        for index, (reference, prediction) in enumerate(pairs)
    )
    return Scores(classes=classes, cases=cases)


def _pairs(number: int):
    return [(blobs(SHAPE, seed=seed), blobs(SHAPE, seed=seed + 50)) for seed in range(number)]


@pytest.mark.parametrize(
    ("myocardium", "pool", "overall"),
    [
        ((0.809, 0.785, 4.121), (0.937, 0.799, 6.285), 0.13),
        ((0.792, 1.024, 6.906), (0.932, 0.898, 7.396), -0.095),
        ((0.830, 0.678, 3.614), (0.937, 0.770, 7.034), 0.166),
        ((0.694, 1.461, 10.221), (0.926, 0.940, 8.628), -0.419),
    ],
)
def test_the_overall_score_is_that_of_zheng_et_al_table_1(myocardium, pool, overall):
    (case,) = _scores(_pairs(1)).cases
    stated = {}
    for name, (dice, adb_mm, hausdorff_mm) in {"myocardium": myocardium, "pool": pool}.items():
        surfaces = replace(case.classes[name].surfaces, assd_mm=adb_mm, hd_mm=hausdorff_mm)
        stated[name] = replace(case.classes[name], dice=dice, surfaces=surfaces)

    scores = Scores(classes=TWO, cases=(replace(case, classes=stated),))

    assert scores.hvsmr_overall_score == pytest.approx(overall, abs=0.0015)


def test_every_summarised_metric_has_an_interval_around_its_mean():
    summary = scores_to_json(_scores(_pairs(8)))["sparseunet"]

    for key in ("1", "2"):
        for metric in SUMMARISED:
            low, high = summary["interval_95"][key][metric]
            mean = (summary["mean"][key] | {"Dice": None, "IoU": None})[metric]
            assert low < high
            assert mean is None or low <= mean <= high
            assert summary["n_valid"][key][metric] == 8
            assert np.isfinite(summary["median"][key][metric])
    assert summary["foreground_interval_95"]["Dice"][0] < summary["foreground_mean"]["NSD"] + 1


def test_the_interval_of_the_foreground_mean_keeps_cases_together():
    opposite = [(1.0, 0.0), (0.0, 1.0)] * 5
    (case,) = _scores(_pairs(1)).cases
    cases = []
    for dices in opposite:
        classes = {
            name: replace(scores, dice=dice)
            for (name, scores), dice in zip(case.classes.items(), dices, strict=True)
        }
        cases.append(replace(case, classes=classes))

    scores = Scores(classes=TWO, cases=tuple(cases))

    low, high = scores.interval_95("myocardium", "Dice")
    assert high - low > 0.3
    assert scores.foreground_interval_95("Dice") == pytest.approx((0.5, 0.5))


def test_one_case_has_no_interval():
    scores = _scores(_pairs(1))

    assert math.isnan(scores.interval_95("pool", "Dice")[0])
    assert math.isnan(scores.foreground_interval_95("Dice")[1])


def _write(folder: Path, name: str, labels_ZYX: np.ndarray) -> None:
    write_label_map(folder / f"{name}.nii.gz", labels_ZYX.astype(np.uint8), GEOMETRY)


def test_the_command_takes_the_tolerance_in_millimetres(tmp_path):
    reference = box(SHAPE, start=(1, 2, 2), stop=(2, 6, 6))
    _write(tmp_path / "references", "a", reference)
    _write(tmp_path / "predictions", "a", np.roll(reference, 1, axis=0))  # 2 mm
    words = ["evaluate", str(tmp_path / "references"), str(tmp_path / "predictions"), "-l", "1"]
    found = []

    for tolerance in ("1.9", "2"):
        assert main([*words, "--tolerance-mm", tolerance]) == 0
        summary = json.loads((tmp_path / "predictions" / "summary.json").read_text())
        found.append(summary["sparseunet"]["mean"]["1"]["NSD"])
        assert summary["sparseunet"]["tolerance_mm"] == float(tolerance)

    assert found == [0, 1]
    assert main([*words, "--tolerance-mm", "-1"]) == 2


def test_the_command_scores_what_a_membrane_separates(tmp_path, capsys):
    wall = box(SHAPE, start=(0, 0, 5), stop=(6, 12, 6))
    leaking = wall.copy()
    leaking[3, 6, 5] = False
    for name, prediction in (("good", wall), ("leaking", leaking)):
        _write(tmp_path / "references", name, wall)
        _write(tmp_path / "predictions", name, prediction)
    description = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "membrane": 1},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    words = ["evaluate", str(tmp_path / "references"), str(tmp_path / "predictions")]

    assert main([*words, "--membrane", "wall"]) == 2
    assert "membrane names one of background, membrane" in capsys.readouterr().err
    assert main([*words, "--membrane", "membrane"]) == 0

    summary = json.loads((tmp_path / "predictions" / "summary.json").read_text())
    rand = json.loads((tmp_path / "predictions" / "summary_rand.json").read_text())
    scores = {case["case"]: case for case in rand["cases"]}
    assert summary["mean"]["1"]["Dice"] > 0.99
    assert scores["good"]["f_score"] == 1
    assert scores["leaking"]["f_score"] < 0.7
    assert scores["leaking"]["split"] == 1
    assert rand["mean"]["f_score"] == pytest.approx((1 + scores["leaking"]["f_score"]) / 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "."], "--images has no effect without --html"),
        (["--metrics", "Dice"], "--metrics has no effect without --compare"),
        (["--compare"], "expected 2. Give A and B"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(tmp_path, capsys, flags, message):
    for folder in ("references", "predictions"):
        _write(tmp_path / folder, "a", blobs(SHAPE, seed=1))
    words = ["evaluate", str(tmp_path / "references"), str(tmp_path / "predictions"), "-l", "1"]

    assert main([*words, *flags]) == 2

    assert message in capsys.readouterr().err
