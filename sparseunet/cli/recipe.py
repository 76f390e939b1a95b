"""The flags that choose the recipe of a training, and what they make of it."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError
from sparseunet.training.losses import LOSSES, load_loss

if TYPE_CHECKING:
    from sparseunet.planning.plan import Configuration
    from sparseunet.training.config import TrainingConfig


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare length and recipe; every field of `TrainingConfig` that a person may choose."""
    length = parser.add_argument_group("length (default: 1000 epochs of 250 iterations)")
    length.add_argument("--iterations", type=int, help="steps of the whole training")
    length.add_argument("--epochs", type=int, help="number of epochs")
    length.add_argument("--iterations-per-epoch", type=int, help="steps per epoch")
    length.add_argument(
        "--time-budget",
        type=float,
        metavar="MINUTES",
        help="measure this machine and choose network, batch and iterations to end in time",
    )
    recipe = parser.add_argument_group("recipe (default: the plan's, and nnU-Net's)")
    recipe.add_argument("--batch-size", type=int, help="patches per step")
    recipe.add_argument(
        "--patch-size", type=int, nargs="+", metavar="N", help="voxels per axis, slowest first"
    )
    recipe.add_argument("--base-features", type=int, help="features at full resolution")
    recipe.add_argument("--learning-rate", type=float, help="at the start (default 0.01)")
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
        default="uniform",
        help="draw cases alike, or by the number of their annotated slices (default uniform)",
    )
    recipe.add_argument(
        "--loss",
        default="dice_ce",
        metavar="NAME",
        help=f"{', '.join(LOSSES)}, or package.module:function (default: %(default)s)",
    )
    recipe.add_argument(
        "--class-weights",
        nargs="+",
        default=(),
        metavar="CLASS=WEIGHT",
        help="weights in the cross-entropy, e.g. background=0.04 tumour=1.4 (default: 1 each)",
    )
    recipe.add_argument("--seed", type=int, default=0, help="same seed, same weights (default 0)")


def override_configuration(
    configuration: "Configuration", arguments: argparse.Namespace
) -> "Configuration":
    """Return the plan's configuration with what the flags change of network, patch and batch."""
    from sparseunet.planning.overrides import (
        with_base_features,
        with_batch_size,
        with_patch_size,
    )

    if arguments.patch_size is not None:
        configuration = with_patch_size(configuration, arguments.patch_size)
    if arguments.batch_size is not None:
        configuration = with_batch_size(configuration, arguments.batch_size)
    if arguments.base_features is not None:
        configuration = with_base_features(configuration, arguments.base_features)
    return configuration


def recipe_from_arguments(
    arguments: argparse.Namespace,
    configuration: "Configuration",
    *,
    planned_iterations: int | None,
) -> "TrainingConfig":
    """Return the recipe; `planned_iterations` of a plan for a time hold where nothing is given."""
    from sparseunet.training.config import TrainingConfig

    load_loss(arguments.loss)  # a wrong name is refused before anything is written
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
    given = {} if arguments.learning_rate is None else {"learning_rate": arguments.learning_rate}
    return TrainingConfig(
        iterations=iterations,
        iterations_per_epoch=per_epoch,
        mirror_axes=tuple(range(configuration.dimensions)),
        loss=arguments.loss,
        class_weights=_weights("--class-weights", arguments.class_weights),
        seed=arguments.seed,
        patch_shares=_patch_shares(arguments.patch_shares),
        case_weighting=arguments.case_weighting,
        **given,
    )


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
