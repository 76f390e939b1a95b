"""Check a raw dataset, measure it, plan the networks for it and preprocess every case.

The same as extract_fingerprint (which checks), plan_experiment and preprocess one after the other.
What is up to date already is not done again. Exit code 2, with every problem listed, if the check
rejects.
"""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.plan_experiment import add_planner_arguments
from sparseunet.cli.preprocess import add_preprocessing_arguments

if TYPE_CHECKING:
    from sparseunet.annotation.interpolation.interpolate_dataset import FilledLabels
    from sparseunet.data.dataset import Dataset
    from sparseunet.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="ids, names or paths"
    )
    add_planner_arguments(parser)
    add_preprocessing_arguments(parser)
    parser.add_argument(
        "--verify-dataset-integrity",
        "--verify_dataset_integrity",
        action="store_true",
        help="nnU-Net's name for the check, which is on anyway",
    )
    parser.add_argument(
        "--clean", action="store_true", help="look at every case again, even if unchanged"
    )
    parser.add_argument(
        "--interpolate",
        metavar="METHOD",
        help="fill labels between annotated slices before preprocessing, as sparseunet interpolate "
        "does, in every configuration asked for; with auto only in 3D, and only where it is "
        "expected to help",
    )
    parser.add_argument("--no-pp", "--no_pp", action="store_true", help="stop before preprocessing")


def run(arguments: argparse.Namespace) -> int:
    """Prepare every dataset asked for; a rejected one does not keep the others from it."""
    results = [_prepare(name, arguments) for name in arguments.dataset]
    return max(results)


def _prepare(name: str, arguments: argparse.Namespace) -> int:
    from sparseunet.annotation.interpolation.interpolate_dataset import fill_labels
    from sparseunet.cli.extract_fingerprint import examine_and_tell
    from sparseunet.cli.interpolate import describe
    from sparseunet.cli.plan_experiment import plan_and_tell, planner_options
    from sparseunet.cli.preprocess import preprocess_and_tell
    from sparseunet.progress import format_duration

    start = time.monotonic()
    workspace = resolve_workspace(arguments.workspace)
    options = planner_options(arguments)
    folder = workspace.raw_dataset(name)
    examination = examine_and_tell(
        workspace, folder, num_workers=arguments.num_workers, redo=arguments.clean
    )
    dataset, fingerprint = examination.dataset, examination.fingerprint
    if dataset is None:
        return 2
    filled = None
    if arguments.interpolate is not None:
        filled = fill_labels(workspace, dataset, arguments.interpolate, arguments.num_workers)
        if filled is not None:
            print(f"{dataset.name}: {describe(filled.cases, filled.options)}")
    plan = plan_and_tell(workspace, dataset, fingerprint=fingerprint, **options)
    if not arguments.no_pp:
        for labelled, names in _label_sources(dataset, filled, plan, arguments.configuration):
            preprocess_and_tell(
                workspace, labelled, plan=plan, names=names, num_workers=arguments.num_workers
            )
    print(f"{dataset.name} is ready ({format_duration(time.monotonic() - start)})")
    return 0


def _label_sources(
    dataset: "Dataset",
    filled: "FilledLabels | None",
    plan: "Plan",
    names: Sequence[str] | None,
) -> list[tuple["Dataset", Sequence[str] | None]]:
    """Return which configurations are preprocessed with which labels."""
    if filled is None:
        return [(dataset, names)]
    if not filled.only_3d:
        return [(filled.dataset, names)]
    planned = plan.configurations
    flat = [
        name
        for name in names or planned
        if name not in planned or planned[name].dimensions == 2  # unknown ones are refused later
    ]
    deep = [name for name in names or planned if name not in flat]
    return [(labels, some) for labels, some in ((dataset, flat), (filled.dataset, deep)) if some]
