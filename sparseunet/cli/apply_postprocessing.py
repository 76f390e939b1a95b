"""Clean segmentations by the rules that determine_postprocessing or find_best_configuration found.

Every label map of the folder is written to another folder under its name, on its own grid. A folder
that was predicted with other classes is refused.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.prediction.existing import refuse_existing
from sparseunet.workspace import DATASET_JSON, POSTPROCESSING_JSON

if TYPE_CHECKING:
    from sparseunet.postprocessing import Postprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `apply_postprocessing`."""
    parser.add_argument(
        "-i", "--input", required=True, type=Path, metavar="FOLDER", help="segmentations"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="for the cleaned ones",
    )
    parser.add_argument(
        "-pp",
        "--postprocessing",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"the rules, {POSTPROCESSING_JSON}",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already"
    )
    add_num_workers_argument(parser, "threads")


def run(arguments: argparse.Namespace) -> int:
    """Clean every label map of the folder."""
    from sparseunet.evaluation.pairing import names_in
    from sparseunet.postprocessing import (
        apply_postprocessing,
        read_postprocessing,
        write_postprocessing,
    )

    postprocessing = read_postprocessing(arguments.postprocessing)
    folder, output, ending = arguments.input, arguments.output, postprocessing.file_ending
    cases = names_in(folder, ending)
    if not cases:
        raise RequestError(f"No label map CASE{ending} in {folder}.")
    if folder.resolve() == output.resolve():
        raise RequestError(f"{output} is where the segmentations lie; choose another folder.")
    _require_same_classes(folder, postprocessing)
    if not arguments.overwrite:
        refuse_existing(output, [f"{case}{ending}" for case in cases])
    dropped = apply_postprocessing(
        postprocessing,
        [folder / f"{case}{ending}" for case in cases],
        output=output,
        num_workers=arguments.num_workers,
    )
    if (folder / DATASET_JSON).is_file():
        write_json(output / DATASET_JSON, read_json(folder / DATASET_JSON))
    write_postprocessing(output / POSTPROCESSING_JSON, postprocessing)
    names = ", ".join(step.name for step in postprocessing.steps)
    print(f"Kept the largest component of: {names or 'nothing (no step had helped)'}")
    print(
        f"{sum(count > 0 for count in dropped.values())} of {len(dropped)} segmentations changed, "
        f"{sum(dropped.values())} voxels became background: {output}"
    )
    return 0


def _require_same_classes(folder: Path, postprocessing: "Postprocessing") -> None:
    """Refuse segmentations of other classes, where the folder says what it holds.

    Raises:
        RequestError: Names both.
    """
    from sparseunet.data.load import parse_labels

    path = folder / DATASET_JSON
    if not path.is_file():
        return
    found = parse_labels(read_json(path)).foreground
    if found != postprocessing.classes:
        raise RequestError(
            f"{folder} holds segmentations of {found}, the rules were made for "
            f"{postprocessing.classes}. Find out new ones with determine_postprocessing."
        )
