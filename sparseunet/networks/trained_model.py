"""A trained model on disk: `run.json` says what it is, checkpoints hold tensors only."""

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseunet.artifacts import hash_file
from sparseunet.data.formats import FORMATS
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.named_functions import is_path
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.networks.weights import read_weights
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.workspace import (
    is_plain_name,
)


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
    weights_sha256: tuple[str, ...] | None = None
    """Of the checkpoints, where they were read from a file that was unpacked for that only; None:
    they are hashed when somebody asks."""
    origin: Path | None = None
    """The file that the run folder was unpacked from, if it was."""
    functions: Collection[str] | None = None
    """Functions of the user's, `package.module:function`, that the model may name and that are
    then imported; None for any, in runs of the user's own."""


def hash_weights(model: TrainedModel) -> tuple[str, ...]:
    """Return the SHA-256 of the weights of every fold."""
    if model.weights_sha256 is not None:
        return model.weights_sha256
    return tuple(hash_file(path) for path in model.checkpoints)


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


def require_named_functions(model: TrainedModel) -> None:
    """Refuse a model that names a function which the user did not name; nothing is imported.

    Raises:
        RequestError: Says which functions, and how to allow them.
    """
    configuration = model.configuration
    wanted = [configuration.network.architecture, *configuration.normalization]
    unnamed = [
        name
        for name in dict.fromkeys(wanted)
        if is_path(name) and model.functions is not None and name not in model.functions
    ]
    if unnamed:
        raise RequestError(
            f"{model.run_folder} does not work without code that is not part of "
            f"sparseunet: {', '.join(unnamed)}. A model from elsewhere cannot decide what is run "
            f"here. If you know these functions and have them, name them: {' '.join(unnamed)}",
            setting="functions",
        )


def load_network(model: TrainedModel, checkpoint: Path) -> nn.Module:
    """Build the model's network with the weights of one fold, on the CPU, in evaluation mode.

    Raises:
        RequestError: The network is built by a function that the user did not name, or that cannot
            be imported.
        UnreadableFileError: The file is damaged, holds code, or does not fit the model's plan.
    """
    require_named_functions(model)
    users_own = is_path(model.configuration.network.architecture)
    # No memory is taken before the file is known to fill it. A function that the user trusts may
    # need real numbers, for buffers that are in no checkpoint.
    with nullcontext() if users_own else torch.device("meta"):
        network = build_network(
            model.configuration.network,
            num_input_channels=num_input_channels(model.configuration, model.labels),
            num_outputs=model.labels.num_outputs,
            deep_supervision=False,
        )
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(read_weights(checkpoint, shapes=shapes), assign=True)
    return network.eval()
