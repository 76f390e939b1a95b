"""Look for problems in a raw dataset: description, files, geometry, voxels and labels.

Every problem of every case is listed at once, each with what was found, what was expected and the
fix. Exit code 0 if the dataset can be used (warnings and notes included), 2 if it cannot.
"""

import argparse

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the dataset and the number of threads."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="a dataset folder, or the id or name of one in the workspace",
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the dataset, print the table and the verdict, and return 0 or 2."""
    from sparseunet.data.check import check_dataset

    folder = resolve_workspace(arguments.workspace).raw_dataset(arguments.folder)
    report = check_dataset(folder, num_workers=arguments.num_workers)
    print(report.format())
    return 0 if report.accepted else 2
