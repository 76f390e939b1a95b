"""Average the probabilities that several models saved, and segment by their mean.

Every folder was made with --save-probabilities, by predict (CASE.npy) or by nnU-Net (CASE.npz), and
holds the same cases. Classes come from the dataset.json in the folders. Segmentations lie on the
grid of those of the first folder; ensemble.json names what was averaged.
"""

import argparse
from pathlib import Path

from sparseunet.cli.options import add_num_workers_argument


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
    from sparseunet.prediction.ensemble_folders import ensemble_folders

    written = ensemble_folders(
        arguments.input,
        output=arguments.output,
        num_workers=arguments.num_workers,
        save_probabilities=arguments.save_probabilities,
        overwrite=arguments.overwrite,
    )
    models = len(arguments.input)
    print(f"{len(written)} segmentations by {models} models in {arguments.output}")
    return 0
