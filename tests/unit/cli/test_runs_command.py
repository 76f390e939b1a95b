"""`runs` tells how far every training is and what tells two of them apart."""

import json

import pytest
from tiny_training import make_configuration, make_recipe, write_tiny_record

from sparseunet.cli.main import main
from sparseunet.errors import RequestError
from sparseunet.runs.find import resolve_weights
from sparseunet.runs.record import run_identity
from sparseunet.workspace import Workspace, fold_folder


@pytest.fixture
def record(tmp_path):
    """Write a run as training would leave it."""

    def write(name, fold=0, *, step=9, finished=True, dice=None, data="d", **changes):
        recipe, configuration = make_recipe(**changes), make_configuration()
        run = Workspace.at(tmp_path).run_folder("Dataset001_Tiny", "3d", name)
        folder = fold_folder(run, fold)
        identity = run_identity(recipe, configuration, data_hash=data, time_budget_min=None)
        write_tiny_record(folder, recipe=recipe, identity=identity, fold=fold)
        lines = [{"epoch": 1, "step": step, "duration_s": 61.0}]
        lines += [{"finished": True, "step": step, "duration_s": 61.0}] * finished
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / ("checkpoint_final.pt" if finished else "checkpoint_latest.pt")).touch()
        if dice is not None:
            (folder / "validation").mkdir()
            summary = {
                "foreground_mean": {"Dice": dice},
                "mean": {"1": {"Dice": dice}},
                "sparseunet": {"class_names": {"1": "box"}},
            }
            (folder / "validation" / "summary.json").write_text(json.dumps(summary))
        return folder

    return write


def tell(tmp_path, capsys, *words):
    assert main(["--workspace", str(tmp_path), "runs", *words]) == 0
    return capsys.readouterr().out


def test_every_fold_is_listed_with_status_score_and_what_differs(record, tmp_path, capsys):
    record("one", dice=0.8125)
    record("one", "all", finished=False, step=6)
    record("two", seed=7)
    header, *rows = tell(tmp_path, capsys).splitlines()
    assert header.split() == [
        "dataset",
        "configuration",
        "run",
        "fold",
        "status",
        "step",
        "Dice",
        "time",
        "differs",
    ]
    assert [row.split()[2:7] for row in rows] == [
        ["one", "0", "finished", "9/9", "0.8125"],
        ["one", "all", "interrupted", "6/9", "–"],
        ["two", "0", "finished", "9/9", "–"],
    ]
    assert [row.split("s  ")[-1] for row in rows] == ["seed 1", "seed 1", "seed 7"]
    assert "1 min 01 s" in rows[0]
    assert tell(tmp_path, capsys, "-d", "1").splitlines() == [header, *rows]


def test_runs_that_are_alike_differ_in_nothing(record, tmp_path, capsys):
    record("one")
    record("two")
    assert tell(tmp_path, capsys).splitlines()[1].endswith("1 min 01 s")
    assert "are the same" in tell(tmp_path, capsys, "compare", "one", "two")


def test_two_runs_are_compared_by_name_or_folder(record, tmp_path, capsys):
    record("one", dice=0.5)
    second = record("two", dice=0.75, learning_rate=0.1, data="other")
    for words in (("one", "two"), ("one", str(second)), ("one", str(second.parent))):
        rows = [line.split() for line in tell(tmp_path, capsys, "compare", *words).splitlines()]
        assert ["training.learning_rate", "0.01", "0.1"] in rows
        assert ["data", "d", "other"] in rows
        assert ["Dice", "box", "0.5000", "0.7500"] in rows
        assert not [row for row in rows if row and row[0] == "training.seed"]


def test_an_empty_workspace_has_no_runs(tmp_path, capsys):
    assert "No runs in" in tell(tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare", "one"], "exactly two runs"),
        (["compare", "one", "none"], "No run 'none'"),
        (["list", "one"], "list takes no RUN"),
        (["-d", "77"], "No dataset '77'"),
    ],
)
def test_what_cannot_be_shown_is_a_wrong_request(record, tmp_path, capsys, words, told):
    record("one")
    assert main(["--workspace", str(tmp_path), "runs", *words]) == 2
    assert told in capsys.readouterr().err


def test_weights_are_found_by_file_fold_run_and_name(record, tmp_path):
    workspace = Workspace.at(tmp_path)
    zero, everything = record("one", 0), record("one", "all")
    final = "checkpoint_final.pt"
    for text, fold, expected in (
        (str(zero / final), "3", zero),
        (str(zero), "3", zero),
        (str(zero.parent), "0", zero),
        ("one", "3", everything),
    ):
        assert resolve_weights(workspace, text, fold=fold) == expected / final
    unfinished = record("two", 0, finished=False)
    with pytest.raises(RequestError, match="no weights yet"):
        resolve_weights(workspace, "two", fold="0")
    (unfinished / "checkpoint_best.pt").touch()
    assert resolve_weights(workspace, "two", fold="0") == unfinished / "checkpoint_best.pt"
    record("two", 1)
    with pytest.raises(RequestError, match=r"several folds \(fold_0, fold_1\)"):
        resolve_weights(workspace, "two", fold="4")
