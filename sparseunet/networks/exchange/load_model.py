"""Load a trained model that was found, whoever trained it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sparseunet.errors import RequestError
from sparseunet.networks.exchange.find_models import FoundModel
from sparseunet.networks.exchange.nnunet_model import load_nnunet_model
from sparseunet.networks.trained_model import TrainedModel, load_trained_model
from sparseunet.workspace import CHECKPOINT_BEST, CHECKPOINT_FINAL, PLANS_JSON


def load_model(
    found: FoundModel, folds: Sequence[int | str], *, best: bool = False
) -> TrainedModel:
    """Read what a model says about itself and find the weights of its folds.

    Args:
        found: From `open_models`.
        folds: To average.
        best: Take the weights of the best epoch instead of those of the last step.

    Raises:
        RequestError: Folds are missing, or it cannot be used here; says why.
    """
    origin = found.origin if found.origin.is_file() else None
    return _load(found.folder, folds, origin=origin, best=best)


def load_previous_stage(model: TrainedModel, folds: Sequence[int | str]) -> TrainedModel:
    """Load the first stage that the second stage of a cascade was trained behind, same folds.

    Raises:
        RequestError: It is not beside the second stage, or these folds of it are not finished.
    """
    missing = f"the run of {model.run_folder} does not say which"
    if model.previous_run is not None:
        try:
            return _load(model.previous_run, folds, origin=model.origin)
        except RequestError as error:
            missing = str(error)
    stage = model.configuration.previous_stage
    raise RequestError(
        f"{model.configuration.name} refines segmentations of {stage}, whose network is not here: "
        f"{missing}\nPredict with {stage} where it is, and give the folder of its segmentations "
        "with --previous-stage-predictions."
    )


def _load(
    folder: Path, folds: Sequence[int | str], *, origin: Path | None, best: bool = False
) -> TrainedModel:
    if (folder / PLANS_JSON).is_file():
        return load_nnunet_model(folder, folds, origin=origin, best=best)
    checkpoint = CHECKPOINT_BEST if best else CHECKPOINT_FINAL
    return replace(load_trained_model(folder, folds, checkpoint=checkpoint), origin=origin)
