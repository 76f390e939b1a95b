"""Slices as people look at them: the name of the view, its place and which side is up."""

import numpy as np

from sparseunet.data.geometry import Geometry

AXIS_NAMES = ("z", "y", "x")
_VIEWS = ("sagittal", "coronal", "axial")
"""By the patient's axis (left, posterior, superior) that the slices lie across."""
_UPWARDS = "RAS"


def view_name(geometry: Geometry, axis: int) -> str:
    """Return the anatomical plane that slices across `axis` are nearest to; `plane` for 2D."""
    return "plane" if geometry.dimensions == 2 else _VIEWS[_patient_axis(geometry, axis)]


def slice_offset(geometry: Geometry, *, axis: int, index: int) -> str:
    """Return where a slice lies along its normal in patient space, e.g. `S -12.50 mm` (RAS)."""
    if geometry.dimensions == 2:
        return "0"
    normal = np.asarray(_cosines(geometry, axis)) * (-1, -1, 1)  # LPS to RAS
    letter = _patient_axis(geometry, axis)
    if normal[letter] < 0:
        normal = -normal
    step = np.asarray(_cosines(geometry, axis)) * geometry.spacing_mm[axis] * index
    position_mm = (np.asarray(geometry.origin_mm) + step) * (-1, -1, 1)
    return f"{_UPWARDS[letter]} {normal @ position_mm:.2f} mm"


def as_shown(plane: np.ndarray, geometry: Geometry, axis: int) -> np.ndarray:
    """Turn a slice as radiologists see it: front or head up, the patient's right on the left.

    Args:
        plane: The slice, its axes in the order of the file.
        geometry: Of the volume.
        axis: The slice lies across it.

    Returns:
        A view of the plane with axes swapped or flipped; 2D files are left as they are.
    """
    if geometry.dimensions == 2:
        return plane
    first, second = (other for other in range(3) if other != axis)
    rows, columns = _patient_axis(geometry, first), _patient_axis(geometry, second)
    if rows < columns:  # down the picture lies the later one of (left, posterior, superior)
        plane, first, second = plane.T, second, first
        rows, columns = columns, rows
    down = 1.0 if rows == 1 else -1.0  # towards the back in axial views, else towards the feet
    if _cosines(geometry, first)[rows] * down < 0:
        plane = plane[::-1]
    if _cosines(geometry, second)[columns] < 0:
        plane = plane[:, ::-1]
    return plane


def swaps_axes(geometry: Geometry, axis: int) -> bool:
    """Return whether `as_shown` exchanges rows and columns."""
    if geometry.dimensions == 2:
        return False
    first, second = (other for other in range(3) if other != axis)
    return _patient_axis(geometry, first) < _patient_axis(geometry, second)


def _cosines(geometry: Geometry, axis: int) -> tuple[float, ...]:
    """Return the world direction (x, y, z; LPS) of a file axis given in the order (z, y, x)."""
    return geometry.direction[2 - axis :: 3]


def _patient_axis(geometry: Geometry, axis: int) -> int:
    return int(np.argmax(np.abs(_cosines(geometry, axis))))
