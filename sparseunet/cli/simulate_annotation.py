"""Hide most slices of a densely labelled dataset, to see what sparse annotation costs.

Writes a new raw dataset whose training label maps keep the chosen slices; all other voxels get the
ignore value. Test labels stay dense. annotation.json remembers which slices were kept. What is kept
is said by a plan of annotation (--plan), or by a density. For comparison, --kind leaves random
patches or scribbles in place of slices.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.annotation.spending import AXES, parse_axis
from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.annotation.sparse_copy import SimulationSummary
    from sparseunet.data.dataset import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `simulate_annotation`."""
    from sparseunet.annotation.selection import DEFAULT_SELECTOR, SELECTORS

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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--density",
        type=float,
        metavar="SHARE",
        help="share of each volume's slices that stay annotated, above 0 and up to 1; of its "
        "voxels with --kind patches",
    )
    what.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="annotation_plan.json: exactly its slices stay, across all its axes",
    )
    parser.add_argument(
        "--kind",
        default="slices",
        choices=("slices", "patches", "scribbles"),
        help="what stays: whole slices, random boxes, or strokes in the chosen slices "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--volume-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the volumes that keep any annotation, spread evenly (default: %(default)s)",
    )
    parser.add_argument(
        "--selector",
        default=DEFAULT_SELECTOR,
        metavar="NAME",
        help=f"how slices are chosen: {', '.join(SELECTORS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--axis",
        default="0",
        choices=tuple(map(str, AXES)),
        help="slices lie across axis 0, 1 or 2 of (z, y, x), the one of the largest median "
        "spacing (auto), all three, or another from scan to scan (alternate) "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="for everything that is drawn at random (default: %(default)s)",
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Write the sparse dataset and say what is left."""
    from sparseunet.data.load import load_dataset

    _check(arguments)
    workspace = resolve_workspace(arguments.workspace)
    dataset = load_dataset(workspace.raw_dataset(arguments.dataset))
    summary = _simulate(arguments, dataset, workspace.new_raw_dataset(arguments.output))
    print(_describe(summary, kind=arguments.kind))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse flags that would have no effect."""
    unused = []
    chosen = arguments.plan is not None
    if chosen and arguments.volume_share != 1:
        unused.append("--volume-share with --plan, which says which volumes are annotated")
    if arguments.kind == "patches" and (chosen or arguments.volume_share != 1):
        unused.append("--kind patches with --plan or --volume-share; give --density alone")
    if unused:
        raise RequestError("These do not go together: " + "; ".join(unused) + ".")


def _simulate(
    arguments: argparse.Namespace, dataset: "Dataset", folder: Path
) -> "SimulationSummary":
    from sparseunet.annotation.annotation_plan import read_annotation_plan
    from sparseunet.annotation.simulate import plan_for_density, simulate_annotation, simulate_plan
    from sparseunet.annotation.strokes import simulate_patches, simulate_scribbles

    num_workers = arguments.num_workers
    if arguments.kind == "patches":
        return simulate_patches(
            dataset,
            share=arguments.density,
            seed=arguments.seed,
            folder=folder,
            num_workers=num_workers,
        )
    choice: dict[str, Any] = {
        "density": arguments.density,
        "selector": arguments.selector,
        "axis": parse_axis(arguments.axis),
        "seed": arguments.seed,
        "volume_share": arguments.volume_share,
        "num_workers": num_workers,
    }
    if arguments.plan is None and arguments.kind == "slices":
        return simulate_annotation(dataset, folder=folder, **choice)
    if arguments.plan is None:
        plan = plan_for_density(dataset, **choice)
    else:
        plan = read_annotation_plan(arguments.plan)
    if arguments.kind == "scribbles":
        return simulate_scribbles(dataset, plan, folder=folder, num_workers=num_workers)
    return simulate_plan(dataset, plan, folder=folder, num_workers=num_workers)


def _describe(summary: "SimulationSummary", *, kind: str) -> str:
    records = list(summary.records.cases.values())
    counts = [sum(len(one.annotated_slices) for one in record.views) for record in records]
    num_empty = sum(len(one.reviewed_empty_slices) for record in records for one in record.views)
    kept, total = summary.num_kept_slices, summary.num_slices
    if kind == "slices":
        what = f"{kept} of {total} slices kept ({kept / total:.1%}), "
        what += f"{num_empty} of them without any object"
    else:
        what = f"{kind} in {kept} of {total} slices"
    lines = [f"{summary.folder}: {what}"]
    used = [count for count in counts if count]
    spread = f", each with {min(used)} to {max(used)} slices" if used else ""
    lines.append(f"{len(used)} of {len(records)} cases annotated{spread}")
    lines.append(
        f"{summary.annotated_share:.2%} of the voxels annotated; hidden voxels have the ignore "
        f"value {summary.ignore}"
    )
    return "\n".join(lines)
