"""NIfTI files, read strictly.

ITK's reader turns NaN and infinity into 0, fills what a cut-off file lacks, and refuses axes that
are not at right angles. So the voxels are read here, every byte accounted for and the checksum of
compressed files verified; ITK only interprets the header, so that geometry agrees with what ITK
writes.
"""

import gzip
from pathlib import Path
from typing import IO, Any

import numpy as np

from sparseunet.data.geometry import Geometry
from sparseunet.data.itk import geometry_from_itk
from sparseunet.data.stored import (
    Irregularity,
    StoredGrid,
    StoredVolume,
    grid_geometry,
    reading,
    several_volumes,
    unreadable,
)

_SHEAR_TOLERANCE = 1e-3


def read_nifti(path: Path) -> StoredVolume:
    """Read one NIfTI file (`.nii`, `.nii.gz`) with one volume or plane.

    Raises:
        UnreadableFileError: Cut off, damaged, more than three axes, or not real numbers.
    """
    with reading(path), _open(path) as stream:
        header = _read_header(path, stream)
        shape_xyz = _spatial_shape(path, header)
        stored = _read_voxels(path, stream, header, shape_xyz)
        voxels_ZYX = _scale(stored.reshape(shape_xyz[::-1]), *header.get_slope_inter())
        grid = _grid(path, header, shape_xyz)
    return StoredVolume(
        voxels_CZYX=voxels_ZYX.reshape(1, *grid.geometry.shape),
        geometry=grid.geometry,
        irregularities=grid.irregularities,
    )


def read_nifti_grid(path: Path) -> StoredGrid:
    """Read the header of one NIfTI file."""
    with reading(path), _open(path) as stream:
        header = _read_header(path, stream)
        return _grid(path, header, _spatial_shape(path, header))


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_compressed else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path, stream: IO[bytes]) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = stream.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    kind, size = (Nifti2Header, 540) if 540 in sizes else (Nifti1Header, 348)
    content = start + stream.read(size - 4)
    if size not in sizes or len(content) < size:
        raise unreadable(path, found="no NIfTI header")
    header = kind(content, check=False)
    if not bytes(header["magic"]).startswith(b"n+"):
        raise unreadable(path, found="no single-file NIfTI header (magic n+1)")
    if header.get_data_dtype().kind not in "iuf":
        raise several_volumes(path, found=f"voxels of type {header.get_value_label('datatype')}")
    return header


def _spatial_shape(path: Path, header: Any) -> tuple[int, ...]:
    """Return the sizes along (x, y[, z]); axes of length 1 behind the third do not count."""
    shape = tuple(int(size) for size in header.get_data_shape())
    spatial = shape
    while len(spatial) > 3 and spatial[-1] == 1:
        spatial = spatial[:-1]
    if len(spatial) > 3:
        raise several_volumes(path, found=f"{len(spatial)} axes of sizes {spatial} (4D)")
    if len(spatial) < 2 or min(spatial) < 1:
        raise unreadable(path, found=f"axes of sizes {shape}", expected="two or three axes")
    return spatial


def _read_voxels(
    path: Path, stream: IO[bytes], header: Any, shape_xyz: tuple[int, ...]
) -> np.ndarray:
    skip = max(int(header["vox_offset"]), int(header["sizeof_hdr"]) + 4) - int(header["sizeof_hdr"])
    stream.read(skip)
    voxels = np.empty(int(np.prod(shape_xyz)), header.get_data_dtype())
    target = voxels.view(np.uint8).data
    num_read = 0
    while num_read < len(target):
        count = stream.readinto(target[num_read:])  # type: ignore[attr-defined]
        if not count:
            found = f"a cut-off file, {num_read} of {len(target)} bytes of voxels"
            raise unreadable(path, found=found)
        num_read += count
    while stream.read(1 << 20):  # to the end, where gzip verifies its checksum
        pass
    return voxels


