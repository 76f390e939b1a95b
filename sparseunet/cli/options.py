"""Flags that several verbs share."""

import argparse

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
