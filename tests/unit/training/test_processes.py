"""Several processes, or a batch in parts, train the network that one process trains."""

import os
import signal
import time

import pytest
import torch
from tiny_training import (
    LABELS,
    log_without_times,
    make_configuration,
    make_store,
    read_weights,
)
from training_together import overflow_once, start_together, train_one

from sparseunet.errors import RequestError
from sparseunet.training.fit import batch_rules
from sparseunet.training.loader import BatchDataset, summarise_cases
from sparseunet.training.processes import ALONE, Processes
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import read_log

ANYWHERE = {"patch_shares": {"rest": 1.0}}
SHARED = {
    "dense, one Dice per sample, uneven shares": {"data": "dense", "batch_size": 3},
    "dense, batch Dice": {"data": "dense", "recipe": {"batch_dice": True}},
    "slices": {"data": "slices", "batch_size": 3},
    "a share without annotation": {"data": "one_slice", "recipe": ANYWHERE},
    "a class not looked for in a case": {"data": "partly", "batch_size": 3},
    "regions": {"data": "slices", "batch_size": 3, "regions": True},
    "2D": {"data": "slices", "dimensions": 2, "batch_size": 3},
    "shares in parts": {"data": "slices", "batch_size": 4, "num_parts": 2},
}
STOPPED = {"data": "slices", "batch_size": 3}
"""The second process hears a signal before the fifth step, in the middle of an epoch."""
LONG = {"iterations": 1_000_000, "iterations_per_epoch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_store(root / "dense")
    make_store(root / "slices", slices=[4, 8])
    make_store(root / "one_slice", slices=[0])
    make_store(root / "partly", slices=[4, 8], without_box=(1,))
    return root


@pytest.fixture(scope="module")
def together(data, tmp_path_factory):
    """Train all of `SHARED` in two processes, at last one that must be refused."""
    root = tmp_path_factory.mktemp("together")
    trainings = [
        with_folders(training, data, root / str(number))
        for number, training in enumerate(SHARED.values())
    ]
    refused = with_folders({"data": "dense", "batch_size": 1}, data, root / "refused")
    stopped = with_folders(STOPPED, data, root / "stopped") | {
        "stop_after": 5
    }  # times asked: 4 steps, a validation
    overflow = {"overflow": str(root / "rank_")}
    processes = start_together([*trainings, stopped, overflow, refused])
    told = [process.communicate(timeout=600) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [2, 2], told
    return root, told


def with_folders(training, data, run):
    return training | {"data": str(data / training["data"]), "run": str(run)}


def map_flat(log):
    """Return lines of a log without dictionaries in them; counts of voxels are near as well."""
    return [
        {
            (key, name): value
            for key, entry in line.items()
            for name, value in (entry if isinstance(entry, dict) else {"": entry}).items()
        }
        for line in log
    ]


def assert_nearly_same_training(one, other):
    """Compare weights and logs of two folders; they differ in the order of sums only."""
    logs = log_without_times(one), log_without_times(other)
    assert len(logs[0]) == len(logs[1]) > 0
    for line, expected in zip(*map(map_flat, logs), strict=True):
        numbers = {key: value for key, value in expected.items() if value is not None}
        assert {key for key, value in line.items() if value is not None} == set(numbers)
        assert {key: line[key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-4)
    for name in ("checkpoint_final.pt", "checkpoint_best.pt"):
        weights, expected = (read_weights(folder / name) for folder in (one, other))
        assert list(weights) == list(expected)
        for key in weights:
            torch.testing.assert_close(weights[key], expected[key], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_train_what_one_trains(name, data, together, tmp_path):
    training = SHARED[name] | {"num_parts": 1}
    train_one(with_folders(training, data, tmp_path / "alone"))
    folder = together[0] / str(list(SHARED).index(name))
    assert_nearly_same_training(folder, tmp_path / "alone")
    assert not (folder / "checkpoint_latest.pt").exists()


def test_one_process_ends_what_two_began(data, together, tmp_path):
    latest = torch.load(together[0] / "stopped" / "checkpoint_latest.pt", weights_only=True)
    assert latest["step"] == 4
    for run in (tmp_path / "alone", together[0] / "stopped"):
        train_one(with_folders(STOPPED, data, run))
    assert_nearly_same_training(together[0] / "stopped", tmp_path / "alone")


def test_the_tolerance_tells_trainings_apart(data, together, tmp_path):
    training = SHARED["slices"] | {"batch_size": 2}
    train_one(with_folders(training, data, tmp_path / "alone"))
    folder = together[0] / str(list(SHARED).index("slices"))
    with pytest.raises(AssertionError):
        assert_nearly_same_training(folder, tmp_path / "alone")


def test_a_process_had_nothing_annotated_while_the_other_had(data):
    store = make_store(data / "one_slice", slices=[0])
    recipe = Recipe(seed=1, **ANYWHERE)
    rules = batch_rules(make_configuration(), recipe, LABELS)
    cases = summarise_cases(store, store.cases, rules)
    whole = BatchDataset(store, cases, rules)
    shares = [
        BatchDataset(store, cases, rules, share=Processes(rank=rank, count=2).share(2))
        for rank in range(2)
    ]
    alone = 0
    for step in range(6):
        batches = [share[step] for share in shares]
        for name in ("image_BCZYX", "labels_BZYX", "weight_BZYX"):
            parts = [getattr(batch, name) for batch in batches]
            assert torch.equal(torch.cat(parts), getattr(whole[step], name))
        alone += len({bool(batch.weight_BZYX.any()) for batch in batches}) == 2
    assert alone > 0


def test_only_the_first_process_prints_and_a_refusal_is_told_once(together):
    root, told = together
    printed = [out.splitlines() for out, _ in told]
    assert printed == [[f"trained {root / str(number)}" for number in range(len(SHARED))], []]
    errors = [line for _, err in told for line in err.splitlines() if "cannot be shared" in line]
    expected = (
        "A batch of 1 cannot be shared among 2 processes; start 1 at most, or train with a "
        "batch of 2 or more."
    )
    assert errors == [expected]


def test_an_overflow_in_one_process_leaves_the_step_out_in_all(together):
    scale, weights = overflow_once(ALONE)
    found = [torch.load(together[0] / f"rank_{rank}.pt") for rank in range(2)]
    assert [each[0] for each in found] == [scale, scale] == [512.0, 512.0]
    for key, expected in weights.items():
        assert torch.equal(found[0][1][key], found[1][1][key]), key
        assert found[0][1][key].isfinite().all()
        torch.testing.assert_close(found[0][1][key], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("num_parts", [2, 3])
@pytest.mark.parametrize("batch_dice", [True, False], ids=["batch Dice", "sample Dice"])
def test_parts_train_what_the_whole_batch_trains(num_parts, batch_dice, data, tmp_path):
    training = {"data": "partly", "batch_size": 3, "recipe": {"batch_dice": batch_dice}}
    train_one(with_folders(training, data, tmp_path / "whole"))
    train_one(with_folders(training, data, tmp_path / "parts") | {"num_parts": num_parts})
    assert_nearly_same_training(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_parts": 3}, "parts of a batch must be between 1 and 2"),
        ({"num_parts": 2, "architecture": "densevoxnet"}, "has batch norm"),
    ],
)
def test_what_cannot_be_divided_is_refused(more, message, data, tmp_path):
    with pytest.raises(RequestError, match=message):
        train_one(with_folders({"data": "dense"} | more, data, tmp_path / "run"))


@pytest.mark.parametrize(("batch_size", "count"), [(2, 2), (3, 2), (7, 3), (12, 5)])
def test_shares_are_the_batch_in_order_and_nearly_equal(batch_size, count):
    shares = [
        range(batch_size)[Processes(rank=rank, count=count).share(batch_size)]
        for rank in range(count)
    ]
    assert [number for share in shares for number in share] == list(range(batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def start_long(data, run, **more):
    """Start a training that is stopped anyway, and wait for its first epochs."""
    training = {"data": "slices", "recipe": LONG, "checkpoint_every_s": 0.0} | more
    processes = start_together([with_folders(training, data, run)])
    while len(read_log(run)) < 2:
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return processes


def test_a_signal_to_one_stops_all_after_the_same_step(data, tmp_path):
    processes = start_long(data, tmp_path / "run")
    processes[1].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], told
    lines = [line for text in told for line in text.splitlines()]
    assert len([line for line in lines if line.startswith("stopped after step ")]) == 1
    assert "Traceback" not in "".join(told)
    latest = torch.load(tmp_path / "run" / "checkpoint_latest.pt", weights_only=True)
    assert f"stopped after step {latest['step']} of {LONG['iterations']}" in "".join(told)


def test_a_killed_process_ends_the_other_with_a_plain_message(data, tmp_path):
    processes = start_long(data, tmp_path / "run", num_workers=1)
    os.kill(processes[1].pid, signal.SIGKILL)
    told = processes[0].communicate(timeout=600)[1]
    processes[1].communicate(timeout=600)
    assert processes[0].returncode == 1
    assert "Traceback" not in told
    last = told.strip().splitlines()[-1]
    assert last.startswith("Another process of this training has ended")
    latest = torch.load(tmp_path / "run" / "checkpoint_latest.pt", weights_only=True)
    assert latest["step"] >= 8
    assert not (tmp_path / "run" / "training.lock").exists()
