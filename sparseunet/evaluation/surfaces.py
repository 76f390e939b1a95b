"""Distances between the surfaces of two masks, in mm.

The surface of a mask is the set of its voxels with a face neighbour outside it, the edge of the
image counting as outside; a distance runs from the centre of a surface voxel to the centre of the
nearest surface voxel of the other mask. This is MONAI's definition. Tools that put the surface
between voxels and weigh its elements by area (DeepMind's surface-distance) give other numbers.

    HD      the largest of all distances, from the reference's surface and from the prediction's
    HD95    the larger of the 95th percentiles (linear interpolation) of the two directions
    ASSD    the mean over all distances, both directions together; also called ADB (Z20)
    AHD     the mean of the two directions' means: average Hausdorff distance (P23)
    NSD     the share of surface voxels, of both masks together, within a tolerance of the other
            surface: normalised surface Dice

Example in one row of 1 mm voxels: the reference covers voxels 2 to 5, the prediction 2 to 8. Their
surfaces are voxels {2, 5} and {2, 8}. From the reference's the distances are 0 and 3 mm, from the
prediction's 0 and 3. HD is 3, HD95 the 95th percentile of (0, 3), 2.85; ASSD and AHD are 1.5; the
NSD with a tolerance of 1 mm is 2 of 4 voxels, 0.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

Classes = Mapping[str, tuple[int, ...]]
"""Name of a class or region to the label values it is the union of."""
_ROUNDING = 1e-9
"""Relative; a distance that equals the tolerance lies within it, however it was rounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceScores:
    """How far two surfaces are from each other.

    NaN if the class is in neither map or the reference is sparse. If it is in one map only,
    distances are the length of the image's diagonal and the surface Dice is 0, so that a mean over
    cases cannot hide the failure.
    """

    hd_mm: float
    hd95_mm: float
    assd_mm: float
    average_hausdorff_mm: float
    surface_dice: float


UNKNOWN_SURFACES = SurfaceScores(
    hd_mm=np.nan,
    hd95_mm=np.nan,
    assd_mm=np.nan,
    average_hausdorff_mm=np.nan,
    surface_dice=np.nan,
)


def score_surfaces(
    reference_ZYX: np.ndarray,
    prediction_ZYX: np.ndarray,
    *,
    classes: Classes,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> dict[str, SurfaceScores]:
    """Compare the surfaces of every class of two dense label maps.

    Args:
        reference_ZYX: Unsigned label map. Axes of one voxel (a 2D image) have no surface across.
        prediction_ZYX: Unsigned label map of the same shape.
        classes: What to score.
        spacing_mm: Voxel size along each axis.
        tolerance_mm: Of the normalised surface Dice.
    """
    # Axes of one voxel are dropped, or every voxel would lie on the border of the image.
    penalty_mm = diagonal_mm(reference_ZYX.shape, spacing_mm=spacing_mm)
    spacing = [step for size, step in zip(reference_ZYX.shape, spacing_mm, strict=True) if size > 1]
    maps = [np.atleast_1d(np.squeeze(labels)) for labels in (reference_ZYX, prediction_ZYX)]
    boxes = [ndimage.find_objects(labels) for labels in maps]
    scores = {}
    for name, values in classes.items():
        found = [_boxes_of(values, of_map) for of_map in boxes]
        if not any(found):
            scores[name] = UNKNOWN_SURFACES
        elif not all(found):
            scores[name] = _one_sided(penalty_mm)
        else:
            # The box around both masks is enough: outside it there is no surface voxel of either.
            around = _union(found[0] + found[1])
            masks = [np.isin(labels[around], values) for labels in maps]
            distances = surface_distances(*masks, spacing_mm=spacing or list(spacing_mm[:1]))
            scores[name] = summarise_distances(*distances, tolerance_mm=tolerance_mm)
    return scores


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
    reference, prediction = find_surface(reference_ZYX), find_surface(prediction_ZYX)
    steps_mm = np.asarray(spacing_mm, float)
    return (
        _distances_to(reference, prediction, steps_mm),
        _distances_to(prediction, reference, steps_mm),
    )


def find_surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a bool mask with a face neighbour outside it or outside the image."""
    # A voxel is inside if it and both its face neighbours along every axis belong to the mask:
    # 0 1 1 1 0 has the inside 0 0 1 0 0 and the surface 0 1 0 1 0.
    inside = mask.copy()
    for axis in range(mask.ndim):
        of_mask, of_inside = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        of_inside[1:] &= of_mask[:-1]
        of_inside[:-1] &= of_mask[1:]
        of_inside[[0, -1]] = False
    return mask & ~inside


def summarise_distances(
    from_reference_mm: np.ndarray, from_prediction_mm: np.ndarray, *, tolerance_mm: float
) -> SurfaceScores:
    """Return the scores of two surfaces, given the distances `surface_distances` measures."""
    directions = (from_reference_mm, from_prediction_mm)
    both_mm = np.concatenate(directions)
    return SurfaceScores(
        hd_mm=float(both_mm.max()),
        hd95_mm=float(max(np.percentile(distances, 95) for distances in directions)),
        assd_mm=float(both_mm.mean()),
        average_hausdorff_mm=float(np.mean([distances.mean() for distances in directions])),
        surface_dice=float(np.mean(both_mm <= tolerance_mm * (1 + _ROUNDING))),
    )


def diagonal_mm(shape: Sequence[int], *, spacing_mm: Sequence[float]) -> float:
    """Return the length of an image's diagonal; axes of one voxel are left out.

    No distance between two voxels of the image is longer.
    """
    extents = [size * step for size, step in zip(shape, spacing_mm, strict=True) if size > 1]
    return float(np.linalg.norm(extents))


def _distances_to(surface: np.ndarray, other: np.ndarray, steps_mm: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel of `surface` to `other`; a shared voxel needs no search."""
    distances_mm = np.zeros(np.count_nonzero(surface))
    apart = ~other[surface]
    if apart.any():
        points_mm = np.argwhere(other) * steps_mm
        tree = cKDTree(points_mm, leafsize=32, compact_nodes=False, balanced_tree=False)  # fastest
        distances_mm[apart] = tree.query(np.argwhere(surface)[apart] * steps_mm)[0]
    return distances_mm


def _one_sided(penalty_mm: float) -> SurfaceScores:
    """Return the scores of a class that is in one of the two maps only."""
    return SurfaceScores(
        hd_mm=penalty_mm,
        hd95_mm=penalty_mm,
        assd_mm=penalty_mm,
        average_hausdorff_mm=penalty_mm,
        surface_dice=0.0,
    )


def _boxes_of(
    values: Sequence[int], boxes: list[tuple[slice, ...] | None]
) -> list[tuple[slice, ...]]:
    """Return the boxes of the values that occur; `boxes[value - 1]` is that of a value."""
    found = (boxes[value - 1] for value in values if 0 < value <= len(boxes))
    return [box for box in found if box is not None]


def _union(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
