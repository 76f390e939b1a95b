"""Bring voxels from the grid a tool saved them on back to the grid of the scan, exactly.

Tools reorder and flip axes and say so in the header; then every voxel has one place in the scan and
is moved there by its index. Nothing is ever interpolated: grids that do not fall on each other
voxel by voxel are refused.
"""

from dataclasses import dataclass

import numpy as np

from sparseunet.data.geometry import Geometry

_TOLERANCE_VOXELS = 0.1
"""Largest distance of a voxel from its place; headers round (NIfTI keeps 32-bit numbers)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The permutation, flips and offset that bring one grid onto another."""

    axes: tuple[int, int, int]
    """For each axis of the scan, the axis of the file that runs along it."""
    flipped: tuple[bool, bool, bool]
    """For each axis of the scan, whether the file runs the other way."""
    offset: tuple[int, int, int]
    """Index in the scan of the file's first voxel once its axes are in order."""


class MisplacedError(Exception):
    """Two grids do not fall on each other; `found` and `expected` say how."""

    def __init__(self, *, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"found {found}, expected {expected}")


def place_voxels(
    voxels_ZYX: np.ndarray, geometry: Geometry, *, onto: Geometry, may_be_part: bool = False
) -> np.ndarray:
    """Return the voxels in the order of the grid `onto`.

    Args:
        voxels_ZYX: On the grid `geometry`.
        geometry: As the file says.
        onto: The grid of the scan.
        may_be_part: Whether the file may hold a part of the scan only, or a larger box of which
            only what lies inside the scan holds labels; voxels of the scan that the file lacks are
            0.

    Raises:
        MisplacedError: Shifted, resampled, sheared, or flipped in a way the header does not tell.
    """
    placement = _find_placement(geometry, onto)
    placed_ZYX = np.transpose(voxels_ZYX, placement.axes)
    placed_ZYX = np.flip(placed_ZYX, tuple(axis for axis in range(3) if placement.flipped[axis]))
    if placement.offset == (0, 0, 0) and placed_ZYX.shape == onto.shape:
        return np.ascontiguousarray(placed_ZYX)
    if not may_be_part or placed_ZYX.shape == onto.shape:
        raise _not_the_same_box(placed_ZYX.shape, placement.offset, onto)
    return _embed(placed_ZYX, placement.offset, onto)


def slice_geometry(geometry: Geometry, *, axis: int, index: int) -> Geometry:
    """Return the grid of one slice, one voxel thick, where it lies in the patient."""
    if geometry.dimensions == 2:
        return geometry
    to_world, origin_mm = _affine(geometry)
    position_mm = origin_mm + to_world[:, axis] * index
    shape = tuple(1 if other == axis else size for other, size in enumerate(geometry.shape))
    return Geometry(
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=geometry.spacing_mm,
        origin_mm=tuple(float(value) for value in position_mm),
        direction=geometry.direction,
    )


