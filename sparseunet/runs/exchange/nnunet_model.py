"""Model folders of nnU-Net 2 (`Trainer__Plans__configuration`), to read and to write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparseunet.artifacts import atomic_path, read_json, write_json
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.errors import DatasetError, RequestError, UnreadableFileError
from sparseunet.named_functions import is_path
from sparseunet.networks.checkpoint import read_checkpoint
from sparseunet.networks.trained_model import TrainedModel, require_usable
from sparseunet.networks.weights import weights_to_nnunet
from sparseunet.planning.nnunet_plans import plan_from_nnunet, supports_architecture
from sparseunet.runs.exchange.archive import MAX_JSON_BYTES
from sparseunet.runs.record import read_record
from sparseunet.workspace import (
    CHECKPOINT_FINAL,
    DATASET_JSON,
    NNUNET_CHECKPOINTS,
    PLANS_JSON,
    fold_folder,
    nnunet_sibling,
)


def load_nnunet_model(
    folder: Path, folds: Sequence[int | str], *, origin: Path | None = None, best: bool = False
) -> TrainedModel:
    """Read what a model folder of nnU-Net 2 says about itself; nothing in it is run.

    As nnU-Net 2.8.1, the configuration and the axes to mirror come from the checkpoint of the first
    fold. `checkpoint_best.pth` is taken where there is no `checkpoint_final.pth`, and with `best`
    wherever it is.

    Raises:
        RequestError: The model does what we cannot (its network, normalisation, resampling), or
            files are missing, damaged or hold anything but numbers.
    """
    checkpoints = tuple(_checkpoint(folder, fold, best=best) for fold in folds)
    plans, dataset_json = (_read_small_json(folder / name) for name in (PLANS_JSON, DATASET_JSON))
    name, mirror_axes = _said_by_checkpoint(checkpoints[0])
    labels = _labels(dataset_json, folder / DATASET_JSON)
    try:
        plan = plan_from_nnunet(plans, source=str(folder / PLANS_JSON), only=[name])
        configuration = plan.configurations[name]
        stage = configuration.previous_stage
        model = TrainedModel(
            run_folder=folder,
            run_id=folder.name,
            plan=plan,
            configuration=configuration,
            labels=labels,
            dataset_json=dataset_json,
            mirror_axes=mirror_axes,
            checkpoints=checkpoints,
            previous_run=None if stage is None else nnunet_sibling(folder, stage),
            origin=origin,
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{folder} does not describe a model as nnU-Net writes it: {type(error).__name__}: "
            f"{error}."
        ) from None
    require_usable(model)
    return model


def write_nnunet_model(run_folder: Path, folds: Sequence[int | str], folder: Path) -> None:
    """Write folds of a run of ours as a model folder that nnU-Net 2.8.1 predicts with.

    Args:
        run_folder: Of the run.
        folds: Finished folds.
        folder: `nnUNetTrainer__Plans__configuration`, new.

    Raises:
        RequestError: The network or a normalisation is none of nnU-Net's.
    """
    for fold in folds:
        record = read_record(fold_folder(run_folder, fold))
        plans, name = record.content["plan"], record.configuration.name
        if not supports_architecture(plans["configurations"][name]):
            raise RequestError(f"The network of {run_folder} is none of nnU-Net's.")
        own = [scheme for scheme in record.configuration.normalization if is_path(scheme)]
        if own:
            raise RequestError(
                f"The normalisation of {run_folder} is none of nnU-Net's: {', '.join(own)}."
            )
        weights = read_checkpoint(fold_folder(run_folder, fold) / CHECKPOINT_FINAL)["weights"]
        dataset_json = record.dataset_json
        content = {
            "network_weights": weights_to_nnunet(weights),
            "trainer_name": "nnUNetTrainer",
            "init_args": {
                "plans": plans,
                "configuration": name,
                "fold": fold,
                "dataset_json": dataset_json,
            },
            "inference_allowed_mirroring_axes": record.mirror_axes,
        }
        with atomic_path(fold_folder(folder, fold) / NNUNET_CHECKPOINTS[0]) as temporary:
            torch.save(content, temporary)
    write_json(folder / PLANS_JSON, plans)
    write_json(folder / DATASET_JSON, dataset_json)


def _read_small_json(path: Path) -> Any:
    """Read a JSON file that anybody may have written.

    Raises:
        RequestError: It is missing, no JSON, or larger than 64 MiB.
    """
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise RequestError(f"{path} has {path.stat().st_size} bytes; no description is so large.")
    return read_json(path)


def _labels(dataset_json: Any, path: Path) -> LabelSchema:
    """Return the classes that the description of a model declares.

    Raises:
        RequestError: It is no description, or declares none; names the file.
    """
    if not isinstance(dataset_json, dict):
        raise RequestError(
            f"{path} does not describe a model: found a JSON {type(dataset_json).__name__}, "
            "expected labels, channel_names and file_ending."
        )
    try:
        return parse_labels(dataset_json)
    except DatasetError as error:
        problems = [replace(problem, file=str(path)) for problem in error.problems]
        raise DatasetError(problems) from None


def _checkpoint(folder: Path, fold: int | str, *, best: bool) -> Path:
    for name in reversed(NNUNET_CHECKPOINTS) if best else NNUNET_CHECKPOINTS:
        path = fold_folder(folder, fold) / name
        if path.is_file():
            return path
    raise RequestError(
        f"{fold_folder(folder, fold)} holds neither {' nor '.join(NNUNET_CHECKPOINTS)}; ask for "
        "other folds.",
        setting="folds",
    )


def _said_by_checkpoint(path: Path) -> tuple[str, tuple[int, ...]]:
    """Return the name of the configuration and the axes that may be mirrored."""
    content = read_checkpoint(path, in_place=True)
    try:
        name = content["init_args"]["configuration"]
        axes = tuple(content.get("inference_allowed_mirroring_axes") or ())
    except (LookupError, TypeError):
        name, axes = None, ()
    if not isinstance(name, str) or not all(isinstance(axis, int) for axis in axes):
        raise UnreadableFileError(
            file=str(path),
            found="no configuration, or axes to mirror that are no numbers",
            expected="a checkpoint that nnU-Net 2 wrote",
            fix="restore the file or download it again",
        )
    return name, axes
