"""Flags that several verbs share."""

import argparse
import re

from sparseunet.cli.environment import available_cpus


def add_num_workers_argument(parser: argparse.ArgumentParser) -> None:
    """Add `-np`: how many cases are in memory at the same time."""
    parser.add_argument(
        "-np",
        "--num-workers",
        type=positive_integer,
        default=available_cpus(),
        metavar="N",
        help="cases in memory at the same time, one per process (default: %(default)s)",
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


def add_network_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare how networks are applied, alike in every verb that segments."""
    group.add_argument(
        "--disable-tta",
        "--disable_tta",
        action="store_true",
        help="no mirrored passes: eight times (2D: four times) as fast, a little less accurate",
    )
    group.add_argument(
        "-device", "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default auto)"
    )
