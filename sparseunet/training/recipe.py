"""What a person may choose about a training, with nnU-Net 2.8.1's values as defaults."""

import math
from dataclasses import dataclass, field

from sparseunet.errors import RequestError
from sparseunet.training.optimisation import OPTIMIZERS, SCHEDULES
from sparseunet.training.sampling import CASE_WEIGHTINGS

DEFAULT_TRUST: dict[str, float] = {"manual": 1.0, "interpolated": 1.0, "pseudo": 1.0}
"""Loss weight of each source of labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The recipe of one training. Two runs with equal recipe, plan and data are the same run."""

    iterations: int = 250_000
    """Optimiser steps of the whole training."""
    iterations_per_epoch: int = 250
    """Steps between two lines of the log, validations and checkpoints."""
    optimizer: str = "sgd"
    """Key of `sparseunet.training.optimisation.OPTIMIZERS`, or `package.module:function`."""
    learning_rate: float = 1e-2
    """At the start, or after the warm-up; `schedule` says how it falls."""
    momentum: float = 0.99
    """Of `sgd`, which is Nesterov's; `adam` and `adamw` do not use it."""
    weight_decay: float = 3e-5
    schedule: str = "poly"
    """Key of `sparseunet.training.optimisation.SCHEDULES`, or `package.module:function`."""
    poly_exponent: float = 0.9
    """Of `poly`: (1 - step / iterations) ** exponent."""
    decay_factor: float = 0.7
    """Of `step`: what the learning rate is multiplied by, every so many steps."""
    decay_every: int = 2000
    """Of `step`: steps between two decays."""
    warmup: int = 0
    """Steps over which the learning rate climbs from 0; the schedule runs over the rest."""
    gradient_norm: float = 12.0
    """Gradients are scaled down to this norm."""
    foreground_share: float = 0.33
    """Share of each batch whose patches must hold a voxel of a class present in the case."""
    patch_shares: dict[str, float] | None = None
    """By class, `background`, `unannotated` or `rest` (anywhere): the weight with which a patch
    must hold a voxel of it. In place of `foreground_share`; None for nnU-Net's rule."""
    case_weighting: str = "uniform"
    """How often each case is drawn: `uniform` (nnU-Net's rule), `slices` or `sqrt_slices`."""
    loss: str = "dice_ce"
    """Key of `sparseunet.training.losses.LOSSES`, or `package.module:function`."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """Weight of a class, background included, or of a region in the cross-entropy; others have
    1."""
    batch_dice: bool | None = None
    """None: the plan's choice where every case is dense, else True, because a class is missing from
    most small sets of annotated slices."""
    augmentation: str = "nnunet"
    """Key of `sparseunet.training.augmentation.AUGMENTATIONS`, or `package.module:function`."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Axes of the patch that are mirrored at random, and in prediction."""
    trust: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_TRUST))
    """Loss weight per source, in [0, 1]: `manual`, `interpolated`, `pseudo`."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "iterations_per_epoch", "decay_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if self.seed < 0:
            raise RequestError(f"The seed must be 0 or more, found {self.seed}.")
        for name, weight in self.class_weights.items():
            if not 0 <= weight < math.inf:
                raise RequestError(f"The weight of class {name} must be 0 or more, found {weight}.")
        if self.class_weights and self.loss == "dice":
            raise RequestError(
                "Class weights act on the cross-entropy, and the loss dice has none; leave them "
                "out or choose dice_ce."
            )
        self._check_trust()
        if not self.learning_rate > 0:
            raise RequestError(f"The learning rate must be positive, found {self.learning_rate}.")
        self._check_sampling()
        self._check_optimisation()

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one perhaps shorter."""
        return -(-self.iterations // self.iterations_per_epoch)

    def _check_trust(self) -> None:
        weights = self.trust.values()
        in_range = all(0 <= weight <= 1 for weight in weights) and any(weights)
        if self.trust.keys() != DEFAULT_TRUST.keys() or not in_range:
            told = " ".join(f"{source}={weight:g}" for source, weight in self.trust.items())
            raise RequestError(
                f"The trust of {', '.join(DEFAULT_TRUST)} must be weights from 0 to 1, one of them "
                f"above 0; found {told}."
            )

    def _check_sampling(self) -> None:
        if not 0 <= self.foreground_share <= 1:
            raise RequestError(
                f"The foreground share must be from 0 to 1, found {self.foreground_share}."
            )
        weights = None if self.patch_shares is None else self.patch_shares.values()
        if weights is not None and not (min(weights, default=-1) >= 0 < sum(weights) < math.inf):
            raise RequestError(
                "Patch shares must be weights of at least 0, one of them above it, found "
                f"{self.patch_shares}."
            )
        if self.case_weighting not in CASE_WEIGHTINGS:
            raise RequestError(
                f"Cases cannot be weighted by {self.case_weighting!r}; expected one of: "
                f"{', '.join(CASE_WEIGHTINGS)}."
            )

    def _check_optimisation(self) -> None:
        for what, name, known in (
            ("optimiser", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if name not in known and ":" not in name:
                raise RequestError(
                    f"There is no {what} {name!r}; choose from {', '.join(known)}, or name a "
                    "function of yours as package.module:function."
                )
        if not 0 <= self.momentum < 1:
            raise RequestError(f"The momentum must be in [0, 1), found {self.momentum}.")
        if self.weight_decay < 0 or self.poly_exponent < 0:
            raise RequestError(
                "Weight decay and the exponent of poly must be 0 or more, found "
                f"{self.weight_decay} and {self.poly_exponent}."
            )
        if not 0 < self.decay_factor <= 1:
            raise RequestError(f"The decay factor must be in (0, 1], found {self.decay_factor}.")
        if not 0 <= self.warmup < self.iterations:
            raise RequestError(
                f"The warm-up must be shorter than the training of {self.iterations} iterations, "
                f"found {self.warmup}."
            )
