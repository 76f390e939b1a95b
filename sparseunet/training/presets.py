"""The papers' trainings as a table: name to network, patch, batch and recipe.

What a paper does not say is marked "ours". Augmentation and the classes at patch centres are not
part of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparseunet.errors import RequestError


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The training of one network in a paper."""

    source: str
    """Where the paper states it, and which values the paper leaves open."""
    dimensions: int | None = None
    """Dimensions of the network, 2 or 3; None for any configuration."""
    architecture: str | None = None
    """Name of the architecture; None keeps the planned network."""
    patch_size: tuple[int, ...] | None = None
    """Voxels along (z, y, x); None keeps the planned patch."""
    batch_size: int | None = None
    class_weights: tuple[float, ...] | None = None
    """In the order of the label values: background, organ, tumour."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Recipe`."""


PRESETS: dict[str, Preset] = {
    "nnunet": Preset(source="nnU-Net 2.8.1: the plan's network and every default"),
    "z25-lits-2d": Preset(
        source="Zhang et al. 2025, table 2, LiTS17",
        dimensions=2,
        architecture="inception_unet",
        batch_size=16,
        class_weights=(0.04, 0.25, 1.4),
        recipe={
            "loss": "ce",
            "optimizer": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 1e-5,
            "schedule": "poly",
            "poly_exponent": 0.8,
            "iterations": 14_000,
        },
    ),
    "z25-dbc-2d": Preset(
        source="Zhang et al. 2025, table 2, DBC breast and FGT",
        dimensions=2,
        architecture="segformer_b3",
        batch_size=16,
        recipe={
            "loss": "ce",
            "optimizer": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 1e-2,
            "schedule": "poly",
            "poly_exponent": 0.8,
            "iterations": 12_000,
        },
    ),
    "z25-atlas-2d": Preset(
        source="Zhang et al. 2025, table 2, ATLAS",
        dimensions=2,
        architecture="cam_wnet",
        batch_size=16,
        recipe={
            "loss": "dice_ce",
            "enough_annotated": 0.0,
            "optimizer": "adamw",
            "learning_rate": 5e-5,
            "weight_decay": 1e-5,
            "schedule": "step",
            "decay_factor": 0.7,
            "decay_every": 2000,
            "iterations": 15_000,
        },
    ),
    "z25-lits-3d": Preset(
        source="Zhang et al. 2025, table 2, LiTS17. Patches of 128³ voxels are shrunk to 64³ "
        "there; here the patch is 64³ voxels of the plan's spacing. Nesterov's momentum is ours",
        dimensions=3,
        architecture="plain_unet",
        patch_size=(64, 64, 64),
        batch_size=24,
        class_weights=(0.04, 0.2, 1.0),
        recipe={
            "loss": "ce",
            "optimizer": "sgd",
            "learning_rate": 1e-2,
            "weight_decay": 1e-4,
            "momentum": 0.9,
            "schedule": "constant",
            "iterations": 18_000,
        },
    ),
    "z25-dbc-3d": Preset(
        source="Zhang et al. 2025, table 2, DBC breast and FGT (AdamW: its appendix G)",
        dimensions=3,
        architecture="segresnet",
        patch_size=(64, 128, 128),
        batch_size=24,
        recipe={
            "loss": "ce",
            "optimizer": "adamw",
            "learning_rate": 3e-4,
            "weight_decay": 1e-5,
            "schedule": "cosine",
            "iterations": 12_000,
        },
    ),
    "z25-atlas-3d": Preset(
        source="Zhang et al. 2025, table 2, ATLAS; with the architecture attention_unet its check "
        "(§4)",
        dimensions=3,
        architecture="unetr",
        patch_size=(64, 96, 96),
        batch_size=54,
        recipe={
            "loss": "dice_focal",
            "enough_annotated": 0.0,
            "optimizer": "adamw",
            "learning_rate": 1.5e-4,
            "weight_decay": 1e-6,
            "schedule": "step",
            "decay_factor": 0.7,
            "decay_every": 3000,
            "iterations": 15_000,
        },
    ),
    "z20-2d": Preset(
        source="Zheng et al. 2020, 2D base model. Network, batch (the plan's) and 20 000 "
        "iterations are ours",
        dimensions=2,
        architecture="plain_unet",
        recipe={
            "loss": "ce",
            "optimizer": "adam",
            "learning_rate": 5e-4,
            "weight_decay": 0.0,
            "schedule": "step",
            "decay_factor": 0.1,
            "decay_every": 10_000,
            "iterations": 20_000,
        },
    ),
    "z20-3d": Preset(
        source="Zheng et al. 2020, 3D base model. Patch, batch (the plan's) and 20 000 "
        "iterations are ours",
        dimensions=3,
        architecture="densevoxnet",
        patch_size=(64, 64, 64),
        recipe={
            "loss": "ce",
            "optimizer": "adam",
            "learning_rate": 5e-4,
            "weight_decay": 0.0,
            "schedule": "poly",
            "poly_exponent": 0.9,
            "iterations": 20_000,
        },
    ),
}
"""Name to preset; the three networks of Payer et al. (2023) follow."""

PRESETS |= {
    f"p23-{name}": Preset(
        source="Payer et al. 2023, §3.3, BraTS19: the network; all else is ours. FLARE21 and "
        f"MSD-Heart: with the architecture {resnext}",
        dimensions=2,
        architecture=architecture,
        batch_size=8,
        recipe={
            "loss": "dice_ce",
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "iterations": 5000,
        },
    )
    for name, architecture, resnext in (
        ("unet", "unet_resnet152", "unet_resnext101"),
        ("deeplabv3plus", "deeplabv3plus", "deeplabv3plus_resnext101"),
        ("manet", "manet", "manet_resnext101"),
    )
}


def find_preset(name: str, *, dimensions: int) -> Preset:
    """Return the preset for a configuration of so many dimensions.

    Raises:
        RequestError: There is none of that name, or it is for other dimensions.
    """
    if name not in PRESETS:
        raise RequestError(f"There is no preset {name!r}; choose from {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    if preset.dimensions not in (None, dimensions):
        fitting = [key for key, one in PRESETS.items() if one.dimensions in (None, dimensions)]
        raise RequestError(
            f"The preset {name} is for {preset.dimensions}D configurations, and this one is "
            f"{dimensions}D. Choose another configuration, or from {', '.join(fitting)}."
        )
    return preset


def named_class_weights(
    preset_name: str, weights: tuple[float, ...], classes: Mapping[str, int]
) -> dict[str, float]:
    """Return a preset's weights by the names of a dataset's classes, in order of label value.

    Args:
        preset_name: For the message.
        weights: One per class, background first.
        classes: Name to label value.

    Raises:
        RequestError: The dataset has another number of classes.
    """
    names = sorted(classes, key=lambda name: classes[name])
    if len(names) != len(weights):
        expected = " ".join(f"{name}=WEIGHT" for name in names)
        raise RequestError(
            f"The preset {preset_name} weighs {len(weights)} classes, background first: {weights}. "
            f"The dataset has {len(names)}: {', '.join(names)}. Give class weights: {expected}.",
            setting="class_weights",
        )
    return dict(zip(names, weights, strict=True))
