"""Average the predictions in folders: what these must have in common, and what is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json, write_json
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.errors import RequestError
from sparseunet.prediction.ensemble import ensemble
from sparseunet.prediction.existing import refuse_existing
from sparseunet.prediction.saved_probabilities import SavedModel, find_saved_cases
from sparseunet.workspace import DATASET_JSON, ENSEMBLE_JSON, PLANS_JSON, PREDICTION_JSON

_REORIENTING = "NibabelIOWithReorient"


def ensemble_folders(
    folders: Sequence[Path | str],
    *,
    output: Path | str,
    num_workers: int = 1,
    save_probabilities: bool = False,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Average the probabilities that several models saved, and segment by their mean.

    Args:
        folders: Two or more predictions with probabilities, of `predict` (CASE.npy) or of nnU-Net
            (CASE.npz), of the same cases; the classes stand in their dataset.json.
        output: For the segmentations on the grid of those of the first folder, `ensemble.json`,
            which names what was averaged, and `dataset.json`.
        num_workers: Cases at the same time, one per thread.
        save_probabilities: Whether their mean is kept, as `predict` does.
        overwrite: Whether segmentations that are there already are replaced.

    Returns:
        The label file of every case.

    Raises:
        RequestError: Folders that are missing, given twice or of other classes; files that are
            there already. Lists all.
        DatasetError: As `ensemble`.
    """
    members, output = [Path(folder) for folder in folders], Path(output)
    _check_folders(members, output)
    labels, description = _same_labels(members)
    ending = str(description["file_ending"])
    models: list[SavedModel] = []
    problems = []
    for folder in members:
        try:
            models.append(find_saved_cases(folder, file_ending=ending))
        except RequestError as error:
            problems.append(str(error))
    if problems:
        raise RequestError("\n".join(problems))
    cases = sorted({case for model in models for case in model.cases})
    if not overwrite:
        refuse_existing(output, [f"{case}{ending}" for case in cases])
    written = ensemble(
        models,
        output=output,
        labels=labels,
        file_ending=ending,
        num_workers=num_workers,
        save_probabilities=save_probabilities,
    )
    write_json(output / DATASET_JSON, description)
    write_json(output / ENSEMBLE_JSON, _members(members))
    return written


def _members(folders: Sequence[Path]) -> dict[str, Any]:
    """Return what was averaged: the folders, and what made them where that is known."""
    return {
        "kind": "sparseunet.ensemble",
        "version": 1,
        "members": [
            {
                "folder": str(folder),
                "prediction": read_json(folder / PREDICTION_JSON)
                if (folder / PREDICTION_JSON).is_file()
                else None,
            }
            for folder in folders
        ],
    }


def _check_folders(folders: list[Path], output: Path) -> None:
    """Refuse folders that are missing, given twice, or no good for this.

    Raises:
        RequestError: Names all of them.
    """
    resolved = [folder.resolve() for folder in folders]
    problems = [f"{folder} does not exist." for folder in folders if not folder.is_dir()]
    if len(folders) < 2:
        problems.append(f"{len(folders)} folder; an ensemble has at least two.")
    twice = sorted({str(folder) for folder in resolved if resolved.count(folder) > 1})
    if twice:
        problems.append(f"Given more than once: {', '.join(twice)}.")
    if output.resolve() in resolved:
        problems.append(f"{output} is one of the folders to average; choose another output folder.")
    for folder in folders:
        reader = _read_description(folder / PLANS_JSON).get("image_reader_writer")
        if reader == _REORIENTING:
            problems.append(
                f"{folder}: nnU-Net's {_REORIENTING} saves probabilities on turned axes, which "
                "cannot be told from straight ones; predict with sparseunet or another reader."
            )
    if problems:
        raise RequestError("\n".join(problems))


def _same_labels(folders: list[Path]) -> tuple[LabelSchema, dict[str, Any]]:
    """Return the classes of all folders and the dataset.json of the first.

    Raises:
        RequestError: A folder has no dataset.json, or one with other classes; names all of them.
    """
    descriptions = {folder: _read_description(folder / DATASET_JSON) for folder in folders}
    problems = [
        f'{folder / DATASET_JSON} is missing or names no "labels" and "file_ending".'
        for folder, content in descriptions.items()
        if not {"labels", "file_ending"} <= set(content)
    ]
    if problems:
        raise RequestError("\n".join(problems))
    labels = {folder: parse_labels(content) for folder, content in descriptions.items()}
    first = folders[0]
    for folder in folders[1:]:
        same = (
            labels[folder].classes == labels[first].classes
            and list(labels[folder].regions.items()) == list(labels[first].regions.items())
            and labels[folder].regions_class_order == labels[first].regions_class_order
        )
        if not same or descriptions[folder]["file_ending"] != descriptions[first]["file_ending"]:
            problems.append(
                f"{folder} was predicted with other classes or another file ending than {first}: "
                f"{_describe(descriptions[folder])} in place of {_describe(descriptions[first])}."
            )
    if problems:
        raise RequestError("\n".join(problems))
    return labels[first], descriptions[first]


def _describe(description: dict[str, Any]) -> str:
    return f"{description['labels']} in {description['file_ending']}"


def _read_description(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
