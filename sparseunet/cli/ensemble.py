"""Average the probabilities that several models saved, and segment by their mean.

Every folder was made with --save-probabilities, by predict (CASE.npy) or by nnU-Net (CASE.npz), and
holds the same cases. Classes come from the dataset.json in the folders. Segmentations lie on the
grid of those of the first folder; ensemble.json names what was averaged.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.options import add_num_workers_argument, refuse_existing
from sparseunet.errors import RequestError
from sparseunet.workspace import DATASET_JSON, ENSEMBLE_JSON, PLANS_JSON, PREDICTION_JSON

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema

_REORIENTING = "NibabelIOWithReorient"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ensemble`."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="two or more folders of predictions with probabilities",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="for the segmentations"
    )
    parser.add_argument(
        "--save-probabilities",
        "--save_npz",
        action="store_true",
        help="also keep the mean probabilities, CASE.npy",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace segmentations that are there already"
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Check all folders, then average case by case."""
    from sparseunet.prediction.ensemble import ensemble
    from sparseunet.prediction.saved_probabilities import SavedModel, find_saved_cases

    folders: list[Path] = arguments.input
    _check_folders(folders, arguments.output)
    labels, description = _same_labels(folders)
    ending = str(description["file_ending"])
    models: list[SavedModel] = []
    problems = []
    for folder in folders:
        try:
            models.append(find_saved_cases(folder, file_ending=ending))
        except RequestError as error:
            problems.append(str(error))
    if problems:
        raise RequestError("\n".join(problems))
    cases = sorted({case for model in models for case in model.cases})
    if not arguments.overwrite:
        refuse_existing(arguments.output, [f"{case}{ending}" for case in cases])
    written = ensemble(
        models,
        output=arguments.output,
        labels=labels,
        file_ending=ending,
        num_workers=arguments.num_workers,
        save_probabilities=arguments.save_probabilities,
    )
    write_json(arguments.output / DATASET_JSON, description)
    write_json(arguments.output / ENSEMBLE_JSON, describe_ensemble(folders))
    print(f"{len(written)} segmentations by {len(models)} models in {arguments.output}")
    return 0


def describe_ensemble(folders: list[Path]) -> dict[str, Any]:
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


def _same_labels(folders: list[Path]) -> "tuple[LabelSchema, dict[str, Any]]":
    """Return the classes of all folders and the dataset.json of the first.

    Raises:
        RequestError: A folder has no dataset.json, or one with other classes; names all of them.
    """
    from sparseunet.data.load import parse_labels

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
