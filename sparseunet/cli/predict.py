"""Segment new scans with a trained network.

Scans are CASE_0000.nii.gz, with one file per channel (_0000, _0001, ...); give folders or single
files. A DICOM scan is a folder with one series; give it, or the folder that holds such folders.
Every segmentation is CASE.nii.gz on the grid of its scan; --dicom-seg also writes CASE.dcm (DICOM).
Without --run the run that finished last is taken; without -f its network trained on every case, or
else all finished folds.

-m names any trained model: the folder of a run, a model folder of nnU-Net 2
(Trainer__Plans__configuration, with fold_0), or one file of either (export_model,
nnUNetv2_export_model_to_zip). No code in it is ever run.

The second stage of a cascade (3d_cascade_fullres) refines the segmentations of the first: those of
--previous-stage-predictions, or else the first stage that it was trained behind makes them now.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import (
    add_functions_argument,
    add_network_arguments,
    add_prediction_flags,
    prediction_options,
)
from sparseunet.errors import RequestError
from sparseunet.machine import available_memory_bytes
from sparseunet.runs.find import allowed_functions, find_runs, parse_fold

if TYPE_CHECKING:
    from sparseunet.networks.trained_model import TrainedModel

_SHARE_OF_MEMORY = 0.8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `predict`."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folders of scans, or files of scans",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="for the segmentations"
    )
    model = parser.add_argument_group("model: -d and -c, or -m")
    model.add_argument("-d", "--dataset", help="id or name of the dataset it was trained on")
    model.add_argument(
        "-c",
        "--configuration",
        help="2d, 3d_fullres, ...; with -m only where that holds several models",
    )
    model.add_argument("--run", metavar="ID", help="name of the run (default: the last finished)")
    model.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FOLDER_OR_FILE",
        help="folder of a run, model folder of nnU-Net, or a zip file of either",
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
        "--checkpoint",
        choices=("final", "best"),
        default="final",
        help="weights of the last step, or of the best epoch by its validation (default: final)",
    )
    model.add_argument(
        "-prev_stage_predictions",
        "--previous-stage-predictions",
        type=Path,
        metavar="FOLDER",
        help="3d_cascade_fullres: segmentations of the same scans by 3d_lowres (default: made now)",
    )
    add_functions_argument(model)
    how = parser.add_argument_group("how")
    add_network_arguments(how)
    add_prediction_flags(how, ("step", "precision", "compiles", "max_memory_gib"))
    parts = parser.add_argument_group("parts, for several GPUs or machines")
    parts.add_argument(
        "-num_parts",
        "--num-parts",
        type=int,
        default=1,
        metavar="N",
        help="predict every N-th scan only; others predict the rest (default: 1)",
    )
    parts.add_argument(
        "-part_id",
        "--part-id",
        type=int,
        default=0,
        metavar="I",
        help="which: 0 to N - 1 (default: 0)",
    )
    more = parser.add_argument_group("besides the segmentations")
    add_prediction_flags(more, ("save_probabilities", "uncertainty", "dicom_seg"))
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--continue",
        "--continue-prediction",
        "--continue_prediction",
        dest="continue_prediction",
        action="store_true",
        help="keep the segmentations that are in the output folder already",
    )
    there.add_argument(
        "--overwrite", action="store_true", help="replace those that are there already"
    )


def run(arguments: argparse.Namespace) -> int:
    """Find model and scans, predict, and say where the segmentations are."""
    from sparseunet.data.inputs import find_inputs
    from sparseunet.prediction.checks import describe_checks
    from sparseunet.workspace import prediction_cases_file

    options = prediction_options(arguments, max_memory_gib=_available_gib())
    num_parts, part = arguments.num_parts, arguments.part_id
    if not 0 <= part < num_parts:
        raise RequestError(
            f"There is no part {part} of {num_parts}; --part-id is 0 to --num-parts - 1."
        )
    with ExitStack() as stack:
        model, folds = stack.enter_context(_choose_model(arguments))
        scans = find_inputs(arguments.input, dataset_json=model.dataset_json)[part::num_parts]
        cases_json = prediction_cases_file(arguments.output, part=part, num_parts=num_parts)
        stack.callback(lambda: print(describe_checks(cases_json), end=""))
        written = _choose_stages(arguments, model, folds)(
            scans,
            output=arguments.output,
            options=options,
            existing=_existing(arguments),
            cases_json=cases_json.name,
        )
    print(f"{len(written)} segmentations in {arguments.output}")
    return 0


def _available_gib() -> float | None:
    available = available_memory_bytes()
    return None if available is None else _SHARE_OF_MEMORY * available / 2**30


def _existing(arguments: argparse.Namespace) -> Literal["refuse", "skip", "overwrite"]:
    if arguments.continue_prediction:
        return "skip"
    return "overwrite" if arguments.overwrite else "refuse"


def _choose_stages(
    arguments: argparse.Namespace, model: "TrainedModel", folds: Sequence[int | str]
) -> Callable[..., list[Path]]:
    """Return `predict` with its model: one network, or both stages of a cascade."""
    from sparseunet.prediction.both_stages import predict_both_stages
    from sparseunet.prediction.predict import predict
    from sparseunet.runs.load import load_previous_stage
    from sparseunet.workspace import previous_stage_folder

    given: Path | None = arguments.previous_stage_predictions
    configuration = model.configuration
    if configuration.previous_stage is None or given is not None:
        if given is not None and not given.is_dir():
            raise RequestError(f"{given} is no folder; expected segmentations of the first stage.")
        return partial(predict, model, previous_stage=given)
    first = load_previous_stage(model, folds)
    print(
        f"First stage: {first.run_folder}, folds {' '.join(map(str, folds))}, into "
        f"{previous_stage_folder(arguments.output, first.configuration.name)}; then "
        f"{configuration.name}"
    )
    return partial(predict_both_stages, first, model)


@contextmanager
def _choose_model(
    arguments: argparse.Namespace,
) -> Iterator[tuple["TrainedModel", tuple[int | str, ...]]]:
    """Give the model and its folds; what was unpacked of a file is there inside the block only."""
    from sparseunet.runs.exchange.find_models import choose_model, open_models
    from sparseunet.runs.load import load_found_model

    asked = tuple(dict.fromkeys(parse_fold(fold) for fold in arguments.folds or ()))
    place = _choose_place(arguments, asked)
    workspace = resolve_workspace(arguments.workspace)
    functions = allowed_functions(workspace, place, arguments.functions)
    with open_models(place, functions=functions) as models:
        found = choose_model(models, arguments.configuration if arguments.model else None)
        folds = asked or found.default_folds
        model = load_found_model(found, folds, best=arguments.checkpoint == "best")
        files = sorted({checkpoint.name for checkpoint in model.checkpoints})
        print(f"Model: {place}, folds {' '.join(map(str, folds))} ({', '.join(files)})")
        yield model, folds


def _choose_place(arguments: argparse.Namespace, folds: Sequence[int | str]) -> Path:
    if arguments.model is not None:
        if arguments.dataset or arguments.run:
            raise RequestError(
                "Give the model as -m FOLDER_OR_FILE, or as -d, -c (and --run); not both."
            )
        place: Path = arguments.model
        return place
    if not (arguments.dataset and arguments.configuration):
        raise RequestError("Say which model: -d DATASET -c CONFIGURATION, or -m FOLDER_OR_FILE.")
    workspace = resolve_workspace(arguments.workspace)
    found = find_runs(
        workspace,
        workspace.dataset_name(arguments.dataset),
        arguments.configuration,
        folds,
        run=arguments.run,
    )
    if len(found) > 1:
        others = ", ".join(folder.name for folder in found[1:])
        print(f"Took run {found[0].name}, which finished last; others (see --run): {others}")
    return found[0]
