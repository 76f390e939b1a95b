"""Label what nobody annotated in a raw dataset with a model that was trained on what was.

Writes a new raw dataset: the same images, every manual label as it is, all other voxels labelled by
the model, and beside them provenanceTr (1 drawn by a person, 2 interpolated, 3 this model) and
confidenceTr (percent: the probability of the class that won, not calibrated). Cases without any
label are labelled too. completion.json says what was done, and how far the model agrees with the
manual labels before these were put back. Interrupted, the same command goes on.

The model is that of -d and -c (the run that finished last), or any other: -m.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import (
    add_functions_argument,
    add_network_arguments,
    prediction_options,
)
from sparseunet.cli.score_tables import align
from sparseunet.errors import RequestError
from sparseunet.runs.find import allowed_functions, find_runs, parse_fold, resolve_run
from sparseunet.workspace import COMPLETION_JSON, SPLITS_JSON, Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.runs.exchange.find_models import FoundModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `complete`."""
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
    model = parser.add_argument_group("model: -c, or -m")
    model.add_argument(
        "-c",
        "--configuration",
        help="2d, 3d_fullres, ... trained on the dataset; with -m only where that holds several "
        "models",
    )
    model.add_argument("--run", metavar="ID", help="name of the run (default: the last finished)")
    model.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="name or folder of a run, model folder of nnU-Net, or a zip file of either",
    )
    model.add_argument(
        "-f",
        "--folds",
        nargs="+",
        metavar="FOLD",
        help="folds to average: numbers, or all for the network trained on every case "
        "(default: all if trained, else every finished number)",
    )
    model.add_argument(
        "--out-of-fold",
        action="store_true",
        help="label each case with the folds that were not trained on it (default of -f then: "
        "every finished number)",
    )
    add_functions_argument(model)
    which = parser.add_argument_group("which labels")
    which.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="leave voxels unannotated whose label has a lower probability; whole percents, "
        "rounded down, are compared (default: %(default)s)",
    )
    which.add_argument(
        "--replace-interpolated",
        action="store_true",
        help="replace interpolated labels too (default: they stay, as manual ones always do)",
    )
    add_network_arguments(parser.add_argument_group("how"))


def run(arguments: argparse.Namespace) -> int:
    """Complete the dataset and say what it holds now."""
    from sparseunet.data.load import load_dataset
    from sparseunet.self_training.complete import CompletionOptions, complete_dataset
    from sparseunet.self_training.completed_case import FillingRules
    from sparseunet.self_training.completion_report import completion_remarks, completion_rows

    _check(arguments)
    workspace = resolve_workspace(arguments.workspace)
    dataset = load_dataset(workspace.raw_dataset(arguments.dataset), needs_labels=False)
    folder = workspace.new_raw_dataset(arguments.output)
    options = CompletionOptions(
        rules=FillingRules(
            min_confidence=arguments.min_confidence,
            replace_interpolated=arguments.replace_interpolated,
        ),
        out_of_fold=arguments.out_of_fold,
        prediction=prediction_options(arguments),
    )
    with _choose_model(arguments, workspace, dataset.name) as found:
        folds = tuple(parse_fold(fold) for fold in arguments.folds or ()) or _default_folds(
            found, out_of_fold=arguments.out_of_fold
        )
        print(f"Model: {found.origin}, folds {' '.join(map(str, folds))}", flush=True)
        content = complete_dataset(
            dataset,
            found,
            folds=folds,
            folder=folder,
            options=options,
            splits=_find_splits(workspace, dataset),
        )
    print("\n".join([*align(completion_rows(content)), *completion_remarks(content)]))
    print(f"{folder}: {len(dataset.cases)} cases; more in {COMPLETION_JSON}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    problems = []
    if not 0 <= arguments.min_confidence <= 1:
        problems.append(
            f"--min-confidence is a probability, 0 to 1; found {arguments.min_confidence:g}"
        )
    if arguments.model is None and arguments.configuration is None:
        problems.append("say which model: -c CONFIGURATION (trained on the dataset), or -m MODEL")
    if arguments.model is not None and arguments.run is not None:
        problems.append("--run has no effect with -m; leave one of them out")
    if problems:
        raise RequestError("; ".join(problems) + ".")


@contextmanager
def _choose_model(
    arguments: argparse.Namespace, workspace: Workspace, dataset_name: str
) -> Iterator["FoundModel"]:
    """Give the model; what was unpacked of a file is there inside the block only."""
    from sparseunet.runs.exchange.find_models import choose_model, open_models

    if arguments.model is None:
        folds = tuple(parse_fold(fold) for fold in arguments.folds or ())
        fitting = find_runs(
            workspace, dataset_name, arguments.configuration, folds, run=arguments.run
        )
        place = fitting[0]
        if len(fitting) > 1:
            others = ", ".join(folder.name for folder in fitting[1:])
            print(f"Took run {place.name}, which finished last; others (see --run): {others}")
    else:
        named = Path(arguments.model)
        place = named if named.exists() else resolve_run(workspace, arguments.model)
    functions = allowed_functions(workspace, place, arguments.functions)
    with open_models(place, functions=functions) as models:
        yield choose_model(models, arguments.configuration if arguments.model else None)


def _default_folds(found: "FoundModel", *, out_of_fold: bool) -> tuple[int | str, ...]:
    numbers = tuple(fold for fold in found.folds if isinstance(fold, int))
    return numbers if out_of_fold and numbers else found.default_folds


def _find_splits(workspace: Workspace, dataset: "Dataset") -> Path | None:
    """Return the folds that the dataset was trained with, or those of a person, if any."""
    places = (workspace.preprocessed_dataset(dataset.name), dataset.folder)
    files = (place / SPLITS_JSON for place in places)
    return next((file for file in files if file.is_file()), None)
