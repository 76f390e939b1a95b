"""The optimiser and its schedule."""

import torch
from torch import nn

from sparseunet.training.config import TrainingConfig


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the "poly" schedule: start · (1 - step / iterations) ** 0.9."""
    return config.learning_rate * (1 - step / config.iterations) ** 0.9


def new_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum (nnU-Net 2.8.1)."""
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
    )
