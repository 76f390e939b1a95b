"""Draw where the voxels of a patch come from."""

from collections.abc import Sequence

import numpy as np
from batchgenerators.augmentations.utils import (
    create_matrix_rotation_2d,
    create_matrix_rotation_x_3d,
    create_matrix_rotation_y_3d,
    create_matrix_rotation_z_3d,
)
from scipy.interpolate import BSpline

from sparseunet.training.augmentation import Movement


def rotate_and_zoom(angles_rad: Sequence[float], zooms: Sequence[float]) -> np.ndarray:
    """Return the matrix that zooms along the patch's axes and then rotates about the scan's.

    batchgenerators calls the first, second and third axis x, y and z.

    Args:
        angles_rad: One angle per axis in 3D, one angle in 2D.
        zooms: Per axis; objects look smaller where it is larger than 1.
    """
    scaled = np.diag(np.asarray(zooms, float))
    if len(zooms) == 2:
        return np.asarray(create_matrix_rotation_2d(angles_rad[0]) @ scaled)
    first, second, third = angles_rad
    return np.asarray(
        create_matrix_rotation_z_3d(third)
        @ create_matrix_rotation_y_3d(second)
        @ create_matrix_rotation_x_3d(first)
        @ scaled
    )


def draw_elastic(
    size: Sequence[int], rng: np.random.Generator, *, control_voxels: float, strength: float
) -> np.ndarray:
    """Draw a smooth deformation: random shifts of a coarse grid, cubic splines between them.

    Args:
        size: Sizes of the axes that are deformed.
        rng: Decides the shifts.
        control_voxels: Least distance between points of the coarse grid; at least two lie along
            each axis.
        strength: Largest shift, as a share of that distance. Below 0.4 nothing folds over.

    Returns:
        float32 (D, *size), voxels.
    """
    cells = [max(1, int((length - 1) // control_voxels)) for length in size]
    spans = np.array([(length - 1) / cell for length, cell in zip(size, cells, strict=True)])
    # A cubic spline needs one more point beyond either end.
    shifts = rng.uniform(-1, 1, (len(size), *(cell + 3 for cell in cells))).astype(np.float32)
    shifts *= (strength * spans).astype(np.float32).reshape((-1,) + (1,) * len(size))
    for axis, (length, cell) in enumerate(zip(size, cells, strict=True)):
        places = np.linspace(0, cell, length)
        weights = BSpline.design_matrix(places, np.arange(-3.0, cell + 4), 3).toarray()
        shifts = np.moveaxis(
            np.tensordot(shifts, weights.astype(np.float32), axes=(axis + 1, 1)), -1, axis + 1
        )
    return np.ascontiguousarray(shifts)


def draw_axes(axes: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Draw each of the axes with probability 0.5."""
    drawn = rng.random(len(axes)) < 0.5
    return tuple(axis for axis, taken in zip(axes, drawn.tolist(), strict=True) if taken)


def draw_nnunet_movement(
    dimensions: int, angle_rad: float, mirror_axes: Sequence[int], rng: np.random.Generator
) -> Movement:
    """Draw a rotation and a zoom, 0.2 each, and axes to mirror (nnU-Net 2.8.1).

    Args:
        dimensions: Number of axes, the last ones, that are rotated.
        angle_rad: Largest rotation about each axis.
        mirror_axes: Axes that may be mirrored.
        rng: Decides everything.
    """
    rotated, zoomed = rng.random(2) < 0.2
    matrix = None
    if rotated or zoomed:
        count = 1 if dimensions == 2 else dimensions
        angles = rng.uniform(-angle_rad, angle_rad, count) if rotated else np.zeros(count)
        zoom = rng.uniform(0.7, 1.4) if zoomed else 1.0
        matrix = rotate_and_zoom(angles.tolist(), [zoom] * dimensions)
    return Movement(matrix=matrix, mirrored_axes=draw_axes(mirror_axes, rng))
