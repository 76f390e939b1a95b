"""Measure raw datasets: sizes, spacings and the intensities of annotated foreground.

The files are checked in the same pass. Writes dataset_fingerprint.json and a copy of dataset.json
to preprocessed/DATASET. Cases that have not changed since the last time are not read again. Exit
code 2, with every problem listed, if the check rejects.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.workspace import FINGERPRINT_JSON, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparseunet.fingerprint.extract import Examination
    from sparseunet.fingerprint.fingerprint import Fingerprint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="ids, names or paths"
    )
    add_num_workers_argument(parser)
    parser.add_argument(
        "--clean", action="store_true", help="look at every case again, even if unchanged"
    )


def run(arguments: argparse.Namespace) -> int:
    """Extract the fingerprint of every dataset asked for; a rejected one does not keep others."""
    workspace = resolve_workspace(arguments.workspace)
    return max([_extract(workspace, name, arguments) for name in arguments.dataset])


def examine_and_tell(
    workspace: Workspace, folder: Path, *, num_workers: int, redo: bool = False
) -> "Examination":
    """Check and measure a raw dataset, keep that in the workspace, and print what was found."""
    from sparseunet.preprocessing.prepare import examine

    examination = examine(workspace, folder, num_workers=num_workers, redo=redo)
    print(examination.report.format())
    if examination.fingerprint is not None:
        print(describe_fingerprint(examination.fingerprint))
    return examination


def _extract(workspace: Workspace, name: str, arguments: argparse.Namespace) -> int:
    from sparseunet.progress import format_duration

    start = time.monotonic()
    folder = workspace.raw_dataset(name)
    examination = examine_and_tell(
        workspace, folder, num_workers=arguments.num_workers, redo=arguments.clean
    )
    if not examination.report.accepted:
        return 2
    target = workspace.preprocessed_dataset(folder.name) / FINGERPRINT_JSON
    unchanged = f", {examination.num_unchanged} cases unchanged" * bool(examination.num_unchanged)
    print(f"{target} ({format_duration(time.monotonic() - start)}{unchanged})")
    return 0


def describe_fingerprint(fingerprint: "Fingerprint") -> str:
    """Return a few lines for a person: sizes, spacing and what the intensities rest on."""
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
        f"  median {grid} inside the nonzero box",
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
