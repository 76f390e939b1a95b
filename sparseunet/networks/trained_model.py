"""A trained model on disk: `run.json` says what it is, checkpoints hold tensors only."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseunet.artifacts import read_json
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.workspace import (
    CHECKPOINT_BEST,
    CHECKPOINT_FINAL,
    RUN_JSON,
    fold_folder,
    sibling_run,
)

RUN_KIND = "sparseunet.run"
RUN_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """Everything prediction needs: how to preprocess, which network, which weights."""

    run_folder: Path
    run_id: str
    plan: Plan
    """With every override of the run (features, batch) applied."""
    configuration: Configuration
    labels: LabelSchema
    dataset_json: dict[str, Any]
    """The description of the training dataset."""
    mirror_axes: tuple[int, ...]
    """Spatial axes of a patch that were mirrored in training and may be mirrored in prediction."""
    checkpoints: tuple[Path, ...]
    """One file of weights per fold; an ensemble averages them."""
    previous_run_id: str | None = None
    """Second stage of a cascade: the run of the previous stage that it was trained behind."""


def load_trained_model(
    run_folder: Path, folds: Sequence[int | str], *, checkpoint: str = CHECKPOINT_FINAL
) -> TrainedModel:
    """Read what a run says about itself and find the weights of its folds.

    Raises:
        RequestError: A fold or its checkpoint is missing, or `run.json` is not one.
    """
    missing = [
        str(fold_folder(run_folder, fold) / checkpoint)
        for fold in folds
        if not (fold_folder(run_folder, fold) / checkpoint).is_file()
    ]
    if missing and checkpoint == CHECKPOINT_BEST:
        raise RequestError(
            f"There is no {', '.join(missing)}. A fold without validation cases, like all, has no "
            "best weights; take the final ones (--checkpoint final)."
        )
    if missing or not folds:
        raise RequestError(
            "No finished training for: "
            + (", ".join(missing) or f"{run_folder} (no fold given)")
            + ". Train these folds to the end, or ask for others with -f."
        )
    description = read_description(fold_folder(run_folder, folds[0]))
    plan = plan_from_nnunet(description["plan"])
    return TrainedModel(
        run_folder=run_folder,
        run_id=description["run_id"],
        plan=plan,
        configuration=plan.configurations[description["configuration"]],
        labels=parse_labels(description["dataset_json"]),
        dataset_json=description["dataset_json"],
        mirror_axes=tuple(description["training"]["mirror_axes"]),
        checkpoints=tuple(fold_folder(run_folder, fold) / checkpoint for fold in folds),
        previous_run_id=description.get("previous_stage", {}).get("run_id"),
    )


def load_previous_stage(model: TrainedModel, folds: Sequence[int | str]) -> TrainedModel:
    """Load the first stage that the second stage of a cascade was trained behind, same folds.

    Raises:
        RequestError: It is not beside the second stage, or these folds of it are not finished.
    """
    stage = model.configuration.previous_stage
    missing = f"the run of {model.run_folder} does not say which"
    if stage is not None and model.previous_run_id is not None:
        try:
            return load_trained_model(
                sibling_run(model.run_folder, stage, model.previous_run_id), folds
            )
        except RequestError as error:
            missing = str(error)
    raise RequestError(
        f"{model.configuration.name} refines segmentations of {stage}, whose network is not here: "
        f"{missing}\nPredict with {stage} where it is, and give the folder of its segmentations "
        "with --previous-stage-predictions."
    )


def read_description(folder: Path) -> dict[str, Any]:
    """Return what `run.json` in the folder of a fold says.

    Raises:
        RequestError: It is missing or does not describe a run.
    """
    description = read_json(folder / RUN_JSON)
    if not isinstance(description, dict) or description.get("kind") != RUN_KIND:
        raise RequestError(f"{folder / RUN_JSON} does not describe a run of sparseunet.")
    return description


def load_network(model: TrainedModel, checkpoint: Path) -> nn.Module:
    """Build the model's network with the weights of one fold, on the CPU, in evaluation mode."""
    network = build_network(
        model.configuration.network,
        num_input_channels=num_input_channels(model.configuration, model.labels),
        num_outputs=model.labels.num_outputs,
        deep_supervision=False,
    )
    content = read_checkpoint(checkpoint)
    try:
        network.load_state_dict(content["weights"])
    except (KeyError, RuntimeError) as error:
        raise UnreadableFileError(
            file=str(checkpoint),
            found=f"weights that do not fit the network of the plan ({error})",
            expected="the weights that this run trained",
            fix="restore the file or train again",
        ) from None
    return network.eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and numbers; no code in the file is ever run.

    Raises:
        UnreadableFileError: The file is truncated, not a checkpoint, or holds pickled code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFileError(
            file=str(path),
            found=f"an unreadable checkpoint ({reason})",
            expected="tensors written by sparseunet",
            fix="restore the file or train again",
        ) from None
    if not isinstance(content, dict):
        raise UnreadableFileError(
            file=str(path),
            found=f"a {type(content).__name__}",
            expected="tensors written by sparseunet",
            fix="restore the file or train again",
        )
    return content
