"""What was asked for, checked before anything is predicted."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sparseunet.data.dataset import Case
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel

logger = logging.getLogger(__name__)

Existing = Literal["refuse", "skip", "overwrite"]
"""What happens to scans whose label file is there already."""


def check_request(
    model: TrainedModel, scans: Sequence[Case], previous_stage: Path | None, output: Path
) -> None:
    """Refuse scans of one name or of other channels, and a previous stage missing or without use.

    Raises:
        RequestError: Says what is wrong and what to do.
    """
    configuration = model.configuration
    if configuration.previous_stage is not None and previous_stage is None:
        raise RequestError(
            f"Configuration {configuration.name} refines the segmentations of "
            f"{configuration.previous_stage}; give the folder that holds them."
        )
    if configuration.previous_stage is None and previous_stage is not None:
        raise RequestError(
            f"Configuration {configuration.name} has no previous stage; leave {previous_stage} out."
        )
    if previous_stage is not None and previous_stage.resolve() == output.resolve():
        raise RequestError(
            f"{output} holds the segmentations of the previous stage; choose another output folder."
        )
    num_channels = len(configuration.normalization)
    for scan in scans:
        # One file may hold all channels, like a picture in colour.
        if len(scan.images) not in (1, num_channels):
            files = ", ".join(path.name for path in scan.images)
            raise RequestError(
                f"Scan {scan.name} has {len(scan.images)} channels ({files}); the model was "
                f"trained on {num_channels}. Give a file for each of those."
            )
    names = [scan.name for scan in scans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(
            f"Several scans have the same name and would overwrite each other: {', '.join(twice)}. "
            "Rename them or predict them into different folders."
        )


def choose_scans(scans: Sequence[Case], files: dict[str, Path], *, existing: str) -> list[Case]:
    """Return the scans to predict, given their label files.

    Raises:
        RequestError: Some label files are there and `existing` is `refuse`.
    """
    there = [scan for scan in scans if files[scan.name].exists()]
    if there and existing == "refuse":
        names = ", ".join(files[scan.name].name for scan in there[:5])
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise RequestError(
            f"{files[there[0].name].parent} holds {names}{more} already. Keep them with "
            "--continue-prediction, replace them with --overwrite, or choose another folder."
        )
    if there and existing == "skip":
        logger.info("%d of %d scans are predicted already", len(there), len(scans))
        return [scan for scan in scans if not files[scan.name].exists()]
    return list(scans)
