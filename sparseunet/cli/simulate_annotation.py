"""Hide most slices of a densely labelled dataset, to see what sparse annotation costs.

Writes a new raw dataset whose training label maps keep the chosen slices; all other voxels get the
ignore value. Test labels stay dense. annotation.json remembers which slices were kept.
"""

import argparse
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.annotation.simulate import SimulationSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `simulate_annotation`."""
    from sparseunet.annotation.selection import SELECTORS

    parser.add_argument(
        "-d", "--dataset", required=True, metavar="DATASET", help="id, name or path of the dataset"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="NAME",
        help="name (DatasetXXX_Name) or path of the new raw dataset",
    )
    parser.add_argument(
        "--density",
        type=float,
        required=True,
        metavar="SHARE",
        help="share of each volume's slices that stay annotated, above 0 and up to 1",
    )
    parser.add_argument(
        "--selector",
        default="fixed",
        metavar="NAME",
        help=f"how slices are chosen: {', '.join(SELECTORS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--axis",
        type=int,
        default=0,
        metavar="AXIS",
        help="slices lie across axis 0, 1 or 2 of (z, y, x) (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="for selectors that draw at random (default: %(default)s)",
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the sparse dataset and say what is left."""
    from sparseunet.annotation.simulate import simulate_annotation
    from sparseunet.data.load import load_dataset

    if arguments.num_workers < 1:
        raise RequestError(f"--num-workers must be 1 or more, found {arguments.num_workers}.")
    workspace = resolve_workspace(arguments.workspace)
    summary = simulate_annotation(
        load_dataset(workspace.raw_dataset(arguments.dataset)),
        density=arguments.density,
        selector=arguments.selector,
        axis=arguments.axis,
        seed=arguments.seed,
        folder=workspace.new_raw_dataset(arguments.output),
        num_workers=arguments.num_workers,
    )
    print(_describe(summary))
    return 0


def _describe(summary: "SimulationSummary") -> str:
    records = list(summary.records.cases.values())
    counts = [len(record.annotated_slices) for record in records]
    densities = [record.density for record in records]
    num_empty = sum(len(record.reviewed_empty_slices) for record in records)
    kept, total = summary.num_kept_slices, summary.num_slices
    return (
        f"{summary.folder}: {kept} of {total} slices kept ({kept / total:.1%}), "
        f"{num_empty} of them without any object\n"
        f"{len(records)} cases, each with {min(counts)} to {max(counts)} slices kept "
        f"({min(densities):.1%} to {max(densities):.1%})\n"
        f"hidden voxels have the ignore value {summary.ignore}"
    )
