"""Agreement of two label maps, class by class: overlap in voxels, volume, distance of surfaces.

Definitions

    Dice    2 TP / (2 TP + FP + FN)
    IoU     TP / (TP + FP + FN)
    volume  predicted less reference volume, in ml and in per cent of the reference's

Those of surface distances stand in `surfaces.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.data.geometry import SLICE_SPACING_2D_MM
from sparseunet.evaluation.surfaces import (
    UNKNOWN_SURFACES,
    Classes,
    SurfaceScores,
    score_surfaces,
)

DEFAULT_TOLERANCE_MM = 1.0
"""Tolerance of the normalised surface Dice in mm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """How well one class of one case was segmented. Voxels without reference label do not count."""

    dice: float
    """In [0, 1]; NaN if the class is in neither map, as nnU-Net has it."""
    iou: float
    """In [0, 1]; NaN if the class is in neither map."""
    num_true_positives: int
    num_false_positives: int
    num_false_negatives: int
    num_true_negatives: int
    volume_difference_ml: float
    """Predicted less reference volume; NaN if the class is in neither map, the reference is sparse
    or the file is a 2D image, which has no thickness."""
    volume_difference_percent: float
    """The same in per cent of the reference's volume; also NaN if the reference lacks the class."""
    surfaces: SurfaceScores

    @property
    def num_predicted(self) -> int:
        """Number of voxels the prediction gives the class."""
        return self.num_true_positives + self.num_false_positives

    @property
    def num_reference(self) -> int:
        """Number of voxels the reference gives the class."""
        return self.num_true_positives + self.num_false_negatives

    @property
    def is_one_sided(self) -> bool:
        """Whether the class is in exactly one of the two maps."""
        return (self.num_predicted == 0) != (self.num_reference == 0)


def score_label_maps(
    reference_ZYX: np.ndarray,
    prediction_ZYX: np.ndarray,
    *,
    classes: Classes,
    spacing_mm: Sequence[float],
    ignore: int | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> dict[str, ClassScores]:
    """Compare a prediction with its reference for every class.

    Args:
        reference_ZYX: Unsigned label map. Axes of one voxel (a 2D image) have no surface across.
        prediction_ZYX: Unsigned label map of the same shape.
        classes: What to score; label values that are in no class count as background.
        spacing_mm: Voxel size along each axis.
        ignore: Value of unannotated reference voxels. They count nowhere, and a reference that has
            any leaves volumes and surfaces unknown: these are then NaN.
        tolerance_mm: Of the normalised surface Dice.

    Raises:
        ValueError: The two maps differ in shape, or a class holds the background value 0.
    """
    if reference_ZYX.shape != prediction_ZYX.shape:
        raise ValueError(
            f"The reference has shape {reference_ZYX.shape} but the prediction has shape "
            f"{prediction_ZYX.shape}. Both must describe the same grid."
        )
    if any(value < 1 for values in classes.values() for value in values):
        raise ValueError(
            f"Only foreground values (1 or more) can be scored, found {dict(classes)}."
        )
    pairs = count_label_pairs(reference_ZYX, prediction_ZYX)
    is_sparse = ignore is not None and any(reference == ignore for reference, _ in pairs)
    annotated = {pair: count for pair, count in pairs.items() if pair[0] != ignore}
    counts = {name: count_overlap(annotated, set(values)) for name, values in classes.items()}
    if is_sparse:
        surfaces = dict.fromkeys(classes, UNKNOWN_SURFACES)
    else:
        surfaces = score_surfaces(
            reference_ZYX,
            prediction_ZYX,
            classes=classes,
            spacing_mm=spacing_mm,
            tolerance_mm=tolerance_mm,
        )
    voxel_ml = _voxel_ml(spacing_mm)
    return {
        name: _to_scores(counts[name], surfaces[name], voxel_ml=voxel_ml, is_sparse=is_sparse)
        for name in classes
    }


def count_label_pairs(
    reference_ZYX: np.ndarray, prediction_ZYX: np.ndarray
) -> dict[tuple[int, int], int]:
    """Return how many voxels have each (reference value, prediction value) that occurs."""
    reference_values, prediction_values = find_values(reference_ZYX), find_values(prediction_ZYX)
    reference_rank, prediction_rank = _rank(reference_values), _rank(prediction_values)
    shape = len(reference_values), len(prediction_values)
    counts = np.zeros(shape[0] * shape[1], np.int64)
    for reference, prediction in zip(reference_ZYX, prediction_ZYX, strict=True):
        codes = reference_rank[reference] * shape[1] + prediction_rank[prediction]
        counts += np.bincount(codes.ravel(), minlength=counts.size)
    return {
        (int(reference_values[row]), int(prediction_values[column])): int(
            counts[row * shape[1] + column]
        )
        for row, column in np.argwhere(counts.reshape(shape))
    }


def count_overlap(
    pairs: Mapping[tuple[int, int], int], values: set[int]
) -> tuple[int, int, int, int]:
    """Return true positives, false positives, false negatives and true negatives.

    Args:
        pairs: From `count_label_pairs`, without those whose reference is unannotated.
        values: Of the class or region.
    """
    counts = np.zeros((2, 2), np.int64)
    for (reference, prediction), count in pairs.items():
        counts[int(reference in values), int(prediction in values)] += count
    return int(counts[1, 1]), int(counts[0, 1]), int(counts[1, 0]), int(counts[0, 0])


def find_values(labels_ZYX: np.ndarray) -> np.ndarray:
    """Return the label values that occur, sorted."""
    present = np.zeros(int(labels_ZYX.max()) + 1, bool)
    for plane in labels_ZYX:  # plane by plane: the index conversion needs eight bytes per voxel
        present[plane] = True
    return np.flatnonzero(present)


def _rank(values: np.ndarray) -> np.ndarray:
    """Return the table from value to its place among the sorted `values`."""
    table = np.zeros(int(values[-1]) + 1, np.intp)
    table[values] = np.arange(len(values))
    return table


def _voxel_ml(spacing_mm: Sequence[float]) -> float:
    """Return the volume of a voxel; NaN for a pixel of a 2D image."""
    return np.nan if SLICE_SPACING_2D_MM in spacing_mm else float(np.prod(spacing_mm)) / 1000


def _to_scores(
    counts: tuple[int, int, int, int],
    surfaces: SurfaceScores,
    *,
    voxel_ml: float,
    is_sparse: bool,
) -> ClassScores:
    true_positives, false_positives, false_negatives, true_negatives = counts
    union = true_positives + false_positives + false_negatives
    in_reference = true_positives + false_negatives
    surplus = np.nan if is_sparse or not union else false_positives - false_negatives
    return ClassScores(
        dice=2 * true_positives / (union + true_positives) if union else np.nan,
        iou=true_positives / union if union else np.nan,
        num_true_positives=true_positives,
        num_false_positives=false_positives,
        num_false_negatives=false_negatives,
        num_true_negatives=true_negatives,
        volume_difference_ml=surplus * voxel_ml,
        volume_difference_percent=100 * surplus / in_reference if in_reference else np.nan,
        surfaces=surfaces,
    )
