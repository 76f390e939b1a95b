"""What was asked for, checked before anything is predicted."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sparseunet.data.dataset import Case
from sparseunet.data.dicom_seg import require_highdicom
from sparseunet.errors import RequestError, name_some
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.workspace import dicom_seg_file

logger = logging.getLogger(__name__)

Existing = Literal["refuse", "skip", "overwrite"]
"""What happens to scans whose files are there already."""


def check_request(
    model: TrainedModel,
    scans: Sequence[Case],
    previous_stage: Path | None,
    output: Path,
    *,
    dicom_seg: bool,
) -> None:
    """Refuse scans of one name or of other channels, a wrong previous stage, or DICOM SEG.

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
    if dicom_seg:
        _check_dicom_seg(scans, output)


def wanted_files(
    scans: Sequence[Case], output: Path, file_ending: str, *, dicom_seg: bool
) -> dict[str, list[Path]]:
    """Return by case the label file and, where one is wanted, the DICOM SEG."""
    files = {scan.name: [output / f"{scan.name}{file_ending}"] for scan in scans}
    if dicom_seg:
        for name, (label_file, *_) in files.items():
            files[name].append(dicom_seg_file(label_file, name))
    return files


def choose_scans(
    scans: Sequence[Case], files: Mapping[str, Sequence[Path]], *, existing: str
) -> list[Case]:
    """Return the scans to predict, given their files; a scan that lacks one is predicted again.

    Raises:
        RequestError: Some files are there and `existing` is `refuse`; or a file to be written is
            that of a scan, whatever `existing` says.
    """
    _spare_the_scans(scans, [file for some in files.values() for file in some])
    there = [file for scan in scans for file in files[scan.name] if file.exists()]
    if there and existing == "refuse":
        names = name_some([file.name for file in there])
        raise RequestError(
            f"{there[0].parent} holds {names} already. Continue and "
            "keep them, overwrite them, or choose another folder.",
            setting="overwrite",
        )
    if there and existing == "skip":
        todo = [scan for scan in scans if not all(file.exists() for file in files[scan.name])]
        logger.info("%d of %d scans are predicted already", len(scans) - len(todo), len(scans))
        return todo
    return list(scans)


def _check_dicom_seg(scans: Sequence[Case], output: Path) -> None:
    require_highdicom()
    others = [scan.name for scan in scans if not scan.images[0].is_dir()]
    if others:
        raise RequestError(
            "A DICOM SEG refers to the DICOM series that it segments; these scans are none: "
            f"{', '.join(others)}. Give folders of DICOM, or do without DICOM SEG.",
            setting="dicom_seg",
        )
    if any(output.resolve() == path.resolve() for scan in scans for path in scan.images):
        raise RequestError(
            f"{output} holds a series that is to be segmented; choose another output folder, since "
            "a folder with a DICOM SEG among its slices is no series."
        )


def _spare_the_scans(scans: Sequence[Case], files: Sequence[Path]) -> None:
    """Refuse files that are scans themselves, by whatever path they were found.

    Raises:
        RequestError: Names them.
    """
    images = {_identity(path): path for scan in scans for path in scan.images if path.exists()}
    replaced = sorted({str(file) for file in files if file.exists() and _identity(file) in images})
    if replaced:
        raise RequestError(
            f"The segmentation would take the place of the scan: {name_some(replaced)}. "
            "Choose another output folder.",
            setting="output",
        )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
