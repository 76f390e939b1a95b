"""One optimiser step: forward, loss, backward, clip, step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sparseunet.errors import SparseUNetError
from sparseunet.networks.device import autocast
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import learning_rate_at
from sparseunet.training.processes import ALONE, Processes, with_value
from sparseunet.training.recipe import Recipe
from sparseunet.training.state import TrainingState

Outputs = Tensor | Sequence[Tensor]
"""Logits of every level, highest resolution first; or of the highest only."""

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
    processes: Processes = ALONE
    """That train one network together, each on its share of the batch."""
    compiles: bool = False
    """Whether the network is compiled: slow to start, faster on GPUs, other last bits."""
    num_parts: int = 1
    """Parts in which a share passes the network, one after another, for small memory."""


def train_step(
    state: TrainingState,
    batch: Batch,
    *,
    objective: Objective,
    recipe: Recipe,
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
        group["lr"] = learning_rate_at(state.step, recipe)
    batch = batch.to(hardware.device)
    state.optimizer.zero_grad(set_to_none=True)
    if hardware.num_parts == 1:
        part = _Part(batch=batch, seed=_seed(recipe, state.step, hardware.processes.rank))
        value, counts = _backward(state, part, objective=objective, hardware=hardware)
    else:
        value, counts = _backward_in_parts(
            state, batch, objective=objective, recipe=recipe, hardware=hardware
        )
    hardware.processes.sum_gradients(state.network)
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_(state.network.parameters(), recipe.gradient_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    return value, counts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Samples that pass the network together."""

    batch: Batch
    seed: int
    """Of what drops out of the network."""

    def outputs(self, state: TrainingState, hardware: Hardware) -> Outputs:
        torch.manual_seed(self.seed)
        with autocast(hardware.device, hardware.dtype):
            outputs: Outputs = state.network(self.batch.image_BCZYX)
        return outputs

    @property
    def known(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.batch.labels_BZYX, self.batch.weight_BZYX, self.batch.annotated_BK


def _backward(
    state: TrainingState, part: _Part, *, objective: Objective, hardware: Hardware
) -> tuple[float, Tensor]:
    """Add a part's share to the gradients; return loss and counts of the whole batch."""
    outputs = part.outputs(state, hardware)
    loss = objective.loss(outputs, *part.known)
    value = float(loss.detach())
    if not math.isfinite(value) and not _may_overflow(state):
        raise SparseUNetError(
            f"The loss became {value} at step {state.step + 1}; the last checkpoint is kept. Train "
            "in float32 or with a lower learning rate.",
            setting="precision",
        )
    state.scaler.scale(loss).backward()
    return value, objective.counts(outputs, *part.known)


def _backward_in_parts(
    state: TrainingState,
    batch: Batch,
    *,
    objective: Objective,
    recipe: Recipe,
    hardware: Hardware,
) -> tuple[float, Tensor]:
    """Do what `_backward` does for the whole batch, holding the feature maps of one part at a time.

    What the loss divides by is known only when all parts have passed. So they pass twice: first
    without gradient, for the sums over all of them and all processes, then with the gradient of
    what each part adds to these sums. So sums may not depend on the totals of earlier ones.
    """
    first = hardware.processes.rank * hardware.num_parts
    parts = [
        _Part(batch=part, seed=_seed(recipe, state.step, number))
        for number, part in enumerate(batch.parts(hardware.num_parts), start=first)
    ]
    sums: list[Tensor] = []
    with torch.no_grad():
        for part in parts:
            heard: list[Tensor] = []
            listening = replace(objective, total=partial(_note, heard))
            outputs = part.outputs(state, hardware)
            listening.loss(outputs, *part.known)
            listening.counts(outputs, *part.known)
            sums = [one + other for one, other in zip(sums, heard, strict=True)] if sums else heard
    sums = [objective.total(each) for each in sums]
    whole = 0.0, torch.empty(0)
    for part in parts:
        knowing = replace(objective, total=partial(_recall, iter(sums)))
        whole = _backward(state, part, objective=knowing, hardware=hardware)
    return whole


def _note(heard: list[Tensor], sums: Tensor) -> Tensor:
    heard.append(sums)
    return sums


def _recall(totals: Iterator[Tensor], sums: Tensor) -> Tensor:
    return with_value(sums, next(totals))


def _seed(recipe: Recipe, step: int, part: int) -> int:
    """Return a seed for dropout: a function of the step, so that interruptions change nothing.

    Parts differ, or the same places would drop out of all of them.
    """
    if part == 0:
        return ((recipe.seed << 32) + step) % 2**63
    state = np.random.SeedSequence([recipe.seed, step, part]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def _may_overflow(state: TrainingState) -> bool:
    """Whether float16 may be to blame: its scale starts at 2^16 and is halved at every overflow."""
    return state.scaler.is_enabled() and state.scaler.get_scale() > _SMALLEST_SCALE
