"""DICOM series with known voxels, as a scanner's export would hold them."""

import locale
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_series(
    folder: Path,
    voxels_ZYX: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    direction: Sequence[float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    origin_mm: Sequence[float] = (-10.0, 20.0, 5.0),
    name: str = "phantom",
    number: int = 1,
) -> None:
    """Write one CT slice per file, named in an order that is not that of the slices."""
    import SimpleITK

    folder.mkdir(parents=True, exist_ok=True)
    volume = SimpleITK.GetImageFromArray(voxels_ZYX.astype(np.int16))
    volume.SetSpacing(tuple(spacing_mm)[::-1])
    volume.SetOrigin(tuple(origin_mm))
    volume.SetDirection(tuple(direction))
    cosines = np.asarray(direction).reshape(3, 3)
    orientation = "\\".join(f"{value:.9g}" for value in [*cosines[:, 0], *cosines[:, 1]])
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    before = locale.setlocale(locale.LC_CTYPE)
    for index in range(len(voxels_ZYX)):
        plane = volume[:, :, index]
        position = volume.TransformIndexToPhysicalPoint((0, 0, index))
        tags = {
            "0008|0060": "CT",
            "0008|103e": name,
            "0008|0018": f"1.2.826.0.1.{number}.{index + 1}",
            "0020|000d": "1.2.826.0.1.100",
            "0020|000e": f"1.2.826.0.1.200.{number}",
            "0020|0052": "1.2.826.0.1.300",
            "0020|0011": str(number),
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(f"{value:.9g}" for value in position),
            "0020|0037": orientation,
            "0018|0050": f"{spacing_mm[0]:.9g}",
        }
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        shuffled = (index * 5 + 3) % len(voxels_ZYX)
        writer.SetFileName(str(folder / f"{name}_{shuffled:03d}_{index:03d}.dcm"))
        writer.Execute(plane)
    # ITK's DICOM writer leaves the whole process in the C locale, where text is ASCII.
    locale.setlocale(locale.LC_CTYPE, before)
