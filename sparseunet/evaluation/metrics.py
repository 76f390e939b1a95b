"""Agreement of two label maps, class by class: overlap in voxels, distance of surfaces in mm.

Definitions

    Dice    2 TP / (2 TP + FP + FN)
    IoU     TP / (TP + FP + FN)
    HD95    the larger of the 95th percentiles (linear interpolation) of the distances from the
            reference's surface to the prediction's and back
    ASSD    the mean over all these distances, both directions together

The surface of a mask is the set of its voxels with a face neighbour outside it, the edge of the
image counting as outside; a distance runs between voxel centres. This is MONAI's definition.
Tools that weigh surface elements by area (DeepMind's surface-distance) give other numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

Classes = Mapping[str, tuple[int, ...]]
"""Name of a class or region to the label values it is the union of."""


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
    hd95_mm: float
    """NaN if the class is in neither map or the reference is sparse; the length of the image's
    diagonal if it is in one map only, so that a mean over cases cannot hide the failure."""
    assd_mm: float
    """NaN and the diagonal as for `hd95_mm`."""

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
) -> dict[str, ClassScores]:
    """Compare a prediction with its reference for every class.

    Args:
        reference_ZYX: Unsigned label map. Axes of one voxel (a 2D image) have no surface across.
        prediction_ZYX: Unsigned label map of the same shape.
        classes: What to score; label values that are in no class count as background.
        spacing_mm: Voxel size along each axis.
        ignore: Value of unannotated reference voxels. They count nowhere, and a reference that has
            any leaves surfaces unknown: distances are then NaN.

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
    counts = {name: _count_overlap(annotated, set(values)) for name, values in classes.items()}
    if is_sparse:
        distances = dict.fromkeys(classes, (np.nan, np.nan))
    else:
        distances = _measure_distances(reference_ZYX, prediction_ZYX, classes, spacing_mm)
    return {name: _to_scores(counts[name], distances[name]) for name in classes}


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


def find_values(labels_ZYX: np.ndarray) -> np.ndarray:
    """Return the label values that occur, sorted."""
    present = np.zeros(int(labels_ZYX.max()) + 1, bool)
    for plane in labels_ZYX:  # plane by plane: the index conversion needs eight bytes per voxel
        present[plane] = True
    return np.flatnonzero(present)


def surface_distances(
    reference_ZYX: np.ndarray, prediction_ZYX: np.ndarray, *, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far each surface voxel of one mask is from the other mask's surface.

    Args:
        reference_ZYX: bool, in any number of dimensions, not empty.
        prediction_ZYX: bool, same shape, not empty.
        spacing_mm: Voxel size along each axis.

    Returns:
        Distances in mm from the reference's surface voxels, and from the prediction's (float64).
    """
    reference_mm = _surface_points(reference_ZYX, spacing_mm)
    prediction_mm = _surface_points(prediction_ZYX, spacing_mm)
    from_reference, _ = cKDTree(prediction_mm).query(reference_mm)
    from_prediction, _ = cKDTree(reference_mm).query(prediction_mm)
    return from_reference, from_prediction


def diagonal_mm(shape: Sequence[int], *, spacing_mm: Sequence[float]) -> float:
    """Return the length of an image's diagonal; axes of one voxel are left out.

    No distance between two voxels of the image is longer.
    """
    extents = [size * step for size, step in zip(shape, spacing_mm, strict=True) if size > 1]
    return float(np.linalg.norm(extents))


def _rank(values: np.ndarray) -> np.ndarray:
    """Return the table from value to its place among the sorted `values`."""
    table = np.zeros(int(values[-1]) + 1, np.intp)
    table[values] = np.arange(len(values))
    return table


def _count_overlap(
    pairs: Mapping[tuple[int, int], int], values: set[int]
) -> tuple[int, int, int, int]:
    """Return true positives, false positives, false negatives and true negatives."""
    counts = np.zeros((2, 2), np.int64)
    for (reference, prediction), count in pairs.items():
        counts[int(reference in values), int(prediction in values)] += count
    return int(counts[1, 1]), int(counts[0, 1]), int(counts[1, 0]), int(counts[0, 0])


def _measure_distances(
    reference_ZYX: np.ndarray,
    prediction_ZYX: np.ndarray,
    classes: Classes,
    spacing_mm: Sequence[float],
) -> dict[str, tuple[float, float]]:
    """Return HD95 and ASSD per class."""
    penalty_mm = diagonal_mm(reference_ZYX.shape, spacing_mm=spacing_mm)
    spacing = [step for size, step in zip(reference_ZYX.shape, spacing_mm, strict=True) if size > 1]
    maps = [np.atleast_1d(np.squeeze(labels)) for labels in (reference_ZYX, prediction_ZYX)]
    boxes = [ndimage.find_objects(labels) for labels in maps]
    distances = {}
    for name, values in classes.items():
        found = [_boxes_of(values, of_map) for of_map in boxes]
        if not any(found):
            distances[name] = (np.nan, np.nan)
        elif not all(found):
            distances[name] = (penalty_mm, penalty_mm)
        else:
            around = _union(found[0] + found[1])
            masks = [np.isin(labels[around], values) for labels in maps]
            distances[name] = _summarise(
                *surface_distances(*masks, spacing_mm=spacing or list(spacing_mm[:1]))
            )
    return distances


def _boxes_of(
    values: Sequence[int], boxes: list[tuple[slice, ...] | None]
) -> list[tuple[slice, ...]]:
    found = (boxes[value - 1] for value in values if 0 < value <= len(boxes))
    return [box for box in found if box is not None]


def _union(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _summarise(
    from_reference_mm: np.ndarray, from_prediction_mm: np.ndarray
) -> tuple[float, float]:
    hd95_mm = max(np.percentile(from_reference_mm, 95), np.percentile(from_prediction_mm, 95))
    assd_mm = np.concatenate([from_reference_mm, from_prediction_mm]).mean()
    return float(hd95_mm), float(assd_mm)


def _surface_points(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the positions in mm of a mask's surface voxels, shape (number, axes)."""
    surface = mask & ~ndimage.binary_erosion(mask)
    return np.argwhere(surface) * np.asarray(spacing_mm, float)


def _to_scores(counts: tuple[int, int, int, int], distances: tuple[float, float]) -> ClassScores:
    true_positives, false_positives, false_negatives, true_negatives = counts
    union = true_positives + false_positives + false_negatives
    return ClassScores(
        dice=2 * true_positives / (union + true_positives) if union else np.nan,
        iou=true_positives / union if union else np.nan,
        num_true_positives=true_positives,
        num_false_positives=false_positives,
        num_false_negatives=false_negatives,
        num_true_negatives=true_negatives,
        hd95_mm=distances[0],
        assd_mm=distances[1],
    )
