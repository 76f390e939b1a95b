"""Clean label maps: keep the largest component of the foreground, or of a class, and drop the rest.

Which of these help is found out on held-out cases (`evaluation/determine_postprocessing.py`),
written to `postprocessing.json`, and applied to new segmentations here.

Source: nnU-Net 2.8.1 (Isensee et al. 2021). Voxels that share a corner are connected; components of
the same, largest size all stay; what is dropped becomes background.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy import ndimage

from sparseunet.artifacts import read_artifact, write_json
from sparseunet.data.io import read_label_map, write_label_map
from sparseunet.errors import DatasetError, Problem
from sparseunet.progress import track

POSTPROCESSING_KIND = "sparseunet.postprocessing"
POSTPROCESSING_VERSION = 1
_CORNERS_TOUCH = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepLargest:
    """Keep the largest component of some label values together."""

    name: str
    """`foreground`, or the name of a class or region."""
    values: tuple[int, ...]
    """Label values whose union is cleaned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Scores of held-out cases with and without a step."""

    step: KeepLargest
    dice_before: float
    """Mean Dice: of the foreground for the step `foreground`, else of the class."""
    dice_after: float
    is_kept: bool
    reason: str
    """Reason for keeping the step or leaving it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postprocessing:
    """The steps that helped, in their order; none if none did."""

    steps: tuple[KeepLargest, ...]
    classes: dict[str, tuple[int, ...]]
    """Name to label values of every class or region of the segmentations it was made for."""
    file_ending: str
    """Ending of the label files, with the dot."""
    trials: tuple[Trial, ...]
    num_cases: int
    """Number of held-out cases that the trials were made with."""
    references: str
    """Folder of the references."""

    def apply(self, labels_ZYX: np.ndarray) -> np.ndarray:
        """Return the label map after all steps; the argument itself where nothing changes."""
        return apply_steps(labels_ZYX, self.steps)


def keep_largest(labels_ZYX: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Return the label map with only the largest component of the voxels that hold `values`.

    The argument itself if there is at most one component.

    Args:
        labels_ZYX: Unsigned integers.
        values: Taken together.
    """
    mask_ZYX = np.isin(labels_ZYX, values)
    (box,) = ndimage.find_objects(mask_ZYX.view(np.uint8)) or (None,)
    if box is None:
        return labels_ZYX
    pieces_ZYX, num_pieces = ndimage.label(mask_ZYX[box], structure=_CORNERS_TOUCH)
    if num_pieces < 2:
        return labels_ZYX
    sizes = np.zeros(num_pieces + 1, np.int64)
    for plane in pieces_ZYX:  # plane by plane: counting needs eight bytes per voxel
        sizes += np.bincount(plane.ravel(), minlength=num_pieces + 1)
    is_dropped = sizes < sizes[1:].max()
    is_dropped[0] = False
    cleaned_ZYX = labels_ZYX.copy()
    cleaned_ZYX[box][is_dropped[pieces_ZYX]] = 0
    return cleaned_ZYX


def apply_steps(labels_ZYX: np.ndarray, steps: Iterable[KeepLargest]) -> np.ndarray:
    """Return the label map after these steps, in their order."""
    for step in steps:
        labels_ZYX = keep_largest(labels_ZYX, step.values)
    return labels_ZYX


def apply_postprocessing(
    postprocessing: Postprocessing, files: Sequence[Path], *, output: Path, num_workers: int
) -> dict[Path, int]:
    """Clean label files and write them under their names into another folder, on their own grids.

    Args:
        postprocessing: From `read_postprocessing`.
        files: Label maps.
        output: Folder; made when missing.
        num_workers: Files in memory at the same time, one per thread.

    Returns:
        How many voxels became background, by file of `files`.

    Raises:
        DatasetError: Files cannot be read; the others are written. Lists every such file.
    """

    def clean(path: Path) -> int | list[Problem]:
        try:
            labels_ZYX, geometry = read_label_map(path)
        except DatasetError as error:
            return list(error.problems)
        cleaned_ZYX = postprocessing.apply(labels_ZYX)
        write_label_map(output / path.name, cleaned_ZYX, geometry)
        return int(np.count_nonzero(labels_ZYX != cleaned_ZYX))

    with ThreadPoolExecutor(num_workers) as pool:
        done = list(track(pool.map(clean, files), total=len(files), label="Cleaning"))
    problems = [problem for each in done if isinstance(each, list) for problem in each]
    if problems:
        raise DatasetError(problems)
    return {
        path: each for path, each in zip(files, done, strict=True) if not isinstance(each, list)
    }


def write_postprocessing(path: Path, postprocessing: Postprocessing) -> None:
    """Write `postprocessing.json`."""
    content = {field.name: getattr(postprocessing, field.name) for field in fields(postprocessing)}
    write_json(path, {"kind": POSTPROCESSING_KIND, "version": POSTPROCESSING_VERSION, **content})


def read_postprocessing(path: Path) -> Postprocessing:
    """Read `postprocessing.json`.

    Raises:
        RequestError: The file is missing, of another kind or version, or a field is wrong.
    """
    return read_artifact(
        Postprocessing,
        path,
        kind=POSTPROCESSING_KIND,
        version=POSTPROCESSING_VERSION,
        hint="Make it with sparseunet determine_postprocessing; nnU-Net's file names functions to "
        "run and is not read.",
    )