def _find_placement(geometry: Geometry, onto: Geometry) -> Placement:
    """Find the permutation, flips and whole-voxel offset that bring one grid onto another.

    Voxel v of `geometry` lies at voxel `turn @ v + shift` of `onto`. If every row and every column
    of the rounded `turn` holds one ±1, axes are permuted and flipped without scaling or shear.

    Raises:
        MisplacedError: The grids differ by more than that, by more than `_TOLERANCE_VOXELS` in any
            voxel.
    """
    if geometry.dimensions != onto.dimensions:
        raise MisplacedError(
            found=f"a {geometry.dimensions}D file", expected=f"a {onto.dimensions}D file"
        )
    to_world, origin_mm = _affine(geometry)
    scan_to_world, scan_origin_mm = _affine(onto)
    turn = np.linalg.solve(scan_to_world, to_world)
    shift = np.linalg.solve(scan_to_world, origin_mm - scan_origin_mm)
    whole_turn, whole_shift = np.rint(turn), np.rint(shift)
    is_turn = (np.abs(whole_turn).sum(0) == 1).all() and (np.abs(whole_turn).sum(1) == 1).all()
    farthest = np.abs(turn - whole_turn) @ (np.asarray(geometry.shape) - 1)
    if not is_turn or farthest.max() > _TOLERANCE_VOXELS:
        raise _another_lattice(geometry, onto)
    if (np.abs(shift - whole_shift) + farthest).max() > _TOLERANCE_VOXELS:
        raise MisplacedError(
            found=f"a grid shifted by {_text(shift)} voxels along (z, y, x)",
            expected="the grid of the scan",
        )
    axes = [int(axis) for axis in np.abs(whole_turn).argmax(axis=1)]
    flipped = [bool(whole_turn[row, axis] < 0) for row, axis in enumerate(axes)]
    offset = [
        int(whole_shift[row]) - (geometry.shape[axis] - 1 if flipped[row] else 0)
        for row, axis in enumerate(axes)
    ]
    return Placement(
        axes=(axes[0], axes[1], axes[2]),
        flipped=(flipped[0], flipped[1], flipped[2]),
        offset=(offset[0], offset[1], offset[2]),
    )


def _affine(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns that lead one voxel along (z, y, x) in the world, and the origin."""
    num_axes = geometry.dimensions
    cosines, origin_mm = np.eye(3), np.zeros(3)
    cosines[:num_axes, :num_axes] = np.reshape(geometry.direction, (num_axes, num_axes))
    origin_mm[:num_axes] = geometry.origin_mm
    return cosines[:, ::-1] * np.asarray(geometry.spacing_mm), origin_mm


def _another_lattice(geometry: Geometry, onto: Geometry) -> MisplacedError:
    if not np.allclose(sorted(geometry.spacing_mm), sorted(onto.spacing_mm), rtol=1e-3):
        return MisplacedError(
            found=f"shape {geometry.shape} and spacing {_text(geometry.spacing_mm)} mm",
            expected=f"shape {onto.shape} and spacing {_text(onto.spacing_mm)} mm as the scan",
        )
    return MisplacedError(
        found=f"axes in the directions {_text(geometry.direction)}",
        expected=f"those of the scan, {_text(onto.direction)}, in any order and sense",
    )


def _not_the_same_box(
    shape: tuple[int, ...], offset: tuple[int, int, int], onto: Geometry
) -> MisplacedError:
    if shape == onto.shape:
        return MisplacedError(
            found=f"a grid shifted by {offset} voxels along (z, y, x) of the scan",
            expected="the grid of the scan; a flip must be told by direction and origin together",
        )
    return MisplacedError(found=f"shape {shape}", expected=f"shape {onto.shape} as the scan")


def _embed(voxels_ZYX: np.ndarray, offset: tuple[int, ...], onto: Geometry) -> np.ndarray:
    starts = [max(0, first) for first in offset]
    stops = [
        min(size, first + length)
        for size, first, length in zip(onto.shape, offset, voxels_ZYX.shape, strict=True)
    ]
    inside = tuple(
        slice(max(0, start - first), max(0, stop - first))
        for start, stop, first in zip(starts, stops, offset, strict=True)
    )
    lost = int(np.count_nonzero(voxels_ZYX)) - int(np.count_nonzero(voxels_ZYX[inside]))
    if lost:
        raise MisplacedError(
            found=f"{lost} voxels with labels outside the scan (a box of shape {voxels_ZYX.shape} "
            f"that starts at voxel {offset})",
            expected=f"labels inside the scan of shape {onto.shape}",
        )
    placed_ZYX = np.zeros(onto.shape, voxels_ZYX.dtype)
    part_ZYX = voxels_ZYX[inside]
    if part_ZYX.size:
        placed_ZYX[tuple(map(slice, starts, stops))] = part_ZYX
    return placed_ZYX


def _text(values: object) -> str:
    return "(" + ", ".join(f"{value + 0.0:.4g}" for value in np.asarray(values)) + ")"
