"""What a person may choose about a training, with nnU-Net 2.8.1's values as defaults."""

from dataclasses import dataclass, field

from sparseunet.errors import RequestError

DEFAULT_TRUST: dict[str, float] = {"manual": 1.0, "interpolated": 1.0, "pseudo": 1.0}
"""Loss weight of each source of labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The recipe of one training. Two runs with equal recipe, plan and data are the same run."""

    iterations: int = 250_000
    """Optimiser steps of the whole training."""
    iterations_per_epoch: int = 250
    """Steps between two lines of the log, validations and checkpoints."""
    learning_rate: float = 1e-2
    """At the start; falls to 0 as (1 - step / iterations) ** 0.9."""
    momentum: float = 0.99
    weight_decay: float = 3e-5
    gradient_norm: float = 12.0
    """Gradients are scaled down to this norm."""
    foreground_share: float = 0.33
    """Share of each batch whose patches must hold a voxel of a class present in the case."""
    batch_dice: bool | None = None
    """None: the plan's choice where every case is dense, else True, because a class is missing from
    most small sets of annotated slices."""
    augmentation: str = "nnunet"
    """Key of `sparseunet.training.augmentation.AUGMENTATIONS`, or `package.module:function`."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Axes of the patch that are mirrored at random, and in prediction."""
    trust: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_TRUST))
    """Loss weight per source: `manual`, `interpolated`, `pseudo`."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "iterations_per_epoch"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if self.seed < 0:
            raise RequestError(f"The seed must be 0 or more, found {self.seed}.")
        if not self.learning_rate > 0:
            raise RequestError(f"The learning rate must be positive, found {self.learning_rate}.")

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one perhaps shorter."""
        return -(-self.iterations // self.iterations_per_epoch)
