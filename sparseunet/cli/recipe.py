"""The flags that choose the recipe of a training, and what they make of it."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparseunet.cli.options import minutes
from sparseunet.errors import RequestError
from sparseunet.training.losses import LOSSES, load_loss

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.planning.plan import Configuration
    from sparseunet.preprocessing.case import Restoration
    from sparseunet.training.presets import Preset
    from sparseunet.training.recipe import Recipe

_RECIPE_FLAGS = (
    "learning_rate",
    "weight_decay",
    "momentum",
    "optimizer",
    "schedule",
    "poly_exponent",
    "decay_factor",
    "decay_every",
    "warmup",
    "loss",
    "case_weighting",
    "augmentation",
    "batch_dice",
    "foreground_share",
)
"""Flags that are fields of `Recipe`, by the same name."""


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare length and recipe; every field of `Recipe` that a person may choose."""
    length = parser.add_argument_group("length (default: 1000 epochs of 250 iterations)")
    length.add_argument("--iterations", type=int, help="steps of the whole training")
    length.add_argument("--epochs", type=int, help="number of epochs")
    length.add_argument("--iterations-per-epoch", type=int, help="steps per epoch")
    length.add_argument(
        "--time-budget",
        type=minutes,
        metavar="TIME",
        help="measure this machine and choose network, batch and iterations to end in time, e.g. "
        "30m or 2h",
    )
    recipe = parser.add_argument_group("recipe (default: the plan's, and nnU-Net's)")
    recipe.add_argument(
        "--preset",
        default="nnunet",
        metavar="NAME",
        help="a paper's network, patch, batch and recipe (z25-lits-2d, p23-unet, ...); other flags "
        "change them",
    )
    recipe.add_argument(
        "--architecture", metavar="NAME", help="another network than planned (segresnet, ...)"
    )
    recipe.add_argument("--batch-size", type=int, help="patches per step")
    recipe.add_argument(
        "--patch-size", type=int, nargs="+", metavar="N", help="voxels per axis, slowest first"
    )
    recipe.add_argument("--base-features", type=int, help="features at full resolution")
    recipe.add_argument(
        "--foreground-share",
        type=float,
        help="share of each batch that must hold a class of its case (default 0.33)",
    )
    recipe.add_argument(
        "--patch-shares",
        nargs="+",
        metavar="NAME=WEIGHT",
        help="how often a patch must hold a class, background, unannotated or rest (anywhere), "
        "e.g. liver=50 tumour=30 rest=20 (default: a third of each batch holds some class)",
    )
    recipe.add_argument(
        "--case-weighting",
        choices=("uniform", "slices", "sqrt_slices"),
        help="draw cases alike, or by the number of their annotated slices (default uniform)",
    )
    recipe.add_argument(
        "--loss",
        metavar="NAME",
        help=f"{', '.join(LOSSES)}, or package.module:function (default dice_ce)",
    )
    recipe.add_argument(
        "--class-weights",
        nargs="+",
        metavar="CLASS=WEIGHT",
        help="weights in the cross-entropy, e.g. background=0.04 tumour=1.4 (default: 1 each)",
    )
    recipe.add_argument(
        "--batch-dice",
        action=argparse.BooleanOptionalAction,
        help="one Dice over the whole batch, or one per patch (default: the plan's choice where "
        "every case is dense, else over the batch)",
    )
    recipe.add_argument(
        "--trust",
        nargs="+",
        metavar="SOURCE=WEIGHT",
        help="weights in the loss of manual, interpolated and pseudo labels, from 0 (as if not "
        "annotated) to 1, e.g. interpolated=0.5 pseudo=0.3 (default: 1 each)",
    )
    recipe.add_argument(
        "--augmentation",
        metavar="NAME",
        help="nnunet, light, z25, z20, none, or package.module:function (default nnunet)",
    )
    recipe.add_argument(
        "--mirror-axes",
        nargs="+",
        metavar="AXIS",
        help="axes of the patch to mirror, in prediction too, or none (default: all, without the "
        "left-right one where labels come in left/right pairs)",
    )
    recipe.add_argument("--seed", type=int, default=0, help="same seed, same weights (default 0)")
    _add_optimisation_arguments(parser)


def _add_optimisation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--learning-rate", type=float, help="at the start (default 0.01)")
    group.add_argument(
        "--optimizer",
        metavar="NAME",
        help="sgd (default), adam, adamw, or a function of yours as package.module:function",
    )
    group.add_argument("--weight-decay", type=float, help="(default 3e-5)")
    group.add_argument("--momentum", type=float, help="of sgd (default 0.99)")
    group.add_argument(
        "--schedule",
        metavar="NAME",
        help="of the learning rate: poly (default), cosine, step, constant, or a function of yours",
    )
    group.add_argument("--poly-exponent", type=float, help="of poly (default 0.9)")
    group.add_argument("--decay-factor", type=float, help="of step (default 0.7)")
    group.add_argument("--decay-every", type=int, help="of step, in iterations (default 2000)")
    group.add_argument(
        "--warmup", type=int, help="iterations over which the learning rate climbs (default 0)"
    )


