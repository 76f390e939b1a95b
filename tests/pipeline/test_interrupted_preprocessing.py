"""Preprocessing that is killed and run again ends with the bytes of an undisturbed run."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

DATASET = "Dataset004_Hippocampus"
NUM_CASES = 12
NUM_KILLS = 5


@pytest.fixture(scope="module")
def raw(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = data_root / DATASET, tmp_path_factory.mktemp("raw") / DATASET
    for name in ("imagesTr", "labelsTr"):
        (target / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:NUM_CASES]:
            shutil.copy(path, target / name)
    description = json.loads((source / "dataset.json").read_text())
    description["numTraining"] = NUM_CASES
    (target / "dataset.json").write_text(json.dumps(description))
    return target


def start(raw: Path, workspace: Path) -> subprocess.Popen[bytes]:
    arguments = ["plan_and_preprocess", "-d", str(raw), "-np", "2", "-c", "2d", "3d_fullres"]
    return subprocess.Popen(
        [sys.executable, "-m", "sparseunet", "--workspace", str(workspace), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def num_written(workspace: Path) -> int:
    """Count the files of the preprocessed dataset, those that are half written included."""
    return sum(len(files) for _, _, files in os.walk(workspace))


def bytes_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def kill_at(raw: Path, workspace: Path, moment: int, generator: random.Random) -> bool:
    """Kill a run once so many files are written; return whether it had not ended before."""
    process = start(raw, workspace)
    while process.poll() is None and num_written(workspace) < moment:
        time.sleep(generator.uniform(0.0, 0.01))
    process.kill()
    return process.wait() != 0


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    raw: Path, tmp_path: Path, seed: int
) -> None:
    assert start(raw, tmp_path / "undisturbed").wait() == 0
    expected = bytes_of(tmp_path / "undisturbed")
    generator = random.Random(seed)
    moments = sorted(generator.sample(range(1, len(expected)), NUM_KILLS))
    for moment in moments:
        while not kill_at(raw, tmp_path / "killed", moment, generator):
            shutil.rmtree(tmp_path / "killed")
    assert start(raw, tmp_path / "killed").wait() == 0
    found = bytes_of(tmp_path / "killed")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
