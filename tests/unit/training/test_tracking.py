"""The log's numbers reach TensorBoard; what is missing is named."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sparseunet.errors import RequestError
from sparseunet.training.tracking import numbers_of, write_tensorboard, write_wandb

ENTRY = {
    "epoch": 1,
    "step": 3,
    "train_loss": 0.5,
    "val_loss": None,
    "pseudo_dice": {"box": 0.25, "absent": None},
}


def test_classes_get_a_curve_each_and_what_is_undefined_none():
    assert numbers_of(ENTRY) == {"step": 3, "train_loss": 0.5, "pseudo_dice/box": 0.25}


def test_a_missing_package_is_one_clear_error(tmp_path, monkeypatch):
    for name in ("tensorboard", "wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(RequestError, match=r"--tensorboard needs tensorboard.*sparseunet\[track\]"),
        write_tensorboard(tmp_path),
    ):
        pass
    with (
        pytest.raises(RequestError, match=r"--wandb needs wandb"),
        write_wandb("p", name="n", folder=tmp_path, config={}),
    ):
        pass


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra `track`")
def test_tensorboard_reads_what_is_written_and_not_what_a_killed_training_wrote(tmp_path):
    for losses in ((1.0, 9.0, 8.0), (0.5, 0.25)):  # the second goes on after the first epoch
        log = [ENTRY] * (losses[0] == 0.5)
        with write_tensorboard(tmp_path) as on_epoch:
            for loss in losses:
                log.append(ENTRY | {"epoch": len(log) + 1, "train_loss": loss})
                on_epoch(log)
    assert read_scalars(tmp_path)["train_loss"] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert read_scalars(tmp_path)["pseudo_dice/box"] == [(1, 0.25), (2, 0.25), (3, 0.25)]


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from importlib import import_module

    module = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
