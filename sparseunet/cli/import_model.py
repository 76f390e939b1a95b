"""Keep a trained model from elsewhere as a run, to predict with and to export.

MODEL is a model folder of nnU-Net 2 (Trainer__Plans__configuration with plans.json, dataset.json
and fold_0/checkpoint_final.pth), a zip file by nnUNetv2_export_model_to_zip, or a model file by
export_model. No code in it is ever run: weights are read as numbers, and a file that holds
anything else is refused. What the model says of its licence is printed.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_functions_argument
from sparseunet.errors import RequestError
from sparseunet.runs.find import parse_fold
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.networks.trained_model import TrainedModel

_DATASET_NAME = re.compile(r"Dataset\d{3}_[\w.+-]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `import_model`."""
    parser.add_argument("model", type=Path, help="model folder of nnU-Net, or a zip file")
    parser.add_argument(
        "-d",
        "--dataset",
        help="id or name of the dataset to keep it under; it need not be here (default: the one "
        "the model names)",
    )
    parser.add_argument(
        "-c",
        "--configuration",
        help="which model, where there are several: 2d, 3d_fullres, ..., or the name of its folder",
    )
    parser.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD", help="folds to keep (default: all there are)"
    )
    parser.add_argument(
        "--run", metavar="NAME", help="name of the run (default: made from the weights)"
    )
    add_functions_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the model, write the run, and say where it is."""
    from sparseunet.runs.exchange.find_models import choose_model, open_models
    from sparseunet.runs.exchange.import_model import import_model
    from sparseunet.runs.load import load_found_model

    workspace = resolve_workspace(arguments.workspace)
    with open_models(arguments.model, functions=arguments.functions) as models:
        found = choose_model(models, arguments.configuration)
        folds = tuple(map(parse_fold, arguments.folds or ())) or found.folds
        model = load_found_model(found, folds)
        name = _dataset_name(workspace, arguments.dataset, model)
        folder = import_model(
            found, folds, results=workspace.results_dataset(name), run=arguments.run
        )
    for key in ("licence", "license", "description", "reference"):
        if model.dataset_json.get(key):
            print(f"{key}: {model.dataset_json[key]}")
    print(
        f"Imported folds {' '.join(map(str, folds))}: {folder}\nPredict with: sparseunet predict "
        f"-i SCANS -o FOLDER -d {name} -c {model.configuration.name} --run {folder.name}"
    )
    return 0


def _dataset_name(workspace: Workspace, asked: str | None, model: "TrainedModel") -> str:
    """Return the dataset to keep a model under; it need not be here."""
    own = str(model.plan.dataset_name)
    named = asked or own
    if _DATASET_NAME.fullmatch(named):
        return named
    if asked is None:
        raise RequestError(
            f"The model names the dataset {own!r}; say with -d under which to keep it."
        )
    same_id = asked.isdecimal() and own.startswith(f"Dataset{int(asked):03d}_")
    if same_id and _DATASET_NAME.fullmatch(own):
        return own
    return workspace.dataset_name(asked)
