"""Bring every case on the grid of each network: crop, normalise, resample, store.

Cases whose files and settings have not changed since the last time are left as they are, and an
interrupted run goes on where it stopped. Also puts beside them what training needs: dataset.json,
the folds (an existing splits_final.json is kept; new cases are added to it) and the ground truth.
"""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.planning.plan import Plan
    from sparseunet.preprocessing.dataset import PreprocessingSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="ids, names or paths"
    )
    parser.add_argument(
        "-pl",
        "-plans_name",
        "--plans-name",
        default="nnUNetPlans",
        metavar="NAME",
        help="name of the plans file (default: %(default)s)",
    )
    add_preprocessing_arguments(parser)


def add_preprocessing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every verb that preprocesses."""
    parser.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        metavar="NAME",
        help="2d, 3d_fullres, ... (default: all that the plan has)",
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Preprocess every dataset asked for."""
    from sparseunet.artifacts import read_json
    from sparseunet.data.load import load_dataset
    from sparseunet.planning.nnunet_plans import plan_from_nnunet

    workspace = resolve_workspace(arguments.workspace)
    for name in arguments.dataset:
        dataset = load_dataset(workspace.raw_dataset(name))
        plans_file = workspace.plans_file(dataset.name, arguments.plans_name)
        if not plans_file.is_file():
            raise RequestError(
                f"{plans_file} does not exist. Run sparseunet plan_experiment -d {name} first, or "
                "name other plans with --plans-name."
            )
        preprocess_and_tell(
            workspace,
            dataset,
            plan=plan_from_nnunet(read_json(plans_file), source=str(plans_file)),
            names=arguments.configuration,
            num_workers=arguments.num_workers,
        )
    return 0


def preprocess_and_tell(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    plan: "Plan",
    names: Sequence[str] | None,
    num_workers: int,
) -> None:
    """Preprocess a dataset for some configurations and print what was done."""
    from sparseunet.preprocessing.prepare import preprocess
    from sparseunet.progress import format_duration

    start = time.monotonic()
    done = preprocess(workspace, dataset, plan=plan, names=names, num_workers=num_workers)
    for configuration, summary in done:
        print(_describe(summary, dataset))
        folder = workspace.preprocessed_dataset(dataset.name)
        print(f"  {folder / configuration.data_identifier}")
    print(f"{dataset.name}: preprocessed in {format_duration(time.monotonic() - start)}")


def _describe(summary: "PreprocessingSummary", dataset: "Dataset") -> str:
    unchanged = f", {summary.num_unchanged} unchanged" if summary.num_unchanged else ""
    text = f"{dataset.name} {summary.configuration}: {summary.num_cases} cases{unchanged}"
    if summary.num_partly_annotated_cases:
        text += f", {summary.num_partly_annotated_cases} annotated for some classes only"
    if summary.num_dense_cases == summary.num_cases:
        return f"{text}, all annotated densely"
    before, after = (
        " / ".join(map(str, counts))
        for counts in (summary.annotated_slices_before, summary.annotated_slices_after)
    )
    return (
        f"{text}, {summary.num_annotated_cases} annotated ({summary.num_dense_cases} densely), "
        f"{summary.annotated_share:.2%} of all voxels; slices with annotation along z / y / x: "
        f"{before} in the files, {after} on the network's grid"
    )
