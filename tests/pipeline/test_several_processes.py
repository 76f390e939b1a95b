"""`torchrun` starts `train` as the documentation says, and it ends as in one process."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparseunet.artifacts import read_json
from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset
from sparseunet.training.run_log import read_log

RECIPE = ["--base-features", "4", "--batch-size", "2", "--patch-size", "32", "32"]
RECIPE += ["-device", "cpu", "--precision", "float32", "--num-workers", "0"]
RECIPE += ["--iterations", "4", "--iterations-per-epoch", "2"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / "Dataset001_Shapes", num_training=5, num_test=1)
    words = ["plan_and_preprocess", "-d", "1", "-c", "2d"]
    assert main(["--workspace", str(root), *words]) == 0
    return root


def test_torchrun_trains_what_one_process_trains(workspace: Path) -> None:
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    train = ["--workspace", str(workspace), "train", "1", "2d", "0", *RECIPE]
    more = ["--run", "together", "--num-workers", "1"]
    command = [sys.executable, "-m", *launch, "sparseunet", *train, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained: ") == done.stdout.count("2 processes") == 1
    folder = Path(done.stdout.rpartition("Trained: ")[2].strip())
    assert folder.parent.name == "together"
    assert read_json(folder / "run.json")["training"]["iterations"] == 4

    assert main([*train, "--run", "alone", "--accumulate", "2"]) == 0
    alone = folder.parents[1] / "alone" / "fold_0"
    assert folder != alone
    losses = [[line["train_loss"] for line in read_log(run)] for run in (folder, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    scores = [read_json(run / "validation" / "summary.json") for run in (folder, alone)]
    dice = [score["foreground_mean"]["Dice"] for score in scores]
    assert dice[0] == pytest.approx(dice[1], abs=1e-2)


def test_variables_without_a_meeting_place_are_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["--workspace", str(workspace), "train", "1", "2d", "0", *RECIPE]) == 2
    assert "MASTER_PORT=''" in capsys.readouterr().err
