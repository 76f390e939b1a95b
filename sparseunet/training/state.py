"""What changes while training runs, and how it is kept so that a killed run goes on."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseunet.errors import SparseUNetError, UnreadableFileError
from sparseunet.networks.checkpoint import read_checkpoint
from sparseunet.training.disk import write_whole
from sparseunet.training.epoch_sums import EpochSums
from sparseunet.workspace import CHECKPOINT_BEST

_SMOOTHING = 0.9
"""Weight of what was, in the running mean that chooses the best epoch (nnU-Net 2.8.1)."""


@dataclass(kw_only=True, slots=True)
class Best:
    """Which epoch was the best so far, by a running mean of the mean validation pseudo Dice."""

    running_mean: float | None = None
    """Running mean of the mean pseudo Dice; None until a class occurred in validation."""
    highest: float | None = None
    weights: dict[str, Tensor] | None = None
    """Weights of the best epoch, on the CPU, until they are written; then None."""
    step: int = 0
    """Number of optimiser steps done when the best epoch ended."""

    def consider(self, pseudo_dice: dict[str, float | None], state: "TrainingState") -> None:
        """Update with the validation of an epoch; classes that never occurred do not count."""
        values = [value for value in pseudo_dice.values() if value is not None]
        if not values:
            return
        mean, before = sum(values) / len(values), self.running_mean
        self.running_mean = (
            mean if before is None else _SMOOTHING * before + (1 - _SMOOTHING) * mean
        )
        if self.highest is None or self.running_mean > self.highest:
            self.highest, self.step = self.running_mean, state.step
            self.weights = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in state.network.state_dict().items()
            }


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything that changes while a network is trained."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scaler of the loss; does nothing unless training runs in float16."""
    step: int = 0
    """Optimiser steps done."""
    epochs: int = 0
    """Epochs that are finished and in the log."""
    epoch_sums: EpochSums = field(default_factory=EpochSums)
    """Sums over the training steps of the current epoch."""
    best: Best = field(default_factory=Best)


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Write tensors and numbers of the state; the old file stays until the new one is whole.

    Raises:
        SparseUNetError: The weights are not finite, or the disk is full; the old file stays.
    """
    weights = state.network.state_dict()
    _require_finite(weights, state.step, path)
    content = {
        "weights": weights,
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "epochs": state.epochs,
        "tally": state.epoch_sums.to_plain(),
        "best": {
            "running_mean": state.best.running_mean,
            "highest": state.best.highest,
            "step": state.best.step,
        },
    }
    write_whole(path, _serialise(content))


def save_weights(state: TrainingState, path: Path) -> None:
    """Write the weights and the step, for prediction; refused as by `save_checkpoint`."""
    weights = state.network.state_dict()
    _require_finite(weights, state.step, path)
    write_whole(path, _serialise({"weights": weights, "step": state.step}))


def save_best(state: TrainingState, path: Path) -> None:
    """Write the weights of the best epoch if they are not written yet."""
    if state.best.weights is not None:
        _require_finite(state.best.weights, state.best.step, path)
        content = {"weights": state.best.weights, "step": state.best.step}
        write_whole(path, _serialise(content))
        state.best.weights = None


def restore_checkpoint(state: TrainingState, path: Path) -> None:
    """Bring the state to where `save_checkpoint` left it.

    Raises:
        UnreadableFileError: The file is damaged or belongs to another network.
    """
    try:
        content = read_checkpoint(path)
        state.network.load_state_dict(content["weights"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scaler.load_state_dict(content["scaler"])
        state.step, state.epochs = int(content["step"]), int(content["epochs"])
        state.epoch_sums = EpochSums.from_plain(content["tally"])
        state.best = Best(**content["best"])
    except UnreadableFileError as error:
        found = error.problems[0].found
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        found = f"a checkpoint that does not fit this training ({error})"
    else:
        return
    best = path.with_name(CHECKPOINT_BEST)
    raise UnreadableFileError(
        file=str(path),
        found=found,
        expected="the checkpoint this run wrote",
        fix="restore it from a copy, or remove it to train again from the first step"
        + (f"; {best.name} beside it can still predict" * best.is_file()),
    )


def checkpoint_bytes(state: TrainingState) -> int:
    """Return about how large a checkpoint of this state will be, once it has momentum."""
    return 2 * sum(tensor.nbytes for tensor in state.network.state_dict().values())


def _serialise(content: dict[str, Any]) -> memoryview:
    # In memory first: torch's own writer hides why a write failed.
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getbuffer()


def _require_finite(weights: dict[str, Tensor], step: int, path: Path) -> None:
    wrong = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise SparseUNetError(
            f"After step {step} {len(wrong)} of {len(weights)} weight tensors are not finite "
            f"({wrong[0]}, ...); {path.name} is left as it was. Train in float32 or with a "
            "lower learning rate.",
            setting="precision",
        )
