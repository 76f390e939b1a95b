"""One optimiser step: forward, loss, backward, clip, step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseunet.errors import SparseUNetError
from sparseunet.networks.device import autocast
from sparseunet.training.config import TrainingConfig
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import learning_rate_at
from sparseunet.training.state import TrainingState

_SMALLEST_SCALE = 2.0**-20
"""Of the loss in float16; what overflows even then is not finite in any precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Where and how a training runs; the recipe does not depend on it."""

    device: torch.device
    dtype: torch.dtype | None
    """Autocast type, None for float32."""
    num_workers: int
    """Processes that make batches; 0 makes them in the main process."""


def train_step(
    state: TrainingState,
    batch: Batch,
    *,
    objective: Objective,
    config: TrainingConfig,
    hardware: Hardware,
) -> tuple[float, Tensor]:
    """Do one optimiser step.

    In float16 a loss that overflows is no fault: the scaler leaves the step out and scales less.

    Returns:
        The loss (in float16 perhaps not finite), and per foreground class the counts of true
        positive, false positive and false negative annotated voxels, shape (classes, 3).

    Raises:
        SparseUNetError: The loss is not finite, in float16 at any scale.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate_at(state.step, config)
    # A function of the step, so that dropout is the same in a training that was interrupted.
    torch.manual_seed(((config.seed << 32) + state.step) % 2**63)
    batch = batch.to(hardware.device)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(hardware.device, hardware.dtype):
        outputs = state.network(batch.image_BCZYX)
    loss = objective.loss(outputs, batch.labels_BZYX, batch.weight_BZYX, batch.annotated_BK)
    value = float(loss.detach())
    if not math.isfinite(value) and not _may_overflow(state):
        raise SparseUNetError(
            f"The loss became {value} at step {state.step + 1}; the last checkpoint is kept. Train "
            "with --precision float32 or a lower --learning-rate."
        )
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    counts = objective.counts(outputs, batch.labels_BZYX, batch.weight_BZYX, batch.annotated_BK)
    return value, counts


def _may_overflow(state: TrainingState) -> bool:
    """Whether float16 may be to blame: its scale starts at 2^16 and is halved at every overflow."""
    return state.scaler.is_enabled() and state.scaler.get_scale() > _SMALLEST_SCALE
