"""Which reader and writer belongs to which file ending."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sparseunet.data.dicom import read_dicom, read_dicom_grid, refuse_to_write_dicom
from sparseunet.data.geometry import Geometry
from sparseunet.data.itk import read_itk, read_itk_grid, write_itk
from sparseunet.data.nifti import read_nifti, read_nifti_grid
from sparseunet.data.pictures import read_picture, read_picture_grid, write_picture
from sparseunet.data.stored import StoredGrid, StoredVolume, unreadable
from sparseunet.data.tiff import read_tiff, read_tiff_grid, write_tiff
from sparseunet.errors import RequestError


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """How files of one kind are read and written."""

    read: Callable[[Path], StoredVolume]
    read_labels: Callable[[Path], StoredVolume]
    read_grid: Callable[[Path], StoredGrid]
    write: Callable[[Path, np.ndarray, Geometry], None]
    may_hold_colour: bool = False
    """Whether one file may hold several channels."""


def _write_plane(path: Path, voxels_ZYX: np.ndarray, geometry: Geometry) -> None:
    if geometry.shape[0] != 1:
        raise RequestError(
            f"{path} cannot hold {geometry.shape[0]} slices; write a volume as .nii.gz instead."
        )
    write_picture(path, voxels_ZYX[0])


_NIFTI = FileFormat(
    read=read_nifti, read_labels=read_nifti, read_grid=read_nifti_grid, write=write_itk
)
_ITK = FileFormat(read=read_itk, read_labels=read_itk, read_grid=read_itk_grid, write=write_itk)
_PICTURE = FileFormat(
    read=read_picture,
    read_labels=partial(read_picture, palette="index"),
    read_grid=read_picture_grid,
    write=_write_plane,
    may_hold_colour=True,
)
_TIFF = FileFormat(
    read=read_tiff,
    read_labels=read_tiff,
    read_grid=read_tiff_grid,
    write=write_tiff,
    may_hold_colour=True,
)
_DICOM = FileFormat(
    read=read_dicom,
    read_labels=read_dicom,
    read_grid=read_dicom_grid,
    write=refuse_to_write_dicom,
)
FORMATS = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".nrrd": _ITK,
    ".mha": _ITK,
    ".mhd": _ITK,
    ".png": _PICTURE,
    ".bmp": _PICTURE,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
"""File ending, with the dot and in lower case, to its format."""


def format_of(path: Path) -> FileFormat:
    """Return the format of a file by its ending, whatever its case; a folder is DICOM.

    Raises:
        UnreadableFileError: No reader for this ending; lists those there are.
    """
    for ending, file_format in FORMATS.items():
        if path.name.lower().endswith(ending):
            return file_format
    if path.is_dir():
        return _DICOM
    raise unreadable(
        path,
        found=f"the file ending {''.join(path.suffixes[-2:]) or '(none)'}",
        expected=f"one of {', '.join(FORMATS)}",
        fix="convert the file",
    )
