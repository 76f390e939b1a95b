"""The flags that choose the recipe of a training, and what they make of it."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.planning.plan import Configuration
    from sparseunet.preprocessing.case import Restoration
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
        "--augmentation",
        metavar="NAME",
        default="nnunet",
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
    labels: "LabelSchema",
    scans: "Iterable[Restoration]",
) -> "TrainingConfig":
    """Return the recipe.

    Args:
        arguments: What was asked for.
        configuration: Network, patch and batch.
        planned_iterations: Those of a plan for a time; they hold where nothing is given.
        labels: The dataset's classes; where they come in left/right pairs, one axis is not
            mirrored, and a line is printed that says so.
        scans: How each training case was brought to the network's grid.
    """
    from sparseunet.training.augmentation import load_augmentation
    from sparseunet.training.config import TrainingConfig

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
    load_augmentation(arguments.augmentation)  # a name that does not exist is an error here
    given = {} if arguments.learning_rate is None else {"learning_rate": arguments.learning_rate}
    return TrainingConfig(
        iterations=iterations,
        iterations_per_epoch=per_epoch,
        augmentation=arguments.augmentation,
        mirror_axes=_mirror_axes(arguments, configuration, labels, scans),
        seed=arguments.seed,
        **given,
    )


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
