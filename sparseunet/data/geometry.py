"""Voxel grids: their size, spacing and place in the patient.

Legend of the axis suffixes used in array names everywhere in this package:

    B  batch        C  channel or class        Z, Y, X  voxel axes; Z is the slowest in memory
    N  list items   K  selected slices

Voxel axes are always in the order (z, y, x), the order in which the array of a file is laid out;
nothing is reoriented. A 2D image is a volume with one slice along z.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SLICE_SPACING_2D_MM = 999.0
"""Spacing along z of a 2D image (nnU-Net's convention, so that fingerprints agree)."""

_TOWARDS = ("LR", "PA", "SI")
"""Letters of the world axes x, y, z in ITK's LPS: where a positive and a negative cosine point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Size, spacing and position of one voxel grid.

    Attributes:
        shape: Number of voxels along (z, y, x).
        spacing_mm: Voxel size along (z, y, x) in millimetres; positive.
        origin_mm: World position (x, y, z; LPS as in ITK) of the first voxel. Two numbers
            for a 2D file.
        direction: Direction cosines, row by row, as in ITK: column i is the world direction
            of file axis i in (x, y, z). Four numbers for a 2D file.
        dimensions: 2 for a file that holds one plane, else 3.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    dimensions: int = 3

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"Every axis needs at least one voxel, found shape {self.shape}.")
        if any(not spacing > 0 for spacing in self.spacing_mm):
            raise ValueError(f"Spacing must be positive, found {self.spacing_mm}.")
        if self.dimensions not in (2, 3):
            raise ValueError(f"A grid has 2 or 3 dimensions, found {self.dimensions}.")


def orientation(geometry: Geometry) -> str:
    """Return where the file's axes x, y, z point (L/R, P/A, S/I), by their largest component."""
    num_axes = 2 if len(geometry.direction) == 4 else 3
    letters = ""
    for axis in range(num_axes):
        cosines = geometry.direction[axis::num_axes]
        world = max(range(num_axes), key=lambda row: abs(cosines[row]))
        letters += _TOWARDS[world][cosines[world] < 0]
    return letters


def in_3d(size: Sequence[int]) -> tuple[int, int, int]:
    """Return a size along (z, y, x); one along (y, x) is one slice deep."""
    z, y, x = (1,) * (3 - len(size)) + tuple(size)
    return z, y, x
