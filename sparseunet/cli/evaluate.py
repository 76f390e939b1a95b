"""Compare a folder of segmentations with a folder of references, case by case and class by class.

Writes nnU-Net's summary.json (with surface distances beside nnU-Net's numbers) and a table as CSV.
What is scored comes from the first of: --dataset-json, PREDICTIONS/dataset.json,
REFERENCES/dataset.json, the dataset.json beside REFERENCES, --labels.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import read_json
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import DATASET_JSON, SUMMARY_JSON

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.evaluation.evaluate import Scores

_FILE_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".mha",
    ".mhd",
    ".gipl",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("references", type=Path, help="folder of reference label maps")
    parser.add_argument("predictions", type=Path, help="folder of predicted label maps")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"summary to write (default: PREDICTIONS/{SUMMARY_JSON}); a .csv goes beside it",
    )
    parser.add_argument(
        "-djfile",
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json that names classes or regions, ignore value and file ending",
    )
    parser.add_argument(
        "-l",
        "--labels",
        type=int,
        nargs="+",
        metavar="VALUE",
        help="label values to score when there is no dataset.json",
    )
    parser.add_argument(
        "-il",
        "--ignore-label",
        type=int,
        metavar="VALUE",
        help="with --labels: value of unannotated reference voxels",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        help="score these cases only (default: every reference; a missing prediction is an error)",
    )
    parser.add_argument(
        "--chill",
        action="store_true",
        help="score the predictions there are and leave references without prediction out",
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score, write the summary and print a table."""
    from sparseunet.evaluation.evaluate import evaluate, write_scores

    if arguments.num_workers < 1:
        raise RequestError(f"--num-workers must be 1 or more, found {arguments.num_workers}.")
    for folder in (arguments.references, arguments.predictions):
        if not folder.is_dir():
            raise RequestError(f"The folder {folder} does not exist.")
    labels, file_ending = _find_labels(arguments)
    cases = arguments.cases
    if arguments.chill:
        cases = _predicted_cases(arguments, file_ending)
    scores = evaluate(
        arguments.references,
        arguments.predictions,
        labels=labels,
        file_ending=file_ending,
        num_workers=arguments.num_workers,
        cases=cases,
    )
    output = arguments.output or arguments.predictions / SUMMARY_JSON
    write_scores(output, scores)
    print(_format_table(scores))
    print(f"Written: {output} and {output.with_suffix('.csv').name}")
    return 0


def _find_labels(arguments: argparse.Namespace) -> "tuple[LabelSchema, str]":
    """Return what to score and the ending of the files."""
    from sparseunet.data.labels import LabelSchema
    from sparseunet.data.load import parse_labels

    places = [
        arguments.predictions / DATASET_JSON,
        arguments.references / DATASET_JSON,
        arguments.references.resolve().parent / DATASET_JSON,
    ]
    found = arguments.dataset_json or next((place for place in places if place.is_file()), None)
    if found is not None:
        description = read_json(found)
        if not isinstance(description, dict) or "file_ending" not in description:
            raise RequestError(f'{found} lacks "file_ending", e.g. ".nii.gz"; add it.')
        return parse_labels(description), description["file_ending"]
    if arguments.labels is None:
        raise RequestError(
            f"No {DATASET_JSON} in {arguments.predictions}, in {arguments.references} or beside it."
            " Name one with --dataset-json, or the label values to score with --labels 1 2 3."
        )
    if min(arguments.labels) < 1 or arguments.ignore_label in arguments.labels:
        raise RequestError("--labels must be foreground values (1 or more), not the ignore label.")
    classes = {"background": 0} | {str(value): value for value in arguments.labels}
    labels = LabelSchema(classes=classes, regions={}, ignore=arguments.ignore_label)
    return labels, _find_file_ending(arguments.references)


def _find_file_ending(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    present = [ending for ending in _FILE_ENDINGS if any(name.endswith(ending) for name in names)]
    if len(present) != 1:
        raise RequestError(
            f"{folder} holds label maps of {len(present)} kinds ({', '.join(present) or 'none'}); "
            "expected one. Name the file ending in a dataset.json."
        )
    return present[0]


def _predicted_cases(arguments: argparse.Namespace, file_ending: str) -> list[str]:
    """Return the cases with a prediction, of those asked for."""
    folder = arguments.predictions
    predicted = sorted(
        path.name.removesuffix(file_ending)
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and (arguments.references / path.name).is_file()
    )
    chosen = [name for name in predicted if arguments.cases is None or name in arguments.cases]
    if not chosen:
        raise RequestError(
            f"No *{file_ending} in {folder} has a reference of the same name in "
            f"{arguments.references}; nothing can be scored."
        )
    return chosen


def _format_table(scores: "Scores") -> str:
    rows: list[tuple[str, ...]] = [("class", "Dice", "IoU", "HD95 mm", "ASSD mm")]
    for name in scores.classes:
        spread = scores.standard_deviation(name, "Dice")
        rows.append(
            (
                name,
                f"{scores.mean(name, 'Dice'):.4f} ± {spread:.4f}",
                f"{scores.mean(name, 'IoU'):.4f}",
                f"{scores.mean(name, 'HD95'):.2f}",
                f"{scores.mean(name, 'ASSD'):.2f}",
            )
        )
    means = [scores.foreground_mean(metric) for metric in ("Dice", "IoU", "HD95", "ASSD")]
    rows.append(
        ("foreground mean", *(f"{mean:.{4 - 2 * (i > 1)}f}" for i, mean in enumerate(means)))
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, *_remarks(scores)])


def _remarks(scores: "Scores") -> list[str]:
    """Say what stands behind the numbers that a reader could mistake."""
    num_sparse = sum(case.is_sparse for case in scores.cases)
    remarks = [f"{len(scores.cases)} cases; Dice: mean ± standard deviation over cases"]
    if num_sparse:
        remarks.append(
            f"{num_sparse} references are sparse: only annotated voxels count, distances cannot be "
            "estimated"
        )
    for name in scores.classes:
        results = [case.classes[name] for case in scores.cases]
        one_sided = sum(result.is_one_sided for result in results)
        absent = sum(result.num_predicted == 0 == result.num_reference for result in results)
        if one_sided:
            remarks.append(
                f"{name}: in {one_sided} cases in one map only (Dice 0, distance = image diagonal)"
            )
        if absent:
            remarks.append(f"{name}: in {absent} cases in neither map (left out of the means)")
    return remarks
