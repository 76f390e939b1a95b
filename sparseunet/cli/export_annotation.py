"""Hand planned slices out to annotators, in the form of the tool they draw in.

Writes a folder with a copy of every planned scan, a label file per scan (empty, or holding
predictions on the planned slices), work_list.csv to tick off, and contact sheets to print. Give it
away as it is, and bring it back with import_annotation.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace

if TYPE_CHECKING:
    from sparseunet.annotation.exchange.export import ExportSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `export_annotation`."""
    from sparseunet.annotation.exchange import TOOL_NAMES

    parser.add_argument(
        "-d", "--dataset", required=True, metavar="DATASET", help="id, name or path of the dataset"
    )
    parser.add_argument(
        "--plan", required=True, type=Path, metavar="FILE", help="annotation_plan.json"
    )
    parser.add_argument(
        "--format", required=True, choices=TOOL_NAMES, help="the tool that slices are drawn in"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FOLDER", help="new folder to give away"
    )
    parser.add_argument(
        "--prefill",
        type=Path,
        metavar="FOLDER",
        help="label maps CASE.ext, such as predictions, to start from on the planned slices",
    )
    parser.add_argument(
        "--single-slices",
        action="store_true",
        help="one small file per planned slice in place of whole scans",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from sparseunet.annotation.annotation_plan import read_annotation_plan
    from sparseunet.annotation.exchange.export import export_annotation
    from sparseunet.data.load import load_dataset
    from sparseunet.report.contact_sheet import draw_contact_sheets

    folder = resolve_workspace(arguments.workspace).raw_dataset(arguments.dataset)
    summary = export_annotation(
        load_dataset(folder, needs_labels=False),
        plan=read_annotation_plan(arguments.plan),
        tool=arguments.format,
        folder=arguments.output,
        prefill=arguments.prefill,
        single_slices=arguments.single_slices,
        draw_sheets=draw_contact_sheets,
    )
    print(_describe(summary))
    return 0


def _describe(summary: "ExportSummary") -> str:
    prefilled = f", {summary.num_prefilled} files prefilled" if summary.num_prefilled else ""
    return (
        f"{summary.folder}: {summary.num_slices} slices of {summary.num_cases} cases{prefilled}\n"
        f"draw in labels/, tick off slices in work_list.csv, then run import_annotation"
    )
