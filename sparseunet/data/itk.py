"""NRRD and MetaImage files through SimpleITK, and writing of every physical format.

SimpleITK's readers and writers may crash the process when two threads use them at once
(SimpleITK issue 74), so every use of them, here and elsewhere, holds `ITK_LOCK`.
"""

import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.artifacts import atomic_path
from sparseunet.data.geometry import Geometry
from sparseunet.data.stored import (
    Irregularity,
    StoredGrid,
    StoredVolume,
    grid_geometry,
    reading,
    several_volumes,
    unreadable,
)

ITK_LOCK = threading.Lock()

_SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredLayers:
    """A file with one or several values per voxel, in memory."""

    voxels_LZYX: np.ndarray
    """In the type of the file; L counts the values per voxel."""
    geometry: Geometry
    metadata: Mapping[str, str]
    """Keys of the header that are no part of its format."""


def read_itk(path: Path) -> StoredVolume:
    """Read one NRRD or MetaImage file with one volume or plane.

    Raises:
        UnreadableFileError: Cut off, damaged, more than three axes, or several values per voxel.
    """
    import SimpleITK

    with reading(path):
        grid = read_itk_grid(path)
        try:
            with ITK_LOCK:
                image = SimpleITK.ReadImage(str(path))
        except RuntimeError as error:
            raise unreadable(path, found="a cut-off or damaged file") from error
        voxels = SimpleITK.GetArrayFromImage(image)
        if path.suffix == ".nrrd":
            _require_whole_nrrd(path, voxels.nbytes)
    return StoredVolume(
        voxels_CZYX=voxels.reshape(1, *grid.geometry.shape),
        geometry=grid.geometry,
        irregularities=grid.irregularities,
    )


def read_itk_grid(path: Path) -> StoredGrid:
    """Read the header of one NRRD or MetaImage file.

    Axes that are not at right angles are kept as they are, and reported.
    """
    with reading(path):
        geometry = geometry_from_itk(path)
    if geometry is None:
        raise unreadable(path, found="a damaged or missing header")
    cosines = np.asarray(geometry.direction).reshape(geometry.dimensions, geometry.dimensions)
    skew = np.abs(cosines.T @ cosines - np.eye(geometry.dimensions)).max()
    if skew <= _SHEAR_TOLERANCE:
        return StoredGrid(geometry=geometry)
    irregularity = Irregularity(
        found="sheared axes",
        expected="axes at right angles",
        fix="the axes are treated as if at right angles; resample the scan to a regular grid "
        "if its shape matters",
    )
    return StoredGrid(geometry=geometry, irregularities=(irregularity,))


def geometry_from_itk(path: Path, *, image_io: str = "") -> Geometry | None:
    """Return the geometry in the header as ITK understands it, or None where ITK refuses the file.

    Raises:
        UnreadableFileError: More than three axes, or several values per voxel.
    """
    import SimpleITK

    with ITK_LOCK:
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO(image_io)
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    shape_xyz = reader.GetSize()
    num_file_axes = len(shape_xyz)
    while len(shape_xyz) > 3 and shape_xyz[-1] == 1:
        shape_xyz = shape_xyz[:-1]
    if len(shape_xyz) > 3:
        raise several_volumes(path, found=f"{len(shape_xyz)} axes of sizes {shape_xyz} (4D)")
    if reader.GetNumberOfComponents() > 1:
        found = f"{reader.GetNumberOfComponents()} values per voxel"
        raise several_volumes(path, found=found)
    num_axes = len(shape_xyz)
    direction = np.asarray(reader.GetDirection()).reshape(num_file_axes, num_file_axes)
    return grid_geometry(
        path,
        shape_xyz=shape_xyz,
        spacing_xyz=reader.GetSpacing()[:num_axes],
        origin_mm=reader.GetOrigin()[:num_axes],
        direction=direction[:num_axes, :num_axes].ravel().tolist(),
    )


def read_itk_layers(path: Path) -> StoredLayers:
    """Read a NRRD or MetaImage file that may hold several values per voxel, and its own keys.

    Raises:
        UnreadableFileError: Cut off, damaged, or not two or three axes in space.
    """
    import SimpleITK

    with reading(path):
        with ITK_LOCK:
            image = SimpleITK.ReadImage(str(path))
        if image.GetDimension() > 3:
            raise several_volumes(path, found=f"axes of sizes {image.GetSize()}")
        voxels = SimpleITK.GetArrayFromImage(image)
        if path.suffix == ".nrrd":
            _require_whole_nrrd(path, voxels.nbytes)
        geometry = grid_geometry(
            path,
            shape_xyz=image.GetSize(),
            spacing_xyz=image.GetSpacing(),
            origin_mm=image.GetOrigin(),
            direction=image.GetDirection(),
        )
    if image.GetNumberOfComponentsPerPixel() == 1:
        voxels = voxels[..., None]
    return StoredLayers(
        voxels_LZYX=np.moveaxis(voxels, -1, 0).reshape(-1, *geometry.shape),
        geometry=geometry,
        metadata={key: image.GetMetaData(key) for key in image.GetMetaDataKeys()},
    )


def write_itk(
    path: Path,
    voxels_ZYX: np.ndarray,
    geometry: Geometry,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one volume or plane in the format of the ending, compressed, with its geometry.

    The file appears whole or not at all; the same input gives the same bytes. `metadata` is written
    as keys of its own into formats that have room for it (NRRD).
    """
    import SimpleITK

    is_plane = geometry.dimensions == 2
    image = SimpleITK.GetImageFromArray(voxels_ZYX[0] if is_plane else voxels_ZYX)
    spacing_zyx = geometry.spacing_mm[1:] if is_plane else geometry.spacing_mm
    image.SetSpacing(spacing_zyx[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    for key, value in (metadata or {}).items():
        image.SetMetaData(key, value)
    with atomic_path(path) as temporary:
        with ITK_LOCK:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True)
        for companion in temporary.parent.iterdir():  # MetaImage keeps voxels in a second file
            if companion != temporary:
                companion.replace(path.parent / companion.name)


def _require_whole_nrrd(path: Path, num_bytes: int) -> None:
    """Refuse gzip data without its checksum, which the NRRD library does not look at.

    The last four bytes of whole gzip data are its length; only where they are not, the data is
    unpacked once more to be sure.
    """
    with path.open("rb") as stream:
        is_compressed = False
        for line in iter(stream.readline, b""):
            if not line.strip():
                break
            is_compressed |= line.lower().startswith(b"encoding:") and b"gz" in line.lower()
            if line.lower().startswith((b"data file:", b"datafile:")):
                return
        if not is_compressed:
            return
        start = stream.tell()
        stream.seek(-4, 2)
        if int.from_bytes(stream.read(4), "little") == num_bytes % 2**32:
            return
        stream.seek(start)
        with gzip.open(stream) as unpacked:
            while unpacked.read(1 << 20):
                pass
