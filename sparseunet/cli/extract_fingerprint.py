"""Measure raw datasets: sizes, spacings and the intensities of annotated foreground.

Writes dataset_fingerprint.json and a copy of dataset.json to preprocessed/DATASET. A fingerprint
that is there already is kept if it was measured on exactly the same files.
"""

import argparse
import logging
import time
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.workspace import DATASET_JSON, FINGERPRINT_JSON, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparseunet.data.dataset import Dataset
    from sparseunet.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="ids, names or paths"
    )
    add_num_workers_argument(parser)
    parser.add_argument(
        "--clean", action="store_true", help="measure again even if nothing has changed"
    )


def run(arguments: argparse.Namespace) -> int:
    """Extract the fingerprint of every dataset asked for."""
    from sparseunet.data.load import load_dataset
    from sparseunet.progress import format_duration

    workspace = resolve_workspace(arguments.workspace)
    for name in arguments.dataset:
        start = time.monotonic()
        dataset = load_dataset(workspace.raw_dataset(name))
        fingerprint = fingerprint_dataset(
            workspace, dataset, num_workers=arguments.num_workers, redo=arguments.clean
        )
        print(describe_fingerprint(fingerprint, dataset_name=dataset.name))
        target = workspace.preprocessed_dataset(dataset.name) / FINGERPRINT_JSON
        print(f"{target} ({format_duration(time.monotonic() - start)})")
    return 0


def fingerprint_dataset(
    workspace: Workspace, dataset: "Dataset", *, num_workers: int, redo: bool = False
) -> "Fingerprint":
    """Return the dataset's fingerprint: the stored one if the data is the same, else a new one.

    Writes `dataset_fingerprint.json` and a copy of `dataset.json` to the preprocessed dataset.

    Args:
        workspace: Where to store it.
        dataset: What to measure.
        num_workers: Number of threads.
        redo: Measure again even if the stored one belongs to the same files.
    """
    from sparseunet.artifacts import write_json
    from sparseunet.fingerprint import extract_fingerprint, fingerprint_to_json, hash_dataset

    folder = workspace.preprocessed_dataset(dataset.name)
    data_hash = hash_dataset(dataset, num_workers=num_workers)
    stored = None if redo else _stored_fingerprint(workspace, dataset.name, data_hash)
    if stored is not None:
        return stored
    fingerprint = extract_fingerprint(dataset, num_workers=num_workers)
    write_json(folder / DATASET_JSON, dataset.description)
    write_json(folder / FINGERPRINT_JSON, fingerprint_to_json(fingerprint, data_hash=data_hash))
    return fingerprint


def describe_fingerprint(fingerprint: "Fingerprint", *, dataset_name: str) -> str:
    """Return a few lines for a person: cases, sizes, spacing and what the intensities rest on."""
    import numpy as np

    shape = np.median(np.asarray(fingerprint.shapes_after_crop), axis=0)
    spacing_mm = np.median(np.asarray(fingerprint.spacings_mm), axis=0)
    behind = (
        f"{fingerprint.num_foreground_voxels} voxels of manually annotated foreground in "
        f"{fingerprint.num_foreground_cases} of {len(fingerprint.spacings_mm)} cases"
    )
    if fingerprint.intensity_source == "body":
        behind = f"the nonzero voxels of the images (too little foreground: {behind})"
    grid = f"{_times(shape)} voxels of {_times(spacing_mm)} mm (z, y, x)"
    lines = [
        f"{dataset_name}: {len(fingerprint.spacings_mm)} cases, median {grid}",
        f"  intensities from {behind}",
    ]
    lines += [
        f"  channel {channel}: mean {item.mean:.5g}, std {item.std:.5g}, "
        f"0.5 % {item.percentile_00_5:.5g}, median {item.median:.5g}, "
        f"99.5 % {item.percentile_99_5:.5g}"
        for channel, item in enumerate(fingerprint.intensities)
    ]
    return "\n".join(lines)


def _times(values: "Sequence[float]") -> str:
    return " x ".join(f"{value:g}" for value in values)


def _stored_fingerprint(
    workspace: Workspace, dataset_name: str, data_hash: str
) -> "Fingerprint | None":
    from sparseunet.artifacts import read_json
    from sparseunet.errors import RequestError
    from sparseunet.fingerprint import fingerprint_from_json

    path = workspace.preprocessed_dataset(dataset_name) / FINGERPRINT_JSON
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if content.get("sparseunet", {}).get("data_hash") == data_hash:
            return fingerprint_from_json(content, source=str(path))
    except (RequestError, AttributeError):
        logger.warning("%s cannot be read and is made anew.", path)
        return None
    logger.warning("%s was measured on other data and is made anew.", path)
    return None