def _scale(voxels_ZYX: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
    """Apply the header's scaling in double precision, slice by slice to keep memory low."""
    native = voxels_ZYX.dtype.newbyteorder("=")
    if slope is None or (slope == 1.0 and not intercept):
        return voxels_ZYX.astype(native, copy=False)
    scaled_ZYX = np.empty(voxels_ZYX.shape, np.float32)
    for target_YX, stored_YX in zip(scaled_ZYX, voxels_ZYX, strict=True):
        target_YX[:] = stored_YX.astype(np.float64) * slope + (intercept or 0.0)
    return scaled_ZYX


def _grid(path: Path, header: Any, shape_xyz: tuple[int, ...]) -> StoredGrid:
    zooms = np.asarray(header["pixdim"][1 : 1 + len(shape_xyz)], float)
    if (zooms < 0).any():
        irregularity = Irregularity(
            found=f"negative voxel size (pixdim) {_text(zooms)}",
            expected="positive voxel sizes",
            fix="the absolute value is used; correct pixdim in the header",
        )
        header["pixdim"][1 : 1 + len(shape_xyz)] = np.abs(zooms)
        return _grid_from_affine(path, header, shape_xyz, [irregularity])
    geometry = geometry_from_itk(path, image_io="NiftiImageIO")
    if geometry is not None and geometry.shape[::-1][: len(shape_xyz)] == shape_xyz:
        return StoredGrid(geometry=geometry, irregularities=_without_size(zooms, geometry))
    return _grid_from_affine(path, header, shape_xyz, [])


def _without_size(zooms: np.ndarray, geometry: Geometry) -> tuple[Irregularity, ...]:
    """Return a word about axes along which the header gives no voxel size (pixdim 0)."""
    missing = [axis for axis, zoom in enumerate(zooms) if not zoom]
    if not missing:
        return ()
    used = geometry.spacing_mm[::-1]
    names, sizes = (", ".join(str(row[axis]) for axis in missing) for row in ("xyz", used))
    return (
        Irregularity(
            found=f"no voxel size along {names} (pixdim {_text(zooms)})",
            expected="positive voxel sizes",
            fix=f"{sizes} mm is used, which may be far from the truth; correct the header",
        ),
    )


def _grid_from_affine(
    path: Path, header: Any, shape_xyz: tuple[int, ...], irregularities: list[Irregularity]
) -> StoredGrid:
    """Interpret the affine without ITK, with the nearest directions at right angles."""
    num_axes = len(shape_xyz)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ header.get_best_affine()  # RAS to LPS
    columns = affine[:3, :num_axes]
    spacing_xyz = np.linalg.norm(columns, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = columns / spacing_xyz
    if not np.isfinite(cosines).all():
        cosines = np.eye(3)[:, :num_axes]  # the spacing is refused below, naming its values
    if np.abs(cosines.T @ cosines - np.eye(num_axes)).max() > _SHEAR_TOLERANCE:
        irregularities = [*irregularities, _shear(cosines)]
        left, _, right = np.linalg.svd(cosines, full_matrices=False)
        cosines = left @ right
    return StoredGrid(
        geometry=grid_geometry(
            path,
            shape_xyz=shape_xyz,
            spacing_xyz=spacing_xyz.tolist(),
            origin_mm=affine[:num_axes, 3].tolist(),
            direction=_file_direction(cosines),
        ),
        irregularities=tuple(irregularities),
    )


def _file_direction(cosines: np.ndarray) -> list[float]:
    """Return the cosines row by row; a plane not parallel to x and y gets the identity."""
    num_axes = cosines.shape[1]
    square = cosines[:num_axes]
    if abs(np.linalg.det(square)) < _SHEAR_TOLERANCE:
        square = np.eye(num_axes)
    return [float(value) for value in square.ravel()]


def _shear(cosines: np.ndarray) -> Irregularity:
    products = (cosines.T @ cosines)[np.triu_indices(cosines.shape[1], k=1)]
    angles = np.degrees(np.arccos(np.clip(products, -1.0, 1.0)))
    return Irregularity(
        found=f"a sheared affine, axes {_text(angles)} degrees apart",
        expected="axes at right angles",
        fix="the nearest axes at right angles are used; resample the scan to a regular grid "
        "if its shape matters",
    )


def _text(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
