"""One file as it lies on disk: voxels in their stored type, the grid, and what is odd about it."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.data.geometry import SLICE_SPACING_2D_MM, Geometry
from sparseunet.errors import UnreadableFileError

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Irregularity:
    """Something in a file that is not as it should be, but can be read in one sensible way."""

    found: str
    expected: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredGrid:
    """The grid and number of channels in the header of one file."""

    geometry: Geometry
    num_channels: int = 1
    """Number of channels; more than one for a colour picture."""
    irregularities: tuple[Irregularity, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredVolume:
    """Voxels and grid of one file."""

    voxels_CZYX: np.ndarray
    """Real numbers in the type of the file; floating point where the file states a scaling."""
    geometry: Geometry
    irregularities: tuple[Irregularity, ...] = ()


def grid_geometry(
    path: Path,
    *,
    shape_xyz: Sequence[int],
    spacing_xyz: Sequence[float],
    origin_mm: Sequence[float],
    direction: Sequence[float],
) -> Geometry:
    """Return the geometry of a volume (three axes) or a plane (two) given in file order (x, y, z).

    The slice spacing of a plane is 999 times its larger pixel size (nnU-Net 2.8.1).

    Raises:
        UnreadableFileError: A size or a spacing is not positive and finite.
    """
    spacing = tuple(float(value) for value in reversed(spacing_xyz))
    shape = tuple(int(size) for size in reversed(shape_xyz))
    if min(shape) < 1 or not all(0 < value < float("inf") for value in spacing):
        raise unreadable(
            path,
            found=f"shape {shape} and voxel size {spacing} along (z, y, x)",
            expected="at least one voxel along each axis and positive, finite voxel sizes",
            fix="correct the header",
        )
    dimensions = len(shape)
    if dimensions == 2:
        shape, spacing = (1, *shape), (SLICE_SPACING_2D_MM * max(spacing), *spacing)
    return Geometry(
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        origin_mm=tuple(float(value) for value in origin_mm),
        direction=tuple(_snap(float(value)) for value in direction),
        dimensions=dimensions,
    )


def picture_geometry(height: int, width: int) -> Geometry:
    """Return the grid of a picture without physical size: 1 mm in the plane (nnU-Net 2.8.1)."""
    return Geometry(
        shape=(1, height, width),
        spacing_mm=(SLICE_SPACING_2D_MM, 1.0, 1.0),
        origin_mm=(0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 1.0),
        dimensions=2,
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises inside the block into an UnreadableFileError naming `path`."""
    try:
        if path.stat().st_size == 0:
            raise unreadable(path, found="a file of 0 bytes")
        yield
    except FileNotFoundError:
        raise unreadable(path, found="no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable(path, found=f"damaged or cut off compressed data ({error})") from error
    except (OSError, ValueError, RuntimeError, SyntaxError, OverflowError) as error:
        raise unreadable(path, found=f"an unreadable file ({_last_line(error)})") from error


def unreadable(
    path: Path,
    *,
    found: str,
    expected: str = "a complete image file",
    fix: str = "copy or export the file again",
) -> UnreadableFileError:
    """Return the error for a file that cannot be used; the caller raises it."""
    return UnreadableFileError(file=str(path), found=found, expected=expected, fix=fix)


def several_volumes(path: Path, *, found: str) -> UnreadableFileError:
    """Return the error for a file with more than three axes or several values per voxel."""
    return unreadable(
        path,
        found=found,
        expected="one volume with three axes (or one plane with two) and one number per voxel",
        fix="write each channel or time point to its own file CASE_0000, CASE_0001, ...",
    )


def _snap(cosine: float) -> float:
    """Undo the rounding that NRRD's product of direction and spacing leaves on parallel axes."""
    nearest = round(cosine)
    return float(nearest) if abs(cosine - nearest) < _ROUNDING else cosine


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
