"""A network, batch and number of steps that this machine can train in a given time."""

import logging
import math
import time
from dataclasses import dataclass

import torch

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.planning.overrides import with_base_features, with_batch_size
from sparseunet.planning.plan import Configuration
from sparseunet.training.config import TrainingConfig
from sparseunet.training.fit import Hardware, new_optimizer, train_step
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.state import TrainingState

logger = logging.getLogger(__name__)

_FEATURES = (8, 12, 16, 24, 32)
_MIN_STEPS = 1000
"""A smaller network is better than fewer steps than this (below it, classes stay unlearnt)."""
_STEPS_BEFORE_LARGER_BATCHES = 5000
_USABLE = 0.85
"""Share of the budget that steps may take; the rest is for start, checkpoints and noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetedTraining:
    """What fits into the time."""

    configuration: Configuration
    iterations: int
    step_s: float
    """Measured seconds per step."""


def fit_into_budget(
    configuration: Configuration,
    *,
    labels: LabelSchema,
    config: TrainingConfig,
    hardware: Hardware,
    budget_s: float,
) -> BudgetedTraining:
    """Choose network, batch and number of steps so that training ends in time.

    The widest network (at most the planned one) that gets 1000 steps with batch 2 is taken, or
    the narrowest with batch 1 if none does. The batch grows, up to the planned one, once there is
    time for 5000 steps. Widths are measured from the narrowest up, one step to warm up and two to
    time; that time belongs to the budget.

    Raises:
        RequestError: Not even ten steps fit.
    """
    start = time.perf_counter()
    planned = configuration.network.features_per_stage[0]
    batch_size = min(2, configuration.batch_size)
    chosen, patch_s = configuration, math.inf
    # From narrow to wide, so that measuring costs little where there is little time.
    for width in sorted({*(width for width in _FEATURES if width < planned), planned}):
        candidate = with_batch_size(with_base_features(configuration, width), batch_size)
        candidate_s = _measure_step(candidate, labels, config, hardware) / batch_size
        logger.info("%d base features: %.3f s per patch", width, candidate_s)
        enough = budget_s * _USABLE / (candidate_s * batch_size) >= _MIN_STEPS
        if enough or math.isinf(patch_s):
            chosen, patch_s = candidate, candidate_s
        if not enough:
            break
    usable_s = budget_s * _USABLE - (time.perf_counter() - start)
    if usable_s / (patch_s * batch_size) < _MIN_STEPS:
        batch_size = 1  # steps teach more than patches per step while there are so few
    affordable = int(usable_s / (_STEPS_BEFORE_LARGER_BATCHES * patch_s))
    batch_size = max(batch_size, min(configuration.batch_size, affordable))
    step_s = patch_s * batch_size
    if usable_s / step_s < 10:
        raise RequestError(
            f"A budget of {budget_s / 60:.1f} minutes is too short on this machine: a step of the "
            f"narrowest network takes {step_s:.2f} s. Give more minutes."
        )
    return BudgetedTraining(
        configuration=with_batch_size(chosen, batch_size),
        iterations=int(usable_s / step_s),
        step_s=step_s,
    )


def _measure_step(
    configuration: Configuration, labels: LabelSchema, config: TrainingConfig, hardware: Hardware
) -> float:
    channels = num_input_channels(configuration, labels)
    network = build_network(
        configuration.network,
        num_input_channels=channels,
        num_outputs=labels.num_outputs,
        deep_supervision=True,
    ).to(hardware.device)
    state = TrainingState(
        network=network.train(),
        optimizer=new_optimizer(network, config),
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
        train_step(state, batch, objective=objective, config=config, hardware=hardware)
        times_s.append(time.perf_counter() - start)
    return sum(times_s[1:]) / 2
