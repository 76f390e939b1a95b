"""Take drawings back from annotators into a raw dataset to train on.

Takes the folder of export_annotation, another nnU-Net dataset with an ignore label, or a folder of
label files named after their cases. Slices count as annotated if something was drawn on them or if
they were ticked off; all other voxels get the ignore value. An output that exists gets another
round of annotation. Exit code 2, with every problem of every case, if anything does not fit.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace

if TYPE_CHECKING:
    from sparseunet.annotation.exchange.import_annotation import ImportSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `import_annotation`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what annotators returned")
    parser.add_argument(
        "-d",
        "--dataset",
        required=True,
        metavar="DATASET",
        help="id, name or path of the dataset that was exported",
    )
    parser.add_argument(
        "--plan", required=True, type=Path, metavar="FILE", help="annotation_plan.json"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="NAME",
        help="name (DatasetXXX_Name) or path of the raw dataset to make or to add to",
    )
    parser.add_argument(
        "--planned-are-done",
        action="store_true",
        help="take every planned slice of the returned cases for annotated, empty ones too",
    )
    parser.add_argument(
        "--on-conflict",
        choices=("refuse", "newest", "oldest"),
        default="refuse",
        help="who wins where a voxel was labelled differently before (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Add the drawings and print what came back of every case."""
    from sparseunet.annotation.annotation_plan import read_annotation_plan
    from sparseunet.annotation.exchange.import_annotation import import_annotation
    from sparseunet.data.load import load_dataset

    workspace = resolve_workspace(arguments.workspace)
    summary = import_annotation(
        load_dataset(workspace.raw_dataset(arguments.dataset), needs_labels=False),
        plan=read_annotation_plan(arguments.plan),
        returned=arguments.folder,
        folder=workspace.raw_dataset_to_extend(arguments.output),
        planned_are_done=arguments.planned_are_done,
        on_conflict=arguments.on_conflict,
    )
    print(_table(summary))
    print(_verdict(summary))
    return 0


def _table(summary: "ImportSummary") -> str:
    from sparseunet.annotation.exchange.views import AXIS_NAMES

    width = max([len(view.case) for view in summary.views] + [4])
    lines = [f"{'case':<{width}}  axis  planned  done  empty  extra  missing"]
    for view in summary.views:
        lines.append(
            f"{view.case:<{width}}  {AXIS_NAMES[view.axis]:<4}  {len(view.planned):7d}  "
            f"{len(view.done):4d}  {len(view.empty):5d}  {len(view.extra):5d}  "
            f"{len(view.missing):7d}"
        )
        for name, slices in (("extra", view.extra), ("missing", view.missing)):
            if slices:
                lines.append(f"{'':<{width}}  {name}: {', '.join(map(str, slices))}")
    return "\n".join(lines)


def _verdict(summary: "ImportSummary") -> str:
    done = sum(len(view.done) for view in summary.views)
    planned = sum(len(view.planned) for view in summary.views)
    if summary.round is None:
        return f"{summary.folder}: nothing new, {done} of {planned} planned slices done"
    conflicts = (
        f"\n{summary.num_conflicts} voxels were labelled differently before"
        if summary.num_conflicts
        else ""
    )
    return (
        f"{summary.folder}: round {summary.round}, {done} of {planned} planned slices done, "
        f"{sum(len(view.extra) for view in summary.views)} more; "
        f"{len(summary.records.cases)} cases annotated so far{conflicts}"
    )
