import csv
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.errors import RequestError
from sparseunet.evaluation.compare import compare_scores, differences_to_csv
from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.scores import CaseScores, Scores

SHAPE = (6, 12, 10)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
CLASSES = {"organ": (1,)}


def _scores(predictions, references) -> Scores:
    cases = tuple(
        CaseScores(
            name=f"case_{index}",
            reference=Path("r"),
            prediction=Path("p"),
            classes=score_label_maps(
                reference, prediction, classes=CLASSES, spacing_mm=GEOMETRY.spacing_mm
            ),
            is_sparse=False,
        )
        for index, (reference, prediction) in enumerate(zip(references, predictions, strict=True))
    )
    return Scores(classes=CLASSES, cases=cases)


def _references(number: int) -> list[np.ndarray]:
    return [(blobs(SHAPE, seed=seed, share=0.4) > 0).astype(np.uint8) for seed in range(number)]


def _damaged(references, *, share: float, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        np.where(random.random(SHAPE) < share, 0, reference).astype(np.uint8)
        for reference in references
    ]


def test_the_better_folder_is_found_with_its_difference_and_p():
    references = _references(10)
    worse, better = (_damaged(references, share=share, seed=1) for share in (0.4, 0.1))

    (dice,) = compare_scores(
        _scores(worse, references), _scores(better, references), metrics=["Dice"]
    )

    expected = _scores(better, references).mean("organ", "Dice")
    assert dice.mean_b == expected
    assert dice.mean_difference == pytest.approx(dice.mean_b - dice.mean_a)
    assert dice.interval_95[0] < dice.mean_difference < dice.interval_95[1]
    assert (dice.num_b_better, dice.num_b_worse, dice.num_equal) == (10, 0, 0)
    assert dice.p == dice.p_holm == pytest.approx(2 / 2**10)
    assert not dice.is_too_small


def test_lower_is_better_for_distances_and_the_sign_of_a_volume_error_does_not_matter():
    references = _references(3)
    exact = _scores(references, references)
    less = _scores(_damaged(references, share=0.3, seed=1), references)

    distance, volume = compare_scores(less, exact, metrics=["ASSD", "RelativeVolumeError"])

    assert (distance.num_b_better, volume.num_b_better) == (3, 3)
    assert volume.mean_a > 0 == volume.mean_b


def test_swapping_the_folders_turns_everything_round():
    references = _references(7)
    first, second = (
        _scores(_damaged(references, share=0.2, seed=seed), references) for seed in (1, 2)
    )

    there, back = compare_scores(first, second), compare_scores(second, first)

    for one, other in zip(there, back, strict=True):
        assert one.mean_difference == -other.mean_difference
        assert one.interval_95 == pytest.approx(tuple(-end for end in other.interval_95[::-1]))
        assert (one.num_b_better, one.num_b_worse) == (other.num_b_worse, other.num_b_better)
        assert one.p == other.p


def test_the_correction_counts_every_class_and_metric():
    references = _references(8)
    first, second = (
        _scores(_damaged(references, share=share, seed=3), references) for share in (0.1, 0.3)
    )

    (alone,) = compare_scores(first, second, metrics=["Dice"])
    both = compare_scores(first, second, metrics=["Dice", "IoU"])

    assert both[0].p == alone.p == alone.p_holm
    assert both[0].p_holm == 2 * alone.p


def test_equal_folders_do_not_differ():
    references = _references(6)
    scores = _scores(_damaged(references, share=0.2, seed=1), references)

    for each in compare_scores(scores, scores):
        assert (each.mean_difference, each.num_equal, each.p, each.p_holm) == (0, 6, 1, 1)
        assert each.is_too_small  # no pair differs


def test_five_cases_cannot_show_anything_and_say_so():
    references = _references(5)
    scores = _scores(_damaged(references, share=0.4, seed=1), references)

    (dice,) = compare_scores(scores, _scores(references, references), metrics=["Dice"])

    assert dice.num_b_better == 5
    assert dice.p == 0.0625
    assert dice.is_too_small


def test_who_invents_a_class_loses_against_who_rightly_finds_nothing():
    empty, full = np.zeros(SHAPE, np.uint8), _references(1)[0]
    references = [empty, empty, full]
    silent = _scores([empty, empty, full], references)
    inventing = _scores([full, empty, full], references)

    dice, distance = compare_scores(silent, inventing, metrics=["Dice", "HD95"])

    assert (dice.num_pairs, dice.num_rightly_empty) == (2, 1)  # nobody found anything in case_1
    assert (dice.num_b_worse, dice.num_equal) == (1, 1)
    assert (dice.mean_a, dice.mean_b) == (1, 0.5)
    assert distance.mean_a == 0 < distance.mean_b


def test_a_class_that_no_case_has_is_not_tested():
    empty = [np.zeros(SHAPE, np.uint8)] * 3

    (dice,) = compare_scores(_scores(empty, empty), _scores(empty, empty), metrics=["Dice"])

    assert dice.num_pairs == 0
    assert math.isnan(dice.p)
    assert math.isnan(dice.p_holm)


def test_different_cases_cannot_be_compared():
    references = _references(3)
    scores = _scores(references, references)
    fewer = replace(scores, cases=scores.cases[1:])

    with pytest.raises(RequestError, match=r"only in A: case_0; only in B: none"):
        compare_scores(scores, fewer)
    with pytest.raises(RequestError, match="No metric Dise"):
        compare_scores(scores, scores, metrics=["Dise"])


def test_the_table_holds_every_pair():
    references = _references(2)
    first = _scores(_damaged(references, share=0.4, seed=1), references)
    second = _scores(references, references)

    text = differences_to_csv(first, second, compare_scores(first, second, metrics=["Dice"]))

    rows = list(csv.DictReader(StringIO(text)))
    assert [row["case"] for row in rows] == ["case_0", "case_1"]
    assert float(rows[0]["difference"]) == float(rows[0]["b"]) - float(rows[0]["a"])


def _folder(path: Path, maps) -> str:
    for index, labels_ZYX in enumerate(maps):
        write_label_map(path / f"case_{index}.nii.gz", labels_ZYX, GEOMETRY)
    return str(path)


def test_the_command_compares_two_folders(tmp_path, capsys):
    references = _references(4)
    words = [
        "evaluate",
        _folder(tmp_path / "references", references),
        _folder(tmp_path / "A", _damaged(references, share=0.4, seed=1)),
        _folder(tmp_path / "B", references),
        "-l",
        "1",
    ]

    assert main(words) == 2
    assert "Add --compare" in capsys.readouterr().err
    assert main([*words, "--compare"]) == 0

    content = json.loads((tmp_path / "B" / "comparison.json").read_text())
    assert [each["metric"] for each in content["comparisons"]] == ["Dice", "HD95", "NSD"]
    assert content["comparisons"][0]["num_b_better"] == 4
    assert (tmp_path / "B" / "comparison.csv").is_file()
    assert not (tmp_path / "B" / "summary.json").exists()
    out = capsys.readouterr().out
    assert "4/0/0" in out
    assert "fewer than 6" in out


def test_the_command_refuses_folders_with_different_cases(tmp_path, capsys):
    references = _references(3)
    folders = [_folder(tmp_path / name, references) for name in ("references", "A", "B")]
    (tmp_path / "B" / "case_1.nii.gz").unlink()
    words = ["evaluate", *folders, "-l", "1", "--compare"]

    assert main(words) == 2
    assert "case_1.nii.gz" in capsys.readouterr().err
    assert main([*words, "--chill"]) == 2
    assert "only in A: case_1" in capsys.readouterr().err
