"""A training that is stopped or killed anywhere ends, run again, as an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import (
    assert_same_training,
    make_recipe,
    make_store,
    train_tiny,
)

from sparseunet.errors import RequestError
from sparseunet.training.interruption import TrainingInterruptedError
from sparseunet.training.lock import hold_folder, is_held
from sparseunet.training.run_log import read_log
from sparseunet.training.step import Hardware

ENDLESS = 1_000_000
"""Steps of a training that is not over before it is stopped, however busy the machine is."""
SIGNALS_ONLY = """
import time
from sparseunet.training.interruption import stop_on_signals
with stop_on_signals() as stop_signal:
    print("listening", flush=True)
    while stop_signal() is None:
        time.sleep(0.01)
    print(stop_signal(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_store(folder, slices=[4, 8])


def start(store, folder, **options):
    """Start a training in a process of its own, at the head of a group as on a terminal."""
    return subprocess.Popen(
        [
            sys.executable,
            tiny_training.__file__,
            str(store.folder),
            str(folder),
            json.dumps(options),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def written_at(path):
    return path.stat().st_mtime_ns if path.is_file() else 0


def children(pid):
    """Return the living processes below `pid`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("seed", range(2))
def test_stopped_between_any_two_steps_it_ends_as_if_never_stopped(data, tmp_path, seed):
    recipe = make_recipe(iterations=11, iterations_per_epoch=4)
    options = {"recipe": recipe, "val": data.cases[:2]}
    train_tiny(data, tmp_path / "whole", **options)
    generator, codes = random.Random(seed), []
    while not (tmp_path / "cut" / "checkpoint_final.pt").is_file():
        left = generator.randint(1, 5)

        def after_a_few_questions():
            nonlocal left
            left -= 1
            return signal.SIGTERM if left < 0 else None

        try:
            train_tiny(data, tmp_path / "cut", stop_signal=after_a_few_questions, **options)
        except TrainingInterruptedError as error:
            codes.append(error.exit_code)
    assert set(codes) == {143}
    assert_same_training(tmp_path / "whole", tmp_path / "cut")


def test_in_float16_the_scale_is_kept(data, tmp_path):
    hardware = Hardware(device=torch.device("cpu"), dtype=torch.float16, num_workers=0)
    options = {"recipe": make_recipe(iterations=6), "hardware": hardware}
    train_tiny(data, tmp_path / "whole", **options)
    answers = iter([None] * 4 + [signal.SIGTERM])
    with pytest.raises(TrainingInterruptedError):
        train_tiny(data, tmp_path / "cut", stop_signal=lambda: next(answers), **options)
    latest = torch.load(tmp_path / "cut" / "checkpoint_latest.pt", weights_only=True)
    assert latest["scaler"]["_growth_tracker"] + latest["scaler"]["scale"] > 0
    train_tiny(data, tmp_path / "cut", **options)
    assert_same_training(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_at_random_moments_it_ends_as_if_never_killed(data, tmp_path, num_workers):
    options = {
        "recipe": {"iterations": 22, "iterations_per_epoch": 4},
        "num_workers": num_workers,
        "num_val": 1,
        "checkpoint_every_s": 0.02,
    }
    folder, generator, killed = tmp_path / "cut", random.Random(num_workers), 0
    latest = folder / "checkpoint_latest.pt"
    assert start(data, tmp_path / "whole", **options).wait() == 0
    while killed < 2:
        if (folder / "checkpoint_final.pt").exists():
            shutil.rmtree(folder)  # it ended before anybody looked
        before = written_at(latest)
        process = start(data, folder, **options)
        # One that was killed near its end may have finished before anybody looks.
        while process.poll() is None and written_at(latest) == before:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    last = start(data, folder, **options)
    _, told = last.communicate()
    assert last.returncode == 0, told
    assert_same_training(tmp_path / "whole", folder)
    assert not list(folder.glob(".writing-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_ends_it_quietly_with_a_checkpoint(data, tmp_path, number):
    options = {
        "recipe": {"iterations": ENDLESS, "iterations_per_epoch": 3},
        "num_workers": 2,
        "checkpoint_every_s": 3600,
    }
    process = start(data, tmp_path / "run", **options)
    wait_for(lambda: len(read_log(tmp_path / "run")) >= 1, process)
    assert is_held(tmp_path / "run")
    workers = children(process.pid)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 128 + number, told
    assert "Traceback" not in told
    assert "stopped after step" in told
    assert len(workers) == 2
    assert not any(map(is_alive, workers))
    latest = torch.load(tmp_path / "run" / "checkpoint_latest.pt", weights_only=True)
    assert 3 <= latest["step"] < ENDLESS
    assert not is_held(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(number):
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALS_ONLY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"listening\n"
    process.send_signal(number)
    assert process.stdout.readline().strip().isdigit()
    process.send_signal(number)
    assert process.wait(timeout=600) == -number
    assert b"once more" in process.communicate()[1]


def test_two_processes_do_not_train_in_the_same_folder(data, tmp_path):
    options = {"recipe": {"iterations": ENDLESS, "iterations_per_epoch": 3}}
    process = start(data, tmp_path / "run", **options)
    wait_for(lambda: len(read_log(tmp_path / "run")) >= 1, process)
    with pytest.raises(RequestError, match="Another process is training"):
        train_tiny(data, tmp_path / "run")
    process.kill()
    process.wait()
    process.stderr.close()
    with hold_folder(tmp_path / "run"):
        pass
