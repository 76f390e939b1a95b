"""What a recipe may name, without importing any of it: name to function, for every kind."""

import math
from collections.abc import Callable
from typing import Any

_LOSSES = "sparseunet.training.losses.named"
_CHAINS = "sparseunet.training.augmentation.chains"
_OPTIMISATION = "sparseunet.training.optimisation"

LOSSES: dict[str, str] = {
    "dice_ce": f"{_LOSSES}:dice_cross_entropy",
    "ce": f"{_LOSSES}:cross_entropy",
    "dice": f"{_LOSSES}:dice",
    "focal": f"{_LOSSES}:focal",
    "dice_focal": f"{_LOSSES}:dice_focal",
    "topk": f"{_LOSSES}:top_k",
    "dice_topk": f"{_LOSSES}:dice_top_k",
}
AUGMENTATIONS: dict[str, str] = {
    "nnunet": f"{_CHAINS}:nnunet_augmentation",
    "light": f"{_CHAINS}:light_augmentation",
    "z25": f"{_CHAINS}:z25_augmentation",
    "z20": f"{_CHAINS}:z20_augmentation",
    "none": f"{_CHAINS}:no_augmentation",
}
OPTIMIZERS: dict[str, str] = {
    "sgd": f"{_OPTIMISATION}:sgd",
    "adam": f"{_OPTIMISATION}:adam",
    "adamw": f"{_OPTIMISATION}:adamw",
}
SCHEDULES: dict[str, str] = {
    "poly": f"{_OPTIMISATION}:poly",
    "cosine": f"{_OPTIMISATION}:cosine",
    "step": f"{_OPTIMISATION}:step_decay",
    "constant": f"{_OPTIMISATION}:constant",
}
SAMPLERS: dict[str, str] = {"nnunet": "sparseunet.training.sampling:PatchSampler"}
CASE_WEIGHTINGS: dict[str, Callable[[int], float]] = {
    "uniform": lambda num_slices: 1.0,  # noqa: ARG005 - the others look at it
    "slices": float,
    "sqrt_slices": math.sqrt,
}
"""Name to how often a case is drawn, given the number of its annotated slices."""

Named = str | Callable[..., Any]
"""A name of these, `package.module:function`, or the function itself."""
