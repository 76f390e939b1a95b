"""A trained model on disk: `run.json` says what it is, checkpoints hold tensors only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseunet.artifacts import read_json
from sparseunet.data.formats import FORMATS
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.networks.weights import read_weights
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.workspace import (
    CHECKPOINT_BEST,
    CHECKPOINT_FINAL,
    RUN_JSON,
    fold_folder,
    is_plain_name,
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
    """One file of weights per fold, ours or nnU-Net's; an ensemble averages them."""
    previous_run: Path | None = None
    """Second stage of a cascade: folder of the first stage that it was trained behind."""
    origin: Path | None = None
    """The file that the run folder was unpacked from, if it was."""


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
    try:
        source = str(fold_folder(run_folder, folds[0]) / RUN_JSON)
        plan = plan_from_nnunet(description["plan"], source=source)
        configuration = plan.configurations[description["configuration"]]
        stage = configuration.previous_stage
        previous_id = description.get("previous_stage", {}).get("run_id")
        model = TrainedModel(
            run_folder=run_folder,
            run_id=description["run_id"],
            plan=plan,
            configuration=configuration,
            labels=parse_labels(description["dataset_json"]),
            dataset_json=description["dataset_json"],
            mirror_axes=tuple(description["training"]["mirror_axes"]),
            checkpoints=tuple(fold_folder(run_folder, fold) / checkpoint for fold in folds),
            previous_run=_beside(run_folder, stage, previous_id),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise RequestError(
            f"{fold_folder(run_folder, folds[0]) / RUN_JSON} does not describe a run as sparseunet "
            f"writes it: {type(error).__name__}: {error}."
        ) from None
    require_usable(model)
    return model


def require_usable(model: TrainedModel) -> None:
    """Refuse a description that no training writes: it may come from anywhere.

    Raises:
        RequestError: Names that lead out of a folder, an unknown file ending, channels that are
            not the plan's, or mirror axes that cannot be; lists all.
    """
    configuration = model.configuration
    names = [
        model.run_id,
        model.plan.dataset_name,
        model.plan.plans_name,
        configuration.name,
        configuration.previous_stage or "none",
    ]
    problems = [f"the name {name!r}" for name in names if not is_plain_name(name)]
    if model.dataset_json.get("file_ending") not in FORMATS:
        problems.append(f"the file ending {model.dataset_json.get('file_ending')!r}")
    channels = model.dataset_json.get("channel_names") or model.dataset_json.get("modality") or {}
    num_channels = len(configuration.normalization)
    if not isinstance(channels, dict) or len(channels) not in (0, num_channels):
        problems.append(f"the channels {channels!r} beside {num_channels} normalisations")
    if any(axis not in range(configuration.dimensions) for axis in model.mirror_axes):
        problems.append(f"the mirror axes {model.mirror_axes}")
    if problems:
        raise RequestError(f"{model.run_folder} describes no model: " + "; ".join(problems) + ".")


def _beside(run_folder: Path, stage: str | None, run_id: str | None) -> Path | None:
    """Return the folder of the first stage's run; None if it could lie anywhere else."""
    if not (stage and run_id and is_plain_name(stage) and is_plain_name(run_id)):
        return None
    return sibling_run(run_folder, stage, run_id)


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
    """Build the model's network with the weights of one fold, on the CPU, in evaluation mode.

    Raises:
        UnreadableFileError: The file is damaged, holds code, or does not fit the model's plan.
    """
    with torch.device("meta"):  # no memory is taken before the file is known to fill it
        network = build_network(
            model.configuration.network,
            num_input_channels=num_input_channels(model.configuration, model.labels),
            num_outputs=model.labels.num_outputs,
            deep_supervision=False,
        )
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(read_weights(checkpoint, shapes=shapes), assign=True)
    return network.eval()
