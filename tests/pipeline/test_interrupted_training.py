"""`train` is stopped by a signal and says how to go on; what it says works."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopping_schedule import GO_ON

from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset
from sparseunet.training.run_log import read_log

RECIPE = [
    "--base-features",
    "4",
    "--batch-size",
    "2",
    "-device",
    "cpu",
    "--precision",
    "float32",
    "--patch-size",
    "32",
    "32",
    "--num-workers",
    "1",
    "--iterations",
    "5",
    "--iterations-per-epoch",
    "1",
    "--schedule",
    "stopping_schedule:linear_with_a_stop",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / "Dataset001_Shapes", num_training=5, num_test=1)
    words = ["plan_and_preprocess", "-d", "1", "-c", "2d"]
    assert main(["--workspace", str(root), *words]) == 0
    return root


def stop_in_the_middle(command: list[str], fold: Path, go_on: Path) -> str:
    """Send a signal to a training that waits at its third step; return what it told."""
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {GO_ON: str(go_on), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while len(read_log(fold)) < 1:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    go_on.touch()
    told: str = process.communicate(timeout=600)[1]
    assert process.returncode == 143, told
    assert "Traceback" not in told
    return told


def test_a_stopped_training_tells_the_command_that_ends_it(workspace, tmp_path, capsys):
    command = ["--workspace", str(workspace), "train", "1", "2d", "0", *RECIPE]
    fold = workspace / "results" / "Dataset001_Shapes" / "2d" / "stopped" / "fold_0"
    stopped = [sys.executable, "-m", "sparseunet", *command, "--run", "stopped"]
    told = stop_in_the_middle(stopped, fold, tmp_path / "go_on")
    last = told.strip().splitlines()[-1]
    assert last.startswith("sparseunet train: stopped after step ")
    assert main(["--workspace", str(workspace), "runs"]) == 0
    assert "interrupted" in capsys.readouterr().out
    assert not (fold / "checkpoint_final.pt").exists()

    words = shlex.split(last.partition("go on with: ")[2])
    assert words[0] == "sparseunet"
    assert main(words[1:]) == 0
    assert main([*command, "--run", "whole"]) == 0
    capsys.readouterr()
    assert main(["--workspace", str(workspace), "runs", "compare", "stopped", "whole"]) == 0
    shown = capsys.readouterr().out
    assert "are the same" in shown
    rows = [line.split()[-1] for line in shown.splitlines() if line.startswith("  Dice")]
    assert rows
    for line in shown.splitlines():
        if line.startswith("  Dice"):
            assert line.split()[-1] == line.split()[-2]

    images = str(workspace / "raw" / "Dataset001_Shapes" / "imagesTs")
    predict = ["predict", "-i", images, "-m", str(fold.parent), "-f", "0", "-device", "cpu"]
    predict += ["--disable-tta", "--checkpoint", "best", "-o", str(workspace / "best")]
    assert main(predict) == 0
    (fold / "checkpoint_best.pt").unlink()
    assert main([*predict, "--overwrite"]) == 2
    assert "has no best weights" in capsys.readouterr().err.replace("\n", " ")
