"""The commands a user types, on a dataset made on the spot."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.io import read_geometry, read_label_map
from sparseunet.data.synthetic import make_dataset
from sparseunet.training.run_log import read_log

RECIPE = ["--base-features", "4", "--batch-size", "2", "--seed", "3", "-device", "cpu"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with a dense dataset, its sparse twin, and both preprocessed."""
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / "Dataset001_Shapes", num_training=6, num_test=2)
    run(root, "simulate_annotation", "-d", "1", "--density", "0.10", "--selector", "fixed",
        "--axis", "0", "-o", "Dataset002_Sparse")  # fmt: skip
    run(root, "plan_and_preprocess", "-d", "1", "2", "-c", "2d", "3d_fullres", "-np", "2")
    return root


def run(root, *words):
    assert main(["--workspace", str(root), *words]) == 0


def runs(root, dataset, configuration):
    return sorted((root / "results" / dataset / configuration).iterdir())


def train(root, dataset, configuration, fold, *words):
    run(root, "train", dataset, configuration, fold, *RECIPE, *words)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_train_predict_and_evaluate_from_sparse_labels(workspace, tmp_path, configuration):
    train(workspace, "2", configuration, "all", "--iterations", "4")
    images = workspace / "raw" / "Dataset001_Shapes" / "imagesTs"
    run(workspace, "predict", "-i", str(images), "-o", str(tmp_path), "-d", "2", "-c",
        configuration, "-f", "all", "-device", "cpu", "--disable-tta")  # fmt: skip
    references = workspace / "raw" / "Dataset001_Shapes" / "labelsTs"
    for reference in references.iterdir():
        assert read_geometry(tmp_path / reference.name) == read_geometry(reference)
        assert set(np.unique(read_label_map(tmp_path / reference.name)[0])) <= {0, 1, 2, 3}
    run(workspace, "evaluate", str(references), str(tmp_path), "-o", str(tmp_path / "s.json"))
    summary = json.loads((tmp_path / "s.json").read_text())
    assert {"foreground_mean", "mean", "metric_per_case"} <= set(summary)
    assert len(summary["metric_per_case"]) == 2


def test_the_same_command_again_does_nothing_and_another_seed_is_another_run(workspace, capsys):
    words = ("1", "3d_fullres", "all", "--iterations", "2")
    train(workspace, *words)
    before = runs(workspace, "Dataset001_Shapes", "3d_fullres")
    final = before[-1] / "fold_all" / "checkpoint_final.pt"
    written = final.stat().st_mtime_ns
    train(workspace, *words)
    assert "finished already" in capsys.readouterr().out
    assert final.stat().st_mtime_ns == written
    train(workspace, *words, "--seed", "4")
    assert len(runs(workspace, "Dataset001_Shapes", "3d_fullres")) == len(before) + 1


def test_a_numbered_fold_is_validated_on_its_own_cases(workspace):
    train(workspace, "2", "3d_fullres", "0", "--iterations", "4", "--run", "folds")
    fold = workspace / "results" / "Dataset002_Sparse" / "3d_fullres" / "folds" / "fold_0"
    description = read_json(fold / "run.json")
    assert not {*description["cases"]["train"]} & {*description["cases"]["val"]}
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(description["cases"]["val"])
    assert (fold / "progress.png").stat().st_size > 1000
    log = read_log(fold)
    assert log[-1]["step"] == 4
    assert np.isfinite(log[-1]["val_loss"])


def test_a_case_without_annotation_is_left_out_and_said_so(tmp_path, capsys):
    make_dataset(tmp_path / "raw" / "Dataset001_Shapes", num_training=4, num_test=1)
    run(tmp_path, "simulate_annotation", "-d", "1", "--density", "0.2", "--volume-share", "0.75",
        "-o", "Dataset002_Sparse")  # fmt: skip
    run(tmp_path, "plan_and_preprocess", "-d", "2", "-c", "3d_fullres", "-np", "1")
    capsys.readouterr()
    train(tmp_path, "2", "3d_fullres", "all", "--iterations", "2", "--patch-shares",
          "lesion=50", "vessel=30", "rest=20", "--case-weighting", "sqrt_slices")  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert sum("1 of 4 training cases has no annotated voxel" in line for line in lines) == 1
    assert any(line.split()[:1] == ["lesion"] for line in lines)
    (folder,) = runs(tmp_path, "Dataset002_Sparse", "3d_fullres")
    forecast = read_json(folder / "fold_all" / "forecast.json")
    assert (forecast["num_cases"], len(forecast["left_out"])) == (4, 1)
    assert forecast["classes"][2]["batches_with_it"] > 0


