"""Find out on held-out cases whether keeping only the largest components raises Dice.

First the largest component of the whole foreground: it is kept alone if the mean Dice rises and
that of no class falls. Then the same class by class, where the Dice of the class rises (nnU-Net's
rules). References must be dense, drawn by a person in every voxel: with sparse ones this cannot be
estimated, and the command says why (exit code 2). Classes come from the dataset.json in
PREDICTIONS, or in or beside REFERENCES.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import ANNOTATION_JSON, POSTPROCESSING_JSON, provenance_beside

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.postprocessing import Postprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `determine_postprocessing`."""
    parser.add_argument(
        "-i",
        "--input",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="predictions of cases that were not trained on",
    )
    parser.add_argument(
        "-ref",
        "--references",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="their dense references; those without prediction are an error",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"for the rules (default: PREDICTIONS/{POSTPROCESSING_JSON})",
    )
    parser.add_argument(
        "-djfile",
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json that names classes or regions, ignore value and file ending",
    )
    parser.add_argument(
        "--provenance",
        type=Path,
        metavar="FOLDER",
        help="who drew each reference voxel (default: provenanceTr beside REFERENCES if it is "
        "called labelsTr)",
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Try every step, write those that help and print what each does."""
    from sparseunet.evaluation.determine_postprocessing import (
        determine_postprocessing,
        find_not_dense,
    )
    from sparseunet.evaluation.pairing import find_pairs
    from sparseunet.postprocessing import write_postprocessing

    predictions, references = arguments.input, arguments.references
    for folder in (predictions, references):
        if not folder.is_dir():
            raise RequestError(f"The folder {folder} does not exist.")
    from sparseunet.evaluation.find_labels import find_labels

    labels, ending = find_labels(
        [predictions, references, references.resolve().parent],
        label_maps=references,
        dataset_json=arguments.dataset_json,
        values=None,
        ignore=None,
    )
    pairs = find_pairs(references, predictions, file_ending=ending)
    postprocessing = determine_postprocessing(
        pairs,
        labels=labels,
        file_ending=ending,
        num_workers=arguments.num_workers,
        not_dense=find_not_dense(
            [pair.name for pair in pairs],
            provenance=arguments.provenance or provenance_beside(references),
            file_ending=ending,
            partly=_partly_annotated(references, labels),
        ),
    )
    output = arguments.output or predictions / POSTPROCESSING_JSON
    write_postprocessing(output, postprocessing)
    print("\n".join(format_trials(postprocessing)))
    print(f"Written: {output}")
    return 0


def format_trials(postprocessing: "Postprocessing") -> list[str]:
    """Return lines that say what every step did."""
    from sparseunet.cli.score_tables import align

    rows = [("keep the largest component of", "Dice before", "Dice after", "kept", "because")]
    rows += [
        (
            trial.step.name,
            f"{trial.dice_before:.4f}",
            f"{trial.dice_after:.4f}",
            "yes" if trial.is_kept else "no",
            trial.reason,
        )
        for trial in postprocessing.trials
    ]
    return [*align(rows), f"Measured on {postprocessing.num_cases} cases with dense references."]


def _partly_annotated(references: Path, labels: "LabelSchema") -> set[str]:
    """Return the cases of which `annotation.json` says that not all classes were looked for."""
    from sparseunet.data.annotation_record import read_annotation_records

    folder = references.resolve()
    path = folder.parent / ANNOTATION_JSON
    if folder.name != "labelsTr" or not path.is_file():
        return set()
    return {
        case
        for case, record in read_annotation_records(path).cases.items()
        if not set(labels.foreground) <= set(record.annotated_classes)
    }
