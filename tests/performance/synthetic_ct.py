"""Datasets whose spacings force every branch of resampling; the same seed, the same bytes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import ndimage

LARGE_SPACINGS_MM = (
    (2.5, 0.75, 0.75),
    (2.4, 0.72, 0.72),
    (2.6, 0.78, 0.78),
    (2.5, 0.70, 0.70),
    (2.0, 0.80, 0.80),
    (3.0, 0.76, 0.76),
)
"""Ratios above and below three: separate slices and full 3D interpolation."""
LARGE_SHAPE = (120, 512, 512)
THICK_SPACINGS_MM = (
    (5.0, 0.9, 0.9),
    (5.0, 0.8, 0.7),
    (6.0, 0.95, 0.95),
    (2.0, 0.8, 0.8),
    (1.5, 1.0, 1.0),
    (4.0, 1.0, 1.0),
    (5.0, 0.65, 0.65),
)
THICK_SHAPE = (30, 120, 112)
SAGITTAL_SPACINGS_MM = tuple((y, x, z) for z, y, x in THICK_SPACINGS_MM)
SAGITTAL_SHAPE = (120, 112, 30)
"""Slices across the last axis, so that plans transpose."""
BRAIN_SPACINGS_MM = ((1.0, 1.0, 1.0), (1.2, 0.9, 0.9), (4.0, 0.8, 0.8), (1.0, 1.3, 0.7))
BRAIN_SHAPE = (60, 80, 70)
_ORGANS_HU = {1: 60.0, 2: 140.0, 3: -60.0, 4: 300.0}


def write_dataset(
    folder: Path,
    *,
    shape: Sequence[int],
    spacings_mm: Sequence[Sequence[float]],
    channels: Sequence[str] = ("CT",),
    seed: int = 0,
) -> Path:
    """Write a dataset of ellipsoid organs in a body, one case per spacing.

    Channels called CT are in air, others in zeros as if the skull had been stripped.
    """
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "labelsTr").mkdir(parents=True, exist_ok=True)
    for number, spacing_mm in enumerate(spacings_mm):
        rng = np.random.default_rng([seed, number])
        body_ZYX, labels_ZYX = _anatomy(shape, rng)
        name = f"case_{number:03d}"
        for channel, kind in enumerate(channels):
            image_ZYX = _image(body_ZYX, labels_ZYX, rng, is_ct=kind == "CT")
            path = folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            _write(path, image_ZYX, spacing_mm)
        _write(folder / "labelsTr" / f"{name}.nii.gz", labels_ZYX, spacing_mm)
    description = {
        "channel_names": {str(channel): kind for channel, kind in enumerate(channels)},
        "labels": {"background": 0, **{f"organ_{value}": value for value in _ORGANS_HU}},
        "numTraining": len(spacings_mm),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1))
    return folder


def _anatomy(shape: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of the body, and labels within it."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in shape]
    z, y, x = np.ix_(*axes)
    body_ZYX = (z / 0.95) ** 4 + (y / 0.8) ** 2 + (x / 0.9) ** 2 < 1
    labels_ZYX = np.zeros(tuple(shape), np.uint8)
    for value in _ORGANS_HU:
        center, radius = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.12, 0.35, 3)
        parts = [((a - c) / r) ** 2 for a, c, r in zip((z, y, x), center, radius, strict=True)]
        labels_ZYX[(parts[0] + parts[1] + parts[2] < 1) & body_ZYX] = value
    return body_ZYX, labels_ZYX


def _image(
    body_ZYX: np.ndarray, labels_ZYX: np.ndarray, rng: np.random.Generator, *, is_ct: bool
) -> np.ndarray:
    image_ZYX = np.where(body_ZYX, np.float32(20), np.float32(-1000))
    for value, hounsfield in _ORGANS_HU.items():
        image_ZYX[labels_ZYX == value] = hounsfield
    noise_ZYX = rng.standard_normal(body_ZYX.shape, np.float32)
    image_ZYX += 40 * ndimage.gaussian_filter(noise_ZYX, 0.6)
    if not is_ct:
        image_ZYX = np.where(body_ZYX, image_ZYX + 300 + rng.uniform(0, 200), np.float32(0))
    return np.clip(image_ZYX, -1024, 3000).astype(np.int16)


def _write(path: Path, array_ZYX: np.ndarray, spacing_mm: Sequence[float]) -> None:
    volume = SimpleITK.GetImageFromArray(array_ZYX)
    volume.SetSpacing([float(size) for size in reversed(spacing_mm)])
    SimpleITK.WriteImage(volume, str(path), True)