def test_plans_made_for_a_time_say_how_long_to_train(workspace):
    prepared = workspace / "preprocessed" / "Dataset001_Shapes"
    content = read_json(prepared / "nnUNetPlans.json")
    content["plans_name"] = "laptop"
    content["sparseunet"]["time_budget"] = {"iterations": {"3d_fullres": 3}}
    write_json(prepared / "laptop.json", content)
    for name, words, steps in (("as_planned", (), 3), ("otherwise", ("--iterations", "2"), 2)):
        train(workspace, "1", "3d_fullres", "all", "-p", "laptop", "--run", name, *words)
        (folder,) = (run for run in runs(workspace, "Dataset001_Shapes", "3d_fullres")
                     if run.name == name)  # fmt: skip
        assert read_log(folder / "fold_all")[-1]["step"] == steps


def test_a_run_name_is_not_reused_for_another_recipe(workspace, capsys):
    train(workspace, "1", "3d_fullres", "all", "--iterations", "2", "--run", "mine")
    words = ["train", "1", "3d_fullres", "all", *RECIPE, "--iterations", "3", "--run", "mine"]
    assert main(["--workspace", str(workspace), *words]) == 2
    assert "another training" in capsys.readouterr().err


def kill_after_two_epochs(command, fold):
    """Return whether the training had not ended by itself."""
    log = fold / "log.jsonl"
    process = subprocess.Popen(command)
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_killed_training_resumes_to_the_weights_of_an_undisturbed_one(workspace):
    words = ["1", "3d_fullres", "all", *RECIPE, "--iterations", "12", "--iterations-per-epoch", "3",
             "--checkpoint-minutes", "0"]  # fmt: skip
    command = [
        sys.executable, "-c", "from sparseunet.cli.main import main; raise SystemExit(main())",
        "--workspace", str(workspace), "train", *words, "--run", "killed",
    ]  # fmt: skip
    folder = workspace / "results" / "Dataset001_Shapes" / "3d_fullres"
    killed = folder / "killed" / "fold_all"
    while not kill_after_two_epochs(command, killed):
        shutil.rmtree(killed)  # it ended before anybody looked
    assert not (killed / "checkpoint_final.pt").exists()
    run(workspace, "train", *words, "--run", "killed")
    run(workspace, "train", *words, "--run", "undisturbed")
    one, other = (
        torch.load(folder / name / "fold_all" / "checkpoint_final.pt", weights_only=True)["weights"]
        for name in ("killed", "undisturbed")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_time_budget_chooses_network_and_iterations(workspace, monkeypatch):
    # A machine on which every network is slow: the choice must not depend on how busy this one is.
    monkeypatch.setattr("sparseunet.training.time_budget.measure_step_s", lambda *_: 0.5)
    run(workspace, "train", "2", "3d_fullres", "all", "--time-budget", "12s", "-device", "cpu",
        "--run", "quick")  # fmt: skip
    fold = workspace / "results" / "Dataset002_Sparse" / "3d_fullres" / "quick" / "fold_all"
    description = read_json(fold / "run.json")
    log = read_log(fold)
    assert log[-1]["step"] == description["training"]["iterations"]
    configuration = description["plan"]["configurations"]["3d_fullres"]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["7", "3d_fullres", "all"], "No dataset '7'"),
        (["1", "3d_huge", "all"], "no configuration '3d_huge'"),
        (["1", "3d_fullres", "9"], "No fold 9"),
        (["1", "3d_fullres", "all", "--iterations", "0"], "at least 1"),
        (["1", "3d_fullres", "all", "--batch-size", "0"], "at least 1"),
        (["1", "3d_fullres", "all", "-device", "tpu"], "'tpu'"),
        (["1", "3d_fullres", "all", "--seed", "-1"], "0 or more"),
        (["1", "3d_fullres", "all", "--num-workers", "-1"], "0 or more"),
        (["1", "3d_fullres", "all", "--precision", "int4"], "'int4'"),
        (["1", "3d_fullres", "all", "--iterations", "5", "--epochs", "5"], "not both"),
        (["1", "3d_fullres", "all", "--time-budget", "0.0001"], "too short"),
        (["1", "3d_fullres", "all", "--patch-shares", "liver=1"], "organ, lesion, vessel, back"),
        (["1", "3d_fullres", "all", "--patch-shares", "organ"], "NAME=WEIGHT"),
    ],
)
def test_a_training_that_cannot_be_is_refused_and_leaves_nothing(
    workspace, capsys, words, expected
):
    before = sorted((workspace / "results").rglob("*"))
    assert main(["--workspace", str(workspace), "train", *words]) == 2
    assert expected in capsys.readouterr().err
    assert sorted((workspace / "results").rglob("*")) == before
