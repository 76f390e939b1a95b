"""Optimisers and schedules of the learning rate, by name.

An optimiser is a function of the parameters, the recipe, and whether torch may use its fused
kernels; a schedule is one of a step, the number of steps and the recipe, and returns the share of
the learning rate that is left. Functions of yours are named `package.module:function`.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sparseunet.named_functions import load_function
from sparseunet.training.choices import OPTIMIZERS, SCHEDULES
from sparseunet.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

_FUSED_ON = ("cpu", "cuda")


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step, counted from 0.

    It climbs linearly over the first `warmup` steps, the last of which has the full rate; the
    schedule runs over the steps that are left.
    """
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    schedule = load_function(recipe.schedule, SCHEDULES, what="schedule")
    left: float = schedule(step - recipe.warmup, recipe.num_iterations - recipe.warmup, recipe)
    return recipe.learning_rate * left


def poly(step: int, num_steps: int, recipe: Recipe) -> float:
    """Fall to 0 as (1 - step / steps) ** exponent, at every step (nnU-Net 2.8.1: per epoch)."""
    return float((1 - step / num_steps) ** recipe.poly_exponent)


def cosine(step: int, num_steps: int, recipe: Recipe) -> float:  # noqa: ARG001
    """Fall to 0 along half a cosine (Loshchilov 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * step / num_steps))


def step_decay(step: int, num_steps: int, recipe: Recipe) -> float:  # noqa: ARG001
    """Multiply by `decay_factor` every `decay_every` steps."""
    return float(recipe.decay_factor ** (step // recipe.decay_every))


def constant(step: int, num_steps: int, recipe: Recipe) -> float:  # noqa: ARG001
    """Return 1: the learning rate does not change."""
    return 1.0


def new_optimizer(network: "nn.Module", recipe: Recipe) -> "torch.optim.Optimizer":
    """Return the optimiser of the recipe, with torch's fused kernels where the device has them.

    Raises:
        RequestError: There is no optimiser or schedule of that name.
    """
    load_function(recipe.schedule, SCHEDULES, what="schedule")  # before the first step, not in it
    make = load_function(recipe.optimizer, OPTIMIZERS, what="optimiser")
    parameters = list(network.parameters())
    fused = all(parameter.device.type in _FUSED_ON for parameter in parameters)
    optimizer: torch.optim.Optimizer = make(parameters, recipe, fused=fused)
    return optimizer


def sgd(parameters: Iterable[Any], recipe: Recipe, *, fused: bool) -> "torch.optim.Optimizer":
    """Return stochastic gradient descent with Nesterov momentum (nnU-Net 2.8.1)."""
    import torch

    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=fused,
    )


def adam(parameters: Iterable[Any], recipe: Recipe, *, fused: bool) -> "torch.optim.Optimizer":
    """Return Adam (Kingma 2015) with betas 0.9 and 0.999; weight decay is added to gradients."""
    import torch

    return torch.optim.Adam(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
    )


def adamw(parameters: Iterable[Any], recipe: Recipe, *, fused: bool) -> "torch.optim.Optimizer":
    """Return AdamW (Loshchilov 2019): Adam whose weight decay acts on the weights themselves."""
    import torch

    return torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
    )
