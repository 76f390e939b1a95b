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
"""Smallest loss scale in float16; a loss that overflows at it is not finite in any precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Where and how a training runs; the recipe does not depend on it."""

    device: torch.device
    dtype: torch.dtype | None
    """Autocast type, None for float32."""
    num_workers: int
    """Processes that make batches; 0 makes them in the main process."""
    processes: Processes = ALONE
    """Processes that train one network together, each on its share of the batch."""
    compiles: bool = False
    """Whether the network is compiled: slow to start, faster on GPUs, other last bits."""
    num_parts: int = 1
    """Parts into which a share of the batch is divided; they pass the network one by one, which
    needs less memory."""


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
    """Seed of the network's dropout."""

    def outputs(self, state: TrainingState, hardware: Hardware) -> Outputs:
        """Return the logits of these samples."""
        torch.manual_seed(self.seed)
        with autocast(hardware.device, hardware.dtype):
            outputs: Outputs = state.network(self.batch.image_BCZYX)
        return outputs

    @property
    def target(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Labels, weights and annotated channels: what the outputs are compared with."""
        return self.batch.labels_BZYX, self.batch.weight_BZYX, self.batch.annotated_BK


def _backward(
    state: TrainingState, part: _Part, *, objective: Objective, hardware: Hardware
) -> tuple[float, Tensor]:
    """Add a part's share to the gradients; return loss and counts of the whole batch."""
    outputs = part.outputs(state, hardware)
    loss = objective.loss(outputs, *part.target)
    value = float(loss.detach())
    if not math.isfinite(value) and not _may_overflow(state):
        raise SparseUNetError(
            f"The loss became {value} at step {state.step + 1}; the last checkpoint is kept. Train "
            "in float32 or with a lower learning rate.",
            setting="precision",
        )
    state.scaler.scale(loss).backward()
    return value, objective.counts(outputs, *part.target)


def _backward_in_parts(
    state: TrainingState,
    batch: Batch,
    *,
    objective: Objective,
    recipe: Recipe,
    hardware: Hardware,
) -> tuple[float, Tensor]:
    """Do what `_backward` does for the whole batch, holding the feature maps of one part at a time.

    A loss divides by sums over the whole batch (`Objective.total`), which are known only when all
    parts have passed. So every part passes twice: the first pass, without gradient, collects the
    sums; the second computes the loss with the sums of the whole batch in place of the part's own.
    The gradient of a sum stays that of the part, so the gradients of all parts add up to that of
    the whole batch. No sum may depend on the total of an earlier one, as that is unknown in the
    first pass.

    Example: the loss is a / b, w a weight of the network. The first of two parts has a = 3w, b = 2,
    the second a = 5w, b = 6, so the whole batch has 8w / 8. The first pass collects a = 8w and
    b = 8. In the second pass the loss is 8w / 8 in both parts; its gradient is 3/8 in the first and
    5/8 in the second, together 1, the gradient of the whole.

    Returns:
        Loss and counts of the whole batch, as `_backward`.
    """
    # 1. Divide this process' share; part numbers, and so seeds, differ between processes.
    first = hardware.processes.rank * hardware.num_parts
    parts = [
        _Part(batch=part, seed=_seed(recipe, state.step, number))
        for number, part in enumerate(batch.parts(hardware.num_parts), start=first)
    ]
    # 2. First pass: record every sum of every part, in the order in which it is computed, and add
    #    the parts up.
    sums: list[Tensor] = []
    with torch.no_grad():
        for part in parts:
            part_sums: list[Tensor] = []
            recorder = replace(objective, total=partial(_record_sum, part_sums))
            outputs = part.outputs(state, hardware)
            recorder.loss(outputs, *part.target)
            recorder.counts(outputs, *part.target)
            if sums:
                sums = [one + other for one, other in zip(sums, part_sums, strict=True)]
            else:
                sums = part_sums
    # 3. Add the processes up.
    sums = [objective.total(each) for each in sums]
    # 4. Second pass: the same sums in the same order take their values from the whole batch.
    #    Every part then gives loss and counts of the whole, so the last ones are returned.
    result = 0.0, torch.empty(0)
    for part in parts:
        whole_batch = replace(objective, total=partial(_next_sum, iter(sums)))
        result = _backward(state, part, objective=whole_batch, hardware=hardware)
    return result


def _record_sum(part_sums: list[Tensor], sums: Tensor) -> Tensor:
    """Append a sum to the list and return it unchanged."""
    part_sums.append(sums)
    return sums


def _next_sum(whole_sums: Iterator[Tensor], sums: Tensor) -> Tensor:
    """Return the next sum of the whole batch, with the gradient of the part's own sum."""
    return with_value(sums, next(whole_sums))


def _seed(recipe: Recipe, step: int, part: int) -> int:
    """Return a seed for dropout: a function of the step, so that interruptions change nothing.

    Parts differ, or the same places would drop out of all of them.
    """
    if part == 0:
        return ((recipe.seed << 32) + step) % 2**63
    state = np.random.SeedSequence([recipe.seed, step, part]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def _may_overflow(state: TrainingState) -> bool:
    """Return whether a loss that is not finite may be an overflow of float16.

    The scale of the loss starts at 2^16 and is halved at every overflow, down to `_SMALLEST_SCALE`.
    """
    return state.scaler.is_enabled() and state.scaler.get_scale() > _SMALLEST_SCALE
