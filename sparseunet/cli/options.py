"""Flags that several verbs share."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from sparseunet.cli.environment import available_cpus
from sparseunet.cli.flags import FlagNames, add_flags, given_values
from sparseunet.prediction.options import PredictionOptions


def add_num_workers_argument(
    parser: argparse.ArgumentParser,
    what: str = "cases in memory at the same time, one per process",
) -> None:
    """Add `-np`: how much is done at the same time, with one for each processor by default."""
    parser.add_argument(
        "-np",
        "--num-workers",
        type=positive_integer,
        default=available_cpus(),
        metavar="N",
        help=f"{what} (default: as many as processors)",
    )


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    number = int(text) if text.lstrip("+-").isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return number


_MINUTES = {"": 1.0, "s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}
"""Unit of time to minutes."""


def minutes(text: str) -> float:
    """Read a time, in minutes if no unit is said: `30`, `30m`, `90min`, `1.5h`, `45s`.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    match = re.fullmatch(r"(-?[\d.]+(?:e-?\d+)?)\s*([a-z]*)", text.strip().lower())
    try:
        number, factor = (float(match[1]), _MINUTES[match[2]]) if match else (None, None)
    except (KeyError, ValueError):
        number, factor = None, None
    if number is None or factor is None:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 30m, 1.5h or 45s, found {text!r}"
        )
    return number * factor


def seconds(text: str) -> float:
    """Read a time as `minutes` does, and return it in seconds."""
    return 60 * minutes(text)


_SPELLING = FlagNames(
    flags={
        "device": ("-device", "--device"),
        "compiles": ("--compile",),
        "step": ("-step_size", "--step-size"),
        "num_workers": ("-np", "--num-workers"),
        "max_memory_gib": ("--max-memory",),
        "save_probabilities": ("--save-probabilities", "--save_probabilities"),
        "dicom_seg": ("--dicom-seg", "--dicom_seg"),
    },
    metavars={"device": "DEVICE", "step": "FRACTION", "max_memory_gib": "GIB"},
    readers={"num_workers": positive_integer},
    defaults={"max_memory_gib": "four fifths of what is available"},
)


def add_functions_argument(group: argparse._ActionsContainer) -> None:
    """Declare which functions a model from elsewhere may name."""
    group.add_argument(
        "--functions",
        nargs="+",
        default=(),
        metavar="MODULE:FUNCTION",
        help="networks and normalisations of yours that a model from elsewhere may name; nothing "
        "else that it names is imported",
    )


def add_network_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare how networks are applied, alike in every verb that segments."""
    group.add_argument(
        "--disable-tta",
        "--disable_tta",
        action="store_true",
        help="no mirrored passes: eight times (2D: four times) as fast, a little less accurate",
    )
    add_prediction_flags(group, ("device", "num_workers"))


def add_prediction_flags(group: argparse._ArgumentGroup, names: Sequence[str]) -> None:
    """Declare the flags of these fields of `PredictionOptions`."""
    add_flags(group, PredictionOptions, names, _SPELLING)


def prediction_options(arguments: argparse.Namespace, **others: Any) -> PredictionOptions:
    """Return what was asked for with the flags of the two functions above, and `others`."""
    given = given_values(arguments, PredictionOptions)
    return PredictionOptions(**others | given, mirror=not arguments.disable_tta)
