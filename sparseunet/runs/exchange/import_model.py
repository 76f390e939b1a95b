"""Keep a trained model from elsewhere as a run of our own."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparseunet.artifacts import hash_content, hash_file
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel, load_network
from sparseunet.runs.exchange.find_models import FoundModel
from sparseunet.runs.load import load_found_model, load_previous_stage
from sparseunet.runs.record import RunRecord, read_record, write_record
from sparseunet.version import package_version
from sparseunet.workspace import CHECKPOINT_FINAL, fold_folder, folds_of, is_plain_name


def import_model(
    found: FoundModel, folds: Sequence[int | str], *, results: Path, run: str | None = None
) -> Path:
    """Write folds of a model as a run of ours: `run.json` and weights as plain tensors.

    A second stage of a cascade brings its first stage with it, if that is beside it. Weights are
    checked against the network of the model's plan before anything is written; the folder appears
    whole or not at all.

    Args:
        found: From `open_models`; nnU-Net's or ours.
        folds: To import, at least one.
        results: Folder of all runs on a dataset.
        run: Name of the new run; None for the name it had here, or for one made from its weights.

    Returns:
        The folder of the run.

    Raises:
        RequestError: The model cannot be used here, or the run exists already.
    """
    if run is not None and not is_plain_name(run):
        raise RequestError(f"{run!r} is no name of a folder.")
    model = load_found_model(found, folds)
    previous = None
    if model.previous_run is not None and model.previous_run.is_dir():
        first = load_previous_stage(model, folds)
        previous = _keep(first, folds, found, results=results, run=None, may_exist=True)
    return _keep(model, folds, found, results=results, run=run, previous=previous, may_exist=False)


def _keep(
    model: TrainedModel,
    folds: Sequence[int | str],
    found: FoundModel,
    *,
    results: Path,
    run: str | None,
    may_exist: bool,
    previous: Path | None = None,
) -> Path:
    identity = {"imported": [hash_file(path) for path in model.checkpoints]}
    ours = found.kind == "sparseunet"
    name = run or (model.run_id if ours else f"nnunet-{hash_content(identity)[:10]}")
    target = results / model.configuration.name / name
    if target.exists():
        if may_exist and _same(target, model, folds, found, identity):
            return target
        raise RequestError(
            f"{target} exists already and is not overwritten; choose another name.",
            setting="run",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".importing-") as temporary:
        folder = Path(temporary) / name
        for fold, checkpoint in zip(folds, model.checkpoints, strict=True):
            record = _describe(model, fold, checkpoint, found, identity=identity)
            record = replace(record, run_id=name)
            if previous is not None:
                stage = str(model.configuration.previous_stage)
                link = {"configuration": stage, "run_id": previous.name}
                record = replace(record, previous_stage=link)
            write_record(fold_folder(folder, fold), record)
            weights = load_network(model, checkpoint).state_dict()
            torch.save({"weights": weights}, fold_folder(folder, fold) / CHECKPOINT_FINAL)
        shutil.move(folder, target)
    return target


def _same(
    target: Path,
    model: TrainedModel,
    folds: Sequence[int | str],
    found: FoundModel,
    identity: dict[str, Any],
) -> bool:
    """Whether the run that is there has the identity of the one to be written."""
    if set(folds) - set(folds_of(target, CHECKPOINT_FINAL)):
        return False
    there = read_record(fold_folder(target, folds[0])).identity
    new = _describe(model, folds[0], model.checkpoints[0], found, identity=identity)
    return bool(there) and there == new.identity


def _describe(
    model: TrainedModel,
    fold: int | str,
    checkpoint: Path,
    found: FoundModel,
    *,
    identity: dict[str, Any],
) -> RunRecord:
    """Return the record of the new run: what the run itself says, or what nnU-Net's files say."""
    origin = {
        "file": found.origin.name,
        "model": model.run_folder.name,
        "kind": found.kind,
        "checkpoint": checkpoint.name,
        "sha256": hash_file(checkpoint),
        "sparseunet": package_version(),
    }
    if found.kind == "sparseunet":
        return replace(read_record(checkpoint.parent), imported_from=origin)
    return RunRecord(
        run_id="",
        dataset_name=model.plan.dataset_name,
        fold=fold,
        plan=model.plan,
        configuration=model.configuration,
        recipe=None,
        mirror_axes=model.mirror_axes,
        split=None,
        identity=identity,
        dataset_json=model.dataset_json,
        imported_from=origin,
    )
