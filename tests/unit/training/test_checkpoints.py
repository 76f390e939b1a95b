"""Checkpoints are whole or not written, and good ones are kept."""

import os
import subprocess
import sys

import pytest
import tiny_training
import torch
from tiny_training import CPU, LABELS, make_configuration, make_recipe, make_store, train_tiny

from sparseunet.errors import SparseUNetError
from sparseunet.training.checkpoints import Checkpoints
from sparseunet.training.fit import _new_state
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.run_log import read_log
from sparseunet.training.state import restore_checkpoint
from sparseunet.training.step import Hardware, train_step

FLOAT16 = Hardware(device=torch.device("cpu"), dtype=torch.float16, num_workers=0)
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def new_state(hardware=CPU):
    return _new_state(make_configuration(), LABELS, make_recipe(), hardware)


def checkpoints_in(folder, every_s=0.0):
    return Checkpoints(folder=folder, every_s=every_s)


def make_batch(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 8, 16, 16)
    return Batch(
        image_BCZYX=scale * torch.randn((2, 1, *shape[1:]), generator=generator),
        labels_BZYX=torch.randint(0, 2, shape, generator=generator),
        weight_BZYX=torch.ones(shape),
    )


def step(state, batch, hardware):
    objective = Objective(
        labels=LABELS, strides=make_configuration().network.strides, batch_dice=True
    )
    return train_step(
        state, batch, objective=objective, recipe=make_recipe(iterations=100), hardware=hardware
    )[0]


def copy_weights(state):
    return {name: tensor.clone() for name, tensor in state.network.state_dict().items()}


def test_short_epochs_do_not_write_checkpoints_and_time_decides(tmp_path):
    store, seen = make_store(tmp_path / "data"), {}
    for name, every_s in (("seldom", 3600.0), ("always", 0.0), ("steps", 1e-6)):
        latest = tmp_path / name / "checkpoint_latest.pt"

        def note(log, name=name, latest=latest):
            there = latest.is_file()
            step = torch.load(latest, weights_only=True)["step"] if there else None
            seen.setdefault(name, []).append((log[-1]["step"], step))

        train_tiny(store, latest.parent, on_epoch=[note], checkpoint_every_s=every_s)
        assert not latest.exists()
    assert seen["seldom"] == [(3, None), (6, None), (9, None)]
    assert seen["always"] == [(3, 3), (6, 6), (9, 6)], "the last epoch has the final weights"
    assert seen["steps"] == [(3, 3), (6, 6), (9, 8)], "between epochs as well"


def test_the_best_epoch_is_chosen_by_a_running_mean_that_skips_absent_classes(tmp_path):
    state = new_state()
    checkpoints = checkpoints_in(tmp_path)
    state.best.consider({"a": None, "b": None}, state)
    assert state.best.running_mean is None
    checkpoints.write(state)
    assert not (tmp_path / "checkpoint_best.pt").exists()
    means = []
    for state.step, dice in enumerate([0.5, 1.0, 0.0, 0.0], start=1):
        with torch.no_grad():
            next(state.network.parameters()).fill_(state.step)
        state.best.consider({"a": dice, "b": None}, state)
        means.append(state.best.running_mean)
    assert means == pytest.approx([0.5, 0.55, 0.495, 0.4455])
    checkpoints.write(state)
    best = torch.load(tmp_path / "checkpoint_best.pt", weights_only=True)
    assert best["step"] == 2
    assert set(next(iter(best["weights"].values())).flatten().tolist()) == {2.0}
    again = new_state()
    restore_checkpoint(again, tmp_path / "checkpoint_latest.pt")
    assert again.best == state.best


def test_weights_that_are_no_numbers_do_not_replace_good_ones(tmp_path):
    state = new_state()
    checkpoints_in(tmp_path).write(state)
    before = (tmp_path / "checkpoint_latest.pt").read_bytes()
    with torch.no_grad():
        next(state.network.parameters()).fill_(torch.nan)
    with pytest.raises(SparseUNetError, match=r"not finite.*checkpoint_latest\.pt is left"):
        checkpoints_in(tmp_path).write(state)
    with pytest.raises(SparseUNetError, match="not finite"):
        checkpoints_in(tmp_path).finish(state)
    assert (tmp_path / "checkpoint_latest.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_latest.pt"]


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path):
    store = make_store(tmp_path / "data")
    options = {"checkpoint_every_s": 1e-6}
    with pytest.raises(SparseUNetError, match=r"not finite|became (nan|inf)"):
        train_tiny(store, tmp_path / "run", recipe=make_recipe(learning_rate=1e12), **options)
    latest = tmp_path / "run" / "checkpoint_latest.pt"
    if latest.exists():
        weights = torch.load(latest, weights_only=True)["weights"]
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_an_overflow_in_float16_skips_the_step_and_scales_less():
    state = new_state(FLOAT16)
    before, scale = copy_weights(state), state.scaler.get_scale()
    loss = step(state, make_batch(scale=1e30), FLOAT16)
    assert not torch.isfinite(torch.tensor(loss))
    assert state.step == 1
    assert state.scaler.get_scale() == scale / 2
    assert all(torch.equal(before[name], now) for name, now in copy_weights(state).items())


def test_an_overflow_that_no_scale_mends_ends_with_the_remedy():
    state = new_state(FLOAT16)
    while state.scaler.get_scale() > 2.0**-20:
        step(state, make_batch(scale=1e30), FLOAT16)
    assert state.step == 36
    with pytest.raises(SparseUNetError, match="Train in float32"):
        step(state, make_batch(scale=1e30), FLOAT16)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; skips where nobody may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_plainly_and_the_last_checkpoint_kept(tmp_path, small_disk, caplog):
    store, run = make_store(tmp_path / "data"), small_disk / "run"

    def fill_the_disk(log):
        if len(log) == 2:
            with (small_disk / "filler").open("wb") as stream:
                stream.write(bytes(os.statvfs(small_disk).f_bavail * 4096))

    with pytest.raises(SparseUNetError, match=r"run takes no more files.* 0 bytes free") as full:
        train_tiny(store, run, on_epoch=[fill_the_disk], checkpoint_every_s=0)
    assert full.value.exit_code == 1
    assert torch.load(run / "checkpoint_latest.pt", weights_only=True)["step"] == 6
    assert len(read_log(run)) == 2
    (small_disk / "filler").unlink()
    final = train_tiny(store, run, checkpoint_every_s=0)
    whole = train_tiny(store, tmp_path / "whole")
    tiny_training.assert_same_weights(
        tiny_training.read_weights(final), tiny_training.read_weights(whole)
    )


def test_little_space_is_warned_of_before_the_first_step(tmp_path, small_disk, caplog):
    (small_disk / "filler").write_bytes(bytes(1000 * 1024))
    with pytest.raises(SparseUNetError, match="bytes needed"):
        train_tiny(make_store(tmp_path / "data"), small_disk / "run", checkpoint_every_s=1e-6)
    assert "Make room before it ends" in caplog.text


def test_a_limit_on_files_is_told_like_a_full_disk(tmp_path):
    store = make_store(tmp_path / "data")
    words = [tiny_training.__file__, str(store.folder), str(tmp_path / "run")]
    options = '{"checkpoint_every_s": 1e-6}'
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, "20000", *words, options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "takes no more files (File too large)" in process.stderr
    assert "Traceback" not in process.stderr
