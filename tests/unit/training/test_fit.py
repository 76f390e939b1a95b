"""Training learns, can be interrupted, and is the same every time."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import (
    CPU,
    assert_same_training,
    assert_same_weights,
    make_recipe,
    make_store,
    read_weights,
    train_tiny,
)

from sparseunet.errors import RequestError, SparseUNetError, UnreadableFileError
from sparseunet.networks.device import require_compiler
from sparseunet.training.run_log import read_log
from sparseunet.training.step import Hardware


@pytest.mark.parametrize("dimensions", [2, 3])
def test_sparse_training_finds_the_box(tmp_path, dimensions):
    store = make_store(tmp_path / "data", slices=[4, 8])
    recipe = make_recipe(iterations=60, iterations_per_epoch=20)
    train_tiny(store, tmp_path / "run", recipe=recipe, dimensions=dimensions)
    log = read_log(tmp_path / "run")
    assert log[-1]["train_loss"] < log[0]["train_loss"] - 0.3
    assert log[-1]["pseudo_dice"]["box"] > 0.6


@pytest.mark.parametrize(
    ("num_workers", "architecture", "recipe"),
    [
        (0, "plain_unet", {}),
        (1, "plain_unet", {}),
        (1, "densevoxnet", {"optimizer": "adamw", "schedule": "cosine", "warmup": 2}),
    ],
)
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, num_workers, architecture, recipe
):
    store = make_store(tmp_path / "data", slices=[4, 8])
    hardware = Hardware(device=torch.device("cpu"), dtype=None, num_workers=num_workers)
    how = {"hardware": hardware, "architecture": architecture, "recipe": make_recipe(**recipe)}
    train_tiny(store, tmp_path / "whole", **how)

    class PulledPlugError(Exception):
        pass

    def pull_the_plug(log):
        if len(log) == 2:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        train_tiny(store, tmp_path / "cut", on_epoch=[pull_the_plug], **how)
    train_tiny(store, tmp_path / "cut", **how)
    assert_same_training(tmp_path / "whole", tmp_path / "cut")


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(tmp_path):
    store = make_store(tmp_path / "data")
    results = []
    for workers in (0, 2):
        hardware = Hardware(device=torch.device("cpu"), dtype=None, num_workers=workers)
        results.append(
            read_weights(train_tiny(store, tmp_path / f"run{workers}", hardware=hardware))
        )
    assert_same_weights(*results)
    other = read_weights(train_tiny(store, tmp_path / "other", recipe=make_recipe(seed=2)))
    assert any(not torch.equal(results[0][key], other[key]) for key in other)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_up_to_rounding_and_is_stored_alike(tmp_path):
    try:
        require_compiler(torch.device("cpu"))
    except RequestError as error:
        pytest.skip(str(error))
    store = make_store(tmp_path / "data", slices=[4, 8])
    recipe = make_recipe(iterations=2)
    weights = []
    for name, compiles in (("compiled", True), ("eager", False)):
        hardware = replace(CPU, compiles=compiles)
        final = train_tiny(store, tmp_path / name, recipe=recipe, hardware=hardware, dimensions=2)
        weights.append(read_weights(final))
    assert weights[0].keys() == weights[1].keys()
    for name, compiled in weights[0].items():
        torch.testing.assert_close(compiled, weights[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("iterations", "left"), [(9, [3]), (6, [])])
def test_after_the_first_steps_it_is_said_once_how_long_a_step_takes(tmp_path, iterations, left):
    told = []
    start_s = time.perf_counter()
    train_tiny(
        make_store(tmp_path / "data"),
        tmp_path / "run",
        recipe=make_recipe(iterations=iterations, iterations_per_epoch=2),
        on_pace=lambda step_s, steps: told.append((step_s, steps)),
    )
    assert [steps for _, steps in told] == left
    assert all(0 < 5 * step_s < time.perf_counter() - start_s for step_s, _ in told)


def test_cases_without_annotation_are_left_out(tmp_path):
    store = make_store(tmp_path / "data", slices=[])
    with pytest.raises(RequestError, match="None of the 3 training cases"):
        train_tiny(store, tmp_path / "run")


def test_validation_is_logged_where_there_are_validation_cases(tmp_path):
    store = make_store(tmp_path / "data")
    train_tiny(store, tmp_path / "run", val=store.cases[:1])
    entry = read_log(tmp_path / "run")[-1]
    assert np.isfinite(entry["val_loss"])
    assert "box" in entry["val_pseudo_dice"]
    assert (tmp_path / "run" / "checkpoint_best.pt").is_file()


def test_watching_validation_cases_changes_nothing_that_is_learnt(tmp_path):
    """Batch norm gathers statistics in training mode, and dropout draws random numbers."""
    store = make_store(tmp_path / "data")
    kept = [
        read_weights(
            train_tiny(store, tmp_path / f"run{len(val)}", val=val, architecture="densevoxnet")
        )
        for val in ((), store.cases[:1])
    ]
    assert_same_weights(*kept)
    assert any("running_mean" in key for key in kept[0])


def test_the_log_says_what_was_seen_how_long_it_took_and_that_it_ended(tmp_path):
    store = make_store(tmp_path / "data", slices=[4])
    train_tiny(store, tmp_path / "run")
    *epochs, last = (
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    )
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3]
    for entry in epochs:
        assert 0 < entry["class_voxels"]["box"] < entry["annotated_voxels"]
        assert 0 <= entry["waiting_for_data"] <= 1
        assert 50 < entry["peak_memory_mib"] < 10_000
    assert last["finished"]
    assert last["step"] == 9
    assert last["best_step"] is None, "there was no validation case"
    assert not (tmp_path / "run" / "checkpoint_best.pt").exists()
    assert last["duration_s"] == pytest.approx(sum(e["duration_s"] for e in epochs), abs=0.01)


def test_a_loss_that_is_no_number_stops_training_with_the_remedy(tmp_path):
    store = make_store(tmp_path / "data")
    with pytest.raises(SparseUNetError, match="lower learning rate"):
        train_tiny(store, tmp_path / "run", recipe=make_recipe(learning_rate=1e30))


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path):
    store = make_store(tmp_path / "data")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint_latest.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UnreadableFileError, match=r"checkpoint_latest\.pt.*remove it to train"):
        train_tiny(store, tmp_path / "run")
    (tmp_path / "run" / "checkpoint_best.pt").write_bytes(b"")
    with pytest.raises(UnreadableFileError, match="can still predict"):
        train_tiny(store, tmp_path / "run")
