"""Hand a trained model out: as one file of ours, or as nnU-Net reads it."""

import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseunet.artifacts import atomic_path, read_json
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel, load_network
from sparseunet.runs.exchange.model_file import Manifest, pack, write_model_file
from sparseunet.runs.exchange.nnunet_model import write_nnunet_model
from sparseunet.runs.load import load_previous_stage, load_trained_model
from sparseunet.runs.record import read_record
from sparseunet.version import package_version
from sparseunet.workspace import (
    CHECKPOINT_FINAL,
    RUN_JSON,
    SUMMARY_JSON,
    fold_folder,
    held_out_folder,
    nnunet_model_name,
)


def export_model(
    run_folder: Path,
    folds: Sequence[int | str],
    output: Path,
    *,
    annotated: Mapping[str, Any] | None = None,
    licence: str | None = None,
    description: str | None = None,
) -> Manifest:
    """Write one file that `predict -m` and `import_model` read: manifest, `run.json`s and weights.

    The first stage of a cascade goes along. Nothing of the scans goes along but what `run.json`
    says: names of cases, the plan's intensity statistics, the description of the dataset.

    Args:
        run_folder: Of the run.
        folds: Finished folds.
        output: A new file, `NAME.zip`.
        annotated: How densely the training data was annotated; written as it is.
        licence: Of the model; None takes the dataset's.
        description: Of the model; None takes the dataset's.

    Raises:
        RequestError: Folds or the first stage are missing, weights do not fit, `output` exists.
    """
    stages = _stages(run_folder, folds)
    model = stages[0]
    runs = {fold: read_record(fold_folder(run_folder, fold)) for fold in folds}
    files = {
        f"{_place(stage)}/{fold_folder(Path(), fold)}/{name}": fold_folder(stage.run_folder, fold)
        / name
        for stage in stages
        for fold in folds
        for name in (RUN_JSON, CHECKPOINT_FINAL)
    }
    about = model.dataset_json
    manifest = Manifest(
        model=_place(model),
        dataset_name=model.plan.dataset_name,
        configuration=model.configuration.name,
        run_id=model.run_id,
        folds=list(folds),
        licence=licence or _text(about.get("licence") or about.get("license")),
        description=description or _text(about.get("description")),
        reference=_text(about.get("reference")),
        training_data={
            "num_cases": len({case for run in runs.values() for case in run.training_cases})
            or None,
            "num_cases_of_fold": {
                str(fold): len(run.training_cases) or None for fold, run in runs.items()
            },
            "annotated": None if annotated is None else dict(annotated),
        },
        scores=_scores(run_folder, folds),
        versions=dict(runs[folds[0]].versions),
        exported_with=f"sparseunet {package_version()}",
        files=pack(files),
    )
    write_model_file(output, manifest, files)
    return manifest


def export_to_nnunet(run_folder: Path, folds: Sequence[int | str], output: Path) -> list[str]:
    """Write a run as model folders of nnU-Net 2.8.1, `Dataset/nnUNetTrainer__Plans__configuration`.

    nnU-Net predicts with it and fine-tunes from its checkpoints (`-pretrained_weights`); it cannot
    go on with the training, whose optimiser state is not written.

    Args:
        run_folder: Of the run.
        folds: Finished folds.
        output: A folder, such as nnU-Net's results; or a new file `NAME.zip`, in the layout that
            nnUNetv2_install_pretrained_model_from_zip expects.

    Returns:
        The model folders, relative to `output`, the run's own first and then its first stage's.

    Raises:
        RequestError: Folds or the first stage are missing, the network is none of nnU-Net's, or
            something of this name exists.
    """
    stages = _stages(run_folder, folds)
    names = [
        f"{stage.plan.dataset_name}/"
        f"{nnunet_model_name(stage.plan.plans_name, stage.configuration.name)}"
        for stage in stages
    ]
    zipped = output.suffix == ".zip"
    taken = [output] if zipped else [output / name for name in names]
    there = [str(path) for path in taken if path.exists()]
    if there:
        raise RequestError(f"{', '.join(there)} exists already and is not overwritten.")
    parent = output.parent if zipped else output
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".exporting-") as temporary:
        root = Path(temporary)
        for stage, name in zip(stages, names, strict=True):
            write_nnunet_model(stage.run_folder, folds, root / name)
        if zipped:
            _zip(root, output)
        else:
            for name in names:
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(root / name, output / name)
    return names


def _stages(run_folder: Path, folds: Sequence[int | str]) -> list[TrainedModel]:
    """Return the run and the first stage behind it, with weights that fit."""
    stages = [load_trained_model(run_folder, folds)]
    if stages[0].configuration.previous_stage is not None:
        stages.append(load_previous_stage(stages[0], folds))
    for stage in stages:
        for checkpoint in stage.checkpoints:
            load_network(stage, checkpoint)
    return stages


def _place(model: TrainedModel) -> str:
    return f"{model.configuration.name}/{model.run_folder.name}"


def _text(value: object) -> str | None:
    return None if value in (None, "") else str(value)


def _scores(run_folder: Path, folds: Sequence[int | str]) -> dict[str, Any]:
    scores = {}
    for fold in folds:
        summary = held_out_folder(fold_folder(run_folder, fold)) / SUMMARY_JSON
        if summary.is_file():
            content = read_json(summary)
            scores[str(fold)] = content.get("foreground_mean")
    return scores


def _zip(root: Path, output: Path) -> None:
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(root))
