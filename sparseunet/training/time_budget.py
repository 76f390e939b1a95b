"""A network, patch, batch and number of steps that this machine can train in a given time."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.planning.memory import count_feature_map_elements
from sparseunet.planning.overrides import (
    has_fixed_width,
    smaller_patches,
    with_base_features,
    with_batch_size,
)
from sparseunet.planning.plan import Configuration
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.recipe import Recipe
from sparseunet.training.state import TrainingState
from sparseunet.training.step import Hardware, train_step

logger = logging.getLogger(__name__)

_FEATURES = (8, 12, 16, 24, 32)
_MIN_STEPS = 1000
"""A smaller network is better than fewer steps than this (below it, classes stay unlearnt)."""
_STEPS_BEFORE_LARGER_BATCHES = 5000
_MIN_BATCH = 2
"""One patch anywhere and one that must hold a class: a batch of one has none of the second kind."""
_PATCH_TRIALS = 3
_USABLE = 0.85
"""Share of the budget that steps may take; the rest is for start, checkpoints and noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetedTraining:
    """The configuration and number of steps that fit into a time budget."""

    configuration: Configuration
    iterations: int
    step_s: float
    """Measured seconds per step."""


def fit_into_budget(
    configuration: Configuration,
    *,
    labels: LabelSchema,
    recipe: Recipe,
    hardware: Hardware,
    budget_s: float,
) -> BudgetedTraining:
    """Choose network, batch and number of steps so that training ends in time.

    The widest network (at most the planned one) that gets 1000 steps with a batch of two is taken.
    If not even the narrowest does, its patch is cut as planning cuts patches (`smaller_patches`),
    with the planner's network for the smaller patch, until it does: a step takes time in
    proportion to the feature maps, and what is chosen so is measured. If the smallest patch, half
    of the planned one along each axis, does not get 1000 steps either, it gets fewer. The batch
    grows, up to the planned one, once there is time for 5000 steps. Widths are measured from the
    narrowest up, one step to warm up and two to time; that time belongs to the budget.

    Raises:
        RequestError: Not even ten steps fit.
    """
    start = time.perf_counter()
    batch_size = min(_MIN_BATCH, configuration.batch_size)

    def measure(candidate: Configuration) -> float:
        batch = with_batch_size(candidate, batch_size)
        candidate_s = measure_step_s(batch, labels, recipe, hardware) / batch_size
        logger.info(
            "%d base features, patch %s: %.3f s per patch",
            candidate.network.features_per_stage[0],
            candidate.patch_size,
            candidate_s,
        )
        return candidate_s

    def usable_s() -> float:
        return budget_s * _USABLE - (time.perf_counter() - start)

    enough_s = budget_s * _USABLE / (_MIN_STEPS * batch_size)
    chosen, patch_s = _widest_network_within(configuration, measure, enough_s)
    smaller_ones = smaller_patches(chosen)
    for _ in range(_PATCH_TRIALS):
        enough_s = usable_s() / (_MIN_STEPS * batch_size)
        if patch_s <= enough_s:
            break
        smaller = _first_within_cost(
            smaller_ones, chosen, labels.num_outputs, factor=enough_s / patch_s
        )
        if smaller is None:
            break
        chosen, patch_s = smaller, measure(smaller)
    left_s = usable_s()
    affordable = int(left_s / (_STEPS_BEFORE_LARGER_BATCHES * patch_s))
    batch_size = max(batch_size, min(configuration.batch_size, affordable))
    step_s = patch_s * batch_size
    if left_s / step_s < 10:
        raise RequestError(
            f"A budget of {budget_s / 60:.1f} minutes is too short on this machine: a step of the "
            f"narrowest network on the smallest patch takes {step_s:.2f} s. Give more minutes."
        )
    return BudgetedTraining(
        configuration=with_batch_size(chosen, batch_size),
        iterations=int(left_s / step_s),
        step_s=step_s,
    )


def _widest_network_within(
    configuration: Configuration, measure: Callable[[Configuration], float], enough_s: float
) -> tuple[Configuration, float]:
    """Return the widest network that takes at most `enough_s` per patch, else the narrowest."""
    if has_fixed_width(configuration):
        return configuration, measure(configuration)
    planned = configuration.network.features_per_stage[0]
    chosen, patch_s = configuration, math.inf
    # From narrow to wide, so that measuring costs little where there is little time.
    for width in sorted({*(width for width in _FEATURES if width < planned), planned}):
        candidate = with_base_features(configuration, width)
        candidate_s = measure(candidate)
        if candidate_s <= enough_s or math.isinf(patch_s):
            chosen, patch_s = candidate, candidate_s
        if candidate_s > enough_s:
            break
    return chosen, patch_s


def _first_within_cost(
    smaller_ones: Iterator[Configuration],
    configuration: Configuration,
    num_outputs: int,
    *,
    factor: float,
) -> Configuration | None:
    """Return the first that costs at most `factor` of `configuration`, else the last; or None."""

    def cost(candidate: Configuration) -> int:
        return count_feature_map_elements(
            candidate.network, candidate.patch_size, num_outputs=num_outputs
        )

    smaller = None
    for smaller in smaller_ones:
        if cost(smaller) <= factor * cost(configuration):
            break
    return smaller


def measure_step_s(
    configuration: Configuration, labels: LabelSchema, recipe: Recipe, hardware: Hardware
) -> float:
    """Return the mean seconds of a training step on an empty batch; two steps after one warm-up."""
    channels = num_input_channels(configuration, labels)
    network = build_network(
        configuration.network,
        num_input_channels=channels,
        num_outputs=labels.num_outputs,
        deep_supervision=True,
    ).to(hardware.device)
    state = TrainingState(
        network=network.train(),
        optimizer=new_optimizer(network, recipe),
        scaler=torch.amp.GradScaler(hardware.device.type, enabled=False),
    )
    objective = Objective(
        labels=labels, strides=configuration.network.strides, batch_dice=configuration.batch_dice
    )
    size = (configuration.batch_size, *configuration.patch_size)
    batch = Batch(
        image_BCZYX=torch.zeros(size[0], channels, *size[1:]),
        labels_BZYX=torch.zeros(size, dtype=torch.int64),
        weight_BZYX=torch.ones(size),
    )
    times_s = []
    for _ in range(3):
        start = time.perf_counter()
        train_step(state, batch, objective=objective, recipe=recipe, hardware=hardware)
        times_s.append(time.perf_counter() - start)
    return sum(times_s[1:]) / 2
