"""One DICOM series in a folder as one scan, through SimpleITK (GDCM)."""

from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.data.itk import ITK_LOCK
from sparseunet.data.stored import (
    StoredGrid,
    StoredVolume,
    grid_geometry,
    several_volumes,
    unreadable,
)
from sparseunet.errors import RequestError

_DESCRIPTION = "0008|103e"
_UNEVEN = 0.02
"""Largest deviation of the distance of two slices from the usual one, as a part of it."""


def has_dicom(folder: Path) -> bool:
    """Return whether any DICOM series lies in a folder itself, not below it."""
    return folder.is_dir() and bool(_series(folder))


def read_dicom(folder: Path) -> StoredVolume:
    """Read the one series of a folder; rescaled to its unit (CT: Hounsfield), slices in order.

    Raises:
        UnreadableFileError: No series or several (lists them), missing or uneven slices, colour, or
            files that cannot be read.
    """
    import SimpleITK

    files = files_of_series(folder)
    grid = _grid(folder, files)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    with ITK_LOCK:
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise unreadable(folder, found="a DICOM series that cannot be read") from error
    voxels = SimpleITK.GetArrayFromImage(image)
    return StoredVolume(voxels_CZYX=voxels.reshape(1, *grid.geometry.shape), geometry=grid.geometry)


def read_dicom_grid(folder: Path) -> StoredGrid:
    """Read the headers of the one series of a folder; errors as `read_dicom`."""
    return _grid(folder, files_of_series(folder))


def files_of_series(folder: Path) -> tuple[str, ...]:
    """Return the files of the one series of a folder, in the order of its voxels along z.

    Raises:
        UnreadableFileError: No series or several (lists them).
    """
    import SimpleITK

    series = _series(folder)
    if not series:
        raise unreadable(folder, found="a folder without DICOM files", expected="one DICOM series")
    with ITK_LOCK:
        files = {
            name: tuple(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name))
            for name in series
        }
    if len(series) == 1:
        return files[series[0]]
    found = [f"{_description(files[name])!r} ({len(files[name])} files, {name})" for name in series]
    raise unreadable(
        folder,
        found=f"{len(series)} DICOM series: {'; '.join(found)}",
        expected="one series per folder",
        fix="put each series that is to be predicted into a folder of its own",
    )


def refuse_to_write_dicom(path: Path, _: np.ndarray, __: Any) -> None:
    """Say that segmentations are not written as DICOM.

    Raises:
        RequestError: Always.
    """
    raise RequestError(f"{path}: DICOM is read only; write another format, such as .nii.gz.")


def _series(folder: Path) -> tuple[str, ...]:
    import SimpleITK

    # GDCM looks at every file; where none can be DICOM it would only warn about each.
    with ITK_LOCK:
        return tuple(SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def _description(files: tuple[str, ...]) -> str:
    header = _header(files[0])
    return header.GetMetaData(_DESCRIPTION).strip() if header.HasMetaDataKey(_DESCRIPTION) else ""


def _header(file: str) -> Any:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    with ITK_LOCK:
        reader.ReadImageInformation()
    return reader


def _grid(folder: Path, files: tuple[str, ...]) -> StoredGrid:
    """Return the grid of a DICOM series from the headers of its files, given in spatial order.

    The distance of slices is the median distance of their origins along the normal of the first.

    Raises:
        UnreadableFileError: Headers cannot be read, slices differ in size, are in colour or hold
            several frames, or they do not lie at equal distances.
    """
    try:
        headers = [_header(file) for file in files]
    except RuntimeError as error:
        raise unreadable(folder, found="a DICOM file whose header cannot be read") from error
    first = headers[0]
    sizes = {header.GetSize()[:2] for header in headers}
    if len(sizes) > 1 or first.GetNumberOfComponents() > 1 or first.GetSize()[2:] not in ((1,), ()):
        found = "slices of different sizes, in colour, or with several frames in a file"
        raise several_volumes(folder, found=found)
    cosines = np.asarray(first.GetDirection()).reshape(first.GetDimension(), -1)
    normal = np.cross(cosines[:3, 0], cosines[:3, 1])
    origins = np.array([header.GetOrigin()[:3] for header in headers])
    distances = np.diff(origins @ normal)
    spacing_z = float(np.median(np.abs(distances))) if len(files) > 1 else first.GetSpacing()[2]
    if len(files) > 1:
        _require_even_slices(folder, distances, spacing_z)
        normal = normal * np.sign(distances.sum())
    return StoredGrid(
        geometry=grid_geometry(
            folder,
            shape_xyz=(*first.GetSize()[:2], len(files)),
            spacing_xyz=(*first.GetSpacing()[:2], spacing_z),
            origin_mm=origins[0].tolist(),
            direction=np.column_stack([cosines[:3, 0], cosines[:3, 1], normal]).ravel().tolist(),
        )
    )


def _require_even_slices(folder: Path, distances: np.ndarray, spacing_z: float) -> None:
    uneven = np.flatnonzero(np.abs(np.abs(distances) - spacing_z) > _UNEVEN * spacing_z)
    if spacing_z == 0 or len(uneven):
        steps = sorted({f"{abs(step):.3g}" for step in distances})
        raise unreadable(
            folder,
            found=f"slices that lie {', '.join(steps[:5])} mm apart",
            expected="slices at equal distances",
            fix="add the missing slices, or convert the series to one volume (.nii.gz) by hand",
        )
