"""Choose among cross-validated runs and ensembles of two, and say how to predict with the best.

Of each configuration the run that finished last counts, with every fold trained and validated. The
best is the one with the highest mean foreground Dice on validation cases. Ensembles of two are
tried where both kept probabilities (train --save-probabilities; the same command again makes them
for a finished fold). Where the references are dense, postprocessing is found out for the best.
Where they are sparse, only annotated voxels count and postprocessing cannot be estimated.

Writes best_configuration.json and .txt into results/DATASET, and postprocessing.json if it helps.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.cli.best_configuration import describe_choice, format_choice
from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.workspace import (
    BEST_CONFIGURATION_JSON,
    BEST_CONFIGURATION_TXT,
)

if TYPE_CHECKING:
    from sparseunet.runs.choose import Choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `find_best_configuration`."""
    parser.add_argument("dataset", help="id, name or path of the dataset")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="CONFIGURATION",
        help="that must all be complete (default: those of which some fold is trained; incomplete "
        "ones are named and left out)",
    )
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        type=int,
        metavar="FOLD",
        help="that must be complete (default: every fold of splits_final.json)",
    )
    parser.add_argument(
        "--run",
        nargs="+",
        default=[],
        metavar="ID",
        help="look at these runs only, also several of one configuration (default: of each "
        "configuration the complete one that finished last)",
    )
    parser.add_argument(
        "--no-ensembles", "--disable_ensembling", action="store_true", help="single runs only"
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Score all candidates on the same cases, choose, and write what was found."""
    from sparseunet.runs.choose import choose_configuration

    workspace = resolve_workspace(arguments.workspace)
    name = workspace.dataset_name(arguments.dataset)
    choice = choose_configuration(
        workspace,
        name,
        configurations=arguments.configurations,
        folds=arguments.folds,
        runs=arguments.run,
        with_ensembles=not arguments.no_ensembles,
        num_workers=arguments.num_workers,
    )
    _write(workspace.results_dataset(name), choice)
    return 0


def _write(results: Path, choice: "Choice") -> None:
    from sparseunet.postprocessing import write_postprocessing

    if choice.has_postprocessing and choice.postprocessing is not None:
        write_postprocessing(choice.postprocessing_file, choice.postprocessing)
    else:  # what an earlier choice left must not be applied to this one
        choice.postprocessing_file.unlink(missing_ok=True)
    write_json(results / BEST_CONFIGURATION_JSON, describe_choice(choice))
    text = "\n".join(format_choice(choice)) + "\n"
    with atomic_path(results / BEST_CONFIGURATION_TXT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {results / BEST_CONFIGURATION_JSON} and {BEST_CONFIGURATION_TXT}")