def override_configuration(
    configuration: "Configuration", arguments: argparse.Namespace
) -> "Configuration":
    """Return the plan's configuration with what preset and flags change of it.

    Raises:
        RequestError: They do not fit the configuration or each other, or the network needs a
            package that is not installed.
    """
    from sparseunet.planning.architectures import require_extra
    from sparseunet.planning.overrides import (
        require_trainable,
        with_architecture,
        with_base_features,
        with_batch_size,
        with_patch_size,
        with_planned_patch,
    )

    preset = _preset(arguments, configuration)
    architecture = _first(arguments.architecture, preset.architecture)
    batch_size = _first(arguments.batch_size, preset.batch_size)
    if architecture is not None:
        configuration = with_architecture(configuration, architecture)
    if arguments.patch_size is not None:
        configuration = with_patch_size(configuration, arguments.patch_size)
    elif preset.patch_size is not None:
        configuration = with_planned_patch(configuration, preset.patch_size)
    if batch_size is not None:
        configuration = with_batch_size(configuration, batch_size)
    if arguments.base_features is not None:
        configuration = with_base_features(configuration, arguments.base_features)
    require_trainable(configuration)
    require_extra(configuration.network.architecture)
    return configuration


def recipe_from_arguments(
    arguments: argparse.Namespace,
    configuration: "Configuration",
    *,
    planned_iterations: int | None,
    labels: "LabelSchema",
    scans: "Iterable[Restoration]",
) -> "Recipe":
    """Return the recipe: of the preset, with what the flags change.

    Args:
        arguments: Of the command line.
        configuration: Of the plan, overrides applied.
        planned_iterations: Of a plan for a time; hold where neither flags nor preset say more.
        labels: The dataset's classes; where they come in left/right pairs, one axis is not
            mirrored, and a line is printed that says so.
        scans: How each training case was brought to the network's grid.

    Raises:
        RequestError: A value is out of its range, or the class weights do not fit the classes.
    """
    from sparseunet.training.augmentation import load_augmentation
    from sparseunet.training.recipe import DEFAULT_TRUST, Recipe

    preset = _preset(arguments, configuration)
    fields: dict[str, Any] = dict(preset.recipe)
    fields |= {
        name: getattr(arguments, name)
        for name in _RECIPE_FLAGS
        if getattr(arguments, name) is not None
    }
    length = _length(arguments, _first(fields.pop("iterations", None), planned_iterations))
    recipe = Recipe(
        **fields,
        **length,
        class_weights=_class_weights(arguments, preset, labels.classes),
        mirror_axes=_mirror_axes(arguments, configuration, labels, scans),
        patch_shares=_patch_shares(arguments.patch_shares),
        trust=DEFAULT_TRUST | _weights("--trust", arguments.trust or ()),
        seed=arguments.seed,
    )
    load_loss(recipe.loss)  # wrong names are refused before anything is written
    load_augmentation(recipe.augmentation)
    return recipe


def _length(arguments: argparse.Namespace, planned_iterations: int | None) -> dict[str, Any]:
    if arguments.iterations is not None and arguments.epochs is not None:
        raise RequestError("Give --iterations or --epochs, not both: each sets the whole length.")
    if arguments.time_budget is not None and (arguments.iterations or arguments.epochs):
        raise RequestError("--time-budget chooses the iterations; leave --iterations/--epochs out.")
    iterations = arguments.iterations
    if iterations is None and arguments.epochs is None and arguments.time_budget is None:
        iterations = planned_iterations
    per_epoch = arguments.iterations_per_epoch
    if per_epoch is None:
        per_epoch = 250 if iterations is None else max(1, min(250, iterations // 20))
    if iterations is None:
        iterations = (1000 if arguments.epochs is None else arguments.epochs) * per_epoch
    return {"iterations": iterations, "iterations_per_epoch": per_epoch}


def _class_weights(
    arguments: argparse.Namespace, preset: "Preset", classes: Mapping[str, int]
) -> dict[str, float]:
    from sparseunet.training.presets import named_class_weights

    if arguments.class_weights is not None:
        return _weights("--class-weights", arguments.class_weights)
    if preset.class_weights is None:
        return {}
    return named_class_weights(arguments.preset, preset.class_weights, classes)


def _preset(arguments: argparse.Namespace, configuration: "Configuration") -> "Preset":
    from sparseunet.training.presets import find_preset

    return find_preset(arguments.preset, dimensions=configuration.dimensions)


def _first(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _patch_shares(words: Sequence[str] | None) -> dict[str, float] | None:
    return None if words is None else _weights("--patch-shares", words)


def _weights(flag: str, words: Sequence[str]) -> dict[str, float]:
    """Return weights by name from words such as liver=0.25."""
    weights: dict[str, float] = {}
    for word in words:
        name, _, weight = word.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            name, value = "", 0.0
        if not name or name in weights:
            raise RequestError(
                f"{flag} takes NAME=WEIGHT once for each name, e.g. liver=0.25 background=0.04; "
                f"found {' '.join(words)}."
            )
        weights[name] = value
    return weights


def _mirror_axes(
    arguments: argparse.Namespace,
    configuration: "Configuration",
    labels: "LabelSchema",
    scans: "Iterable[Restoration]",
) -> tuple[int, ...]:
    from sparseunet.training.mirroring import choose_mirror_axes

    asked, dimensions = arguments.mirror_axes, configuration.dimensions
    if asked is None:
        choice = choose_mirror_axes(
            (*labels.classes, *labels.regions), scans, dimensions=dimensions
        )
        if choice.notice is not None:
            print(choice.notice)
        return choice.axes
    if asked == ["none"]:
        return ()
    known = [str(axis) for axis in range(dimensions)]
    if not set(asked) <= set(known):
        raise RequestError(
            f"--mirror-axes {' '.join(asked)}: expected axes of the {dimensions}D patch, from "
            f"{', '.join(known)}, or none."
        )
    return tuple(sorted({int(axis) for axis in asked}))
