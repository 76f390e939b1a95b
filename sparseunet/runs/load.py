"""Load a trained model, whoever trained it: a run, a folder of nnU-Net, a file of either."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparseunet.data.load import parse_labels
from sparseunet.errors import RequestError
from sparseunet.named_functions import path_of
from sparseunet.networks.trained_model import (
    TrainedModel,
    hash_weights,
    require_named_functions,
    require_usable,
)
from sparseunet.prediction.loaded_model import LoadedModel, load_onto_device
from sparseunet.prediction.options import PredictionOptions
from sparseunet.runs.exchange.find_models import FoundModel, choose_model, open_models
from sparseunet.runs.exchange.nnunet_model import load_nnunet_model
from sparseunet.runs.record import read_record
from sparseunet.runs.run import Run
from sparseunet.workspace import (
    CHECKPOINT_BEST,
    CHECKPOINT_FINAL,
    PLANS_JSON,
    fold_folder,
    is_plain_name,
    sibling_run,
)


def load_model(
    place: str | Path | Run,
    *,
    folds: Sequence[int | str] = (),
    configuration: str | None = None,
    options: PredictionOptions | None = None,
    functions: Sequence[str | Callable[..., Any]] = (),
) -> LoadedModel:
    """Load a trained model once, to predict scan after scan, from files or from memory.

    Args:
        place: A run from `train`; or the folder of a run, model folder of nnU-Net 2, or a zip file
            of either, as `predict -m`.
        folds: To average: numbers, or `all` for the network trained on every case. None of them:
            `all` if trained, else every number.
        configuration: Which model, where the place holds several.
        options: Device, precision, mirroring, overlap, memory; None for the defaults.
        functions: Networks and normalisations of yours that the model may name; no other code that
            it names is ever imported.

    Raises:
        RequestError: There is no such model, or it cannot be used here, or it names a function that
            is not among `functions`.
        UnreadableFileError: A file is damaged, or refused as dangerous.
    """
    if isinstance(place, Run):
        folds = folds or (place.fold,)
        place = place.folder
    named = [path_of(function, what="function") for function in functions]
    with open_models(Path(place), functions=named) as models:
        found = choose_model(models, configuration)
        model = load_found_model(found, tuple(folds) or found.default_folds)
        if model.origin is not None:  # what was unpacked is gone after this block
            model = replace(model, weights_sha256=hash_weights(model))
        return load_onto_device(model, options or PredictionOptions())


def load_found_model(
    found: FoundModel, folds: Sequence[int | str], *, best: bool = False
) -> TrainedModel:
    """Read what a model says about itself and find the weights of its folds.

    Args:
        found: From `open_models`.
        folds: To average.
        best: Take the weights of the best epoch instead of those of the last step.

    Raises:
        RequestError: Folds are missing, or it cannot be used here, or it names a function that the
            user did not; says why.
    """
    origin = found.origin if found.origin.is_file() else None
    return _load(found.folder, folds, origin=origin, functions=found.functions, best=best)


def load_previous_stage(model: TrainedModel, folds: Sequence[int | str]) -> TrainedModel:
    """Load the first stage that the second stage of a cascade was trained behind, same folds.

    Raises:
        RequestError: It is not beside the second stage, or these folds of it are not finished.
    """
    missing = f"the run of {model.run_folder} does not say which"
    if model.previous_run is not None:
        try:
            return _load(model.previous_run, folds, origin=model.origin, functions=model.functions)
        except RequestError as error:
            missing = str(error)
    stage = model.configuration.previous_stage
    raise RequestError(
        f"{model.configuration.name} refines segmentations of {stage}, whose network is not here: "
        f"{missing}\nPredict with {stage} where it is, and give the folder of its segmentations.",
        setting="previous_stage_predictions",
    )


def load_trained_model(
    run_folder: Path,
    folds: Sequence[int | str],
    *,
    checkpoint: str = CHECKPOINT_FINAL,
    functions: Collection[str] | None = None,
) -> TrainedModel:
    """Read what a run of ours says about itself and find the weights of its folds.

    Args:
        run_folder: Of the run.
        folds: Finished ones.
        checkpoint: Name of the file of weights.
        functions: Functions of the user's, `package.module:function`, that the run may name and
            that are then imported; None, for runs of the user's own, allows any.

    Raises:
        RequestError: A fold or its checkpoint is missing, `run.json` is not one, or it names
            another function.
    """
    folders = [fold_folder(run_folder, fold) for fold in folds]
    missing = [
        str(folder / checkpoint) for folder in folders if not (folder / checkpoint).is_file()
    ]
    if missing and checkpoint == CHECKPOINT_BEST:
        raise RequestError(
            f"There is no {', '.join(missing)}. A fold without validation cases, like all, has no "
            "best weights; take the final ones.",
            setting="checkpoint",
        )
    if missing or not folds:
        raise RequestError(
            "No finished training for: "
            + (", ".join(missing) or f"{run_folder} (no fold given)")
            + ". Train these folds to the end, or ask for others.",
            setting="folds",
        )
    record = read_record(folders[0])
    model = TrainedModel(
        run_folder=run_folder,
        run_id=record.run_id,
        plan=record.plan,
        configuration=record.configuration,
        labels=parse_labels(record.dataset_json),
        dataset_json=record.dataset_json,
        mirror_axes=record.mirror_axes,
        checkpoints=tuple(folder / checkpoint for folder in folders),
        previous_run=_beside(
            run_folder,
            record.configuration.previous_stage,
            (record.previous_stage or {}).get("run_id"),
        ),
        functions=functions,
    )
    require_usable(model)
    require_named_functions(model)
    return model


def _load(
    folder: Path,
    folds: Sequence[int | str],
    *,
    origin: Path | None,
    functions: Collection[str] | None,
    best: bool = False,
) -> TrainedModel:
    if (folder / PLANS_JSON).is_file():
        model = load_nnunet_model(folder, folds, origin=origin, best=best)
        model = replace(model, functions=functions)
        require_named_functions(model)
        return model
    checkpoint = CHECKPOINT_BEST if best else CHECKPOINT_FINAL
    model = load_trained_model(folder, folds, checkpoint=checkpoint, functions=functions)
    return replace(model, origin=origin)


def _beside(run_folder: Path, stage: str | None, run_id: str | None) -> Path | None:
    """Return the folder of the first stage's run; None if it could lie anywhere else."""
    if not (stage and run_id and is_plain_name(stage) and is_plain_name(run_id)):
        return None
    return sibling_run(run_folder, stage, run_id)
