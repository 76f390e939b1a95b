"""The flags that choose the recipe of a training, and what they make of it."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sparseunet.cli.flags import FlagNames, add_flags, given_values
from sparseunet.cli.options import minutes
from sparseunet.errors import RequestError
from sparseunet.training.recipe import Recipe

_LENGTH = ("iterations", "iterations_per_epoch")
_OPTIMISATION = (
    "learning_rate",
    "optimizer",
    "weight_decay",
    "momentum",
    "schedule",
    "poly_exponent",
    "decay_factor",
    "decay_every",
    "warmup",
    "gradient_norm",
)
_SPELLING = FlagNames(
    metavars={
        "class_weights": "CLASS=WEIGHT",
        "trust": "SOURCE=WEIGHT",
        "mirror_axes": "AXIS",
    },
    readers={"mirror_axes": str},  # or none
)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare length, network and recipe; every field of `Recipe` is a flag."""
    length = parser.add_argument_group("length (default: 1000 epochs of 250 iterations)")
    add_flags(length, Recipe, _LENGTH)
    length.add_argument("--epochs", type=int, metavar="N", help="number of epochs")
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
        "change them (default: nnunet)",
    )
    recipe.add_argument(
        "--architecture",
        metavar="NAME",
        help="another network than planned (segresnet, ...), or package.module:function",
    )
    recipe.add_argument("--batch-size", type=int, metavar="N", help="patches per step")
    recipe.add_argument(
        "--patch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels per axis, slowest first; the network stays as planned",
    )
    recipe.add_argument(
        "--base-features", type=int, metavar="N", help="features at full resolution"
    )
    apart = {*_LENGTH, *_OPTIMISATION}
    rest = [one.name for one in fields(Recipe) if one.name not in apart]
    add_flags(recipe, Recipe, rest, _SPELLING)
    add_flags(parser.add_argument_group("optimisation"), Recipe, _OPTIMISATION)


def given_recipe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `Recipe` that flags were given for.

    Raises:
        RequestError: Flags contradict each other, or their words are no values.
    """
    given = given_values(arguments, Recipe)
    if "mirror_axes" in given:
        given["mirror_axes"] = _read_axes(given["mirror_axes"])
    return given | _length(arguments)


def _length(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `--epochs` makes of the length."""
    if arguments.iterations is not None and arguments.epochs is not None:
        raise RequestError("Give --iterations or --epochs, not both: each sets the whole length.")
    if arguments.time_budget is not None and (arguments.iterations or arguments.epochs):
        raise RequestError("--time-budget chooses the iterations; leave --iterations/--epochs out.")
    if arguments.epochs is None:
        return {}
    per_epoch = Recipe(iterations_per_epoch=arguments.iterations_per_epoch).steps_per_epoch
    return {"iterations": arguments.epochs * per_epoch, "iterations_per_epoch": per_epoch}


def _read_axes(words: Sequence[str]) -> tuple[int, ...]:
    """Return axes from words such as `0 2`, or from `none`."""
    if list(words) == ["none"]:
        return ()
    if not all(word.isdigit() for word in words):
        raise RequestError(
            f"Found {' '.join(words)}; expected axes of the patch, from 0, or none.",
            setting="mirror_axes",
        )
    return tuple(sorted({int(word) for word in words}))
