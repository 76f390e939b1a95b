"""What changes while training runs, and how it is kept so that a killed run goes on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sparseunet.artifacts import atomic_path
from sparseunet.errors import UnreadableFileError
from sparseunet.networks.checkpoint import read_checkpoint


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """The moving parts of one training."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Does nothing unless training runs in float16."""
    step: int = 0
    """Optimiser steps done."""


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Write tensors and numbers of the state; the old file stays until the new one is whole."""
    content = {
        "weights": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def save_weights(state: TrainingState, path: Path) -> None:
    """Write the weights and the step, for prediction."""
    with atomic_path(path) as temporary:
        torch.save({"weights": state.network.state_dict(), "step": state.step}, temporary)


def restore_checkpoint(state: TrainingState, path: Path) -> None:
    """Bring the state to where `save_checkpoint` left it.

    Raises:
        UnreadableFileError: The file is damaged or belongs to another network.
    """
    content = read_checkpoint(path)
    try:
        state.network.load_state_dict(content["weights"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scaler.load_state_dict(content["scaler"])
        state.step = int(content["step"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise UnreadableFileError(
            file=str(path),
            found=f"a checkpoint that does not fit this training ({error})",
            expected="the checkpoint this run wrote",
            fix="remove the fold's folder to start it again",
        ) from None
