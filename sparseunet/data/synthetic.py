"""A dataset made on the spot, for the demo and for tests: nothing needs to be downloaded.

Every scan shows an organ (ellipsoid) with a lesion (sphere) inside and a vessel (bent tube) beside
it, in noise and under a bias field, on anisotropic voxels of varying size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from sparseunet.artifacts import write_json
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.workspace import DATASET_JSON

CLASSES = {"background": 0, "organ": 1, "lesion": 2, "vessel": 3}
_INTENSITIES = np.array([100.0, 160.0, 215.0, 250.0], np.float32)
"""By label value."""
_NOISE = 22.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SyntheticScan:
    """One scan with its dense labels."""

    voxels_ZYX: np.ndarray
    """float32."""
    labels_ZYX: np.ndarray
    """uint8."""
    geometry: Geometry


def make_scan(*, seed: int, shape: tuple[int, int, int] = (20, 48, 48)) -> SyntheticScan:
    """Make one scan about `shape` voxels large; the same seed gives the same scan."""
    rng = np.random.default_rng(seed)
    size = tuple(int(length + rng.integers(-2, 3)) for length in shape)
    spacing_mm = (float(rng.choice([2.5, 3.0, 3.5])), 1.0, 1.0)
    grid_mm = np.stack(
        np.meshgrid(
            *[
                (np.arange(length) - (length - 1) / 2) * step
                for length, step in zip(size, spacing_mm, strict=True)
            ],
            indexing="ij",
        )
    )
    labels_ZYX = _labels(grid_mm, rng)
    clean_ZYX = _INTENSITIES[labels_ZYX]
    coarse = rng.normal(0, 1, (4, 4, 4))
    bias_ZYX = ndimage.zoom(
        coarse, [length / 4 for length in size], order=3, mode="nearest", grid_mode=True
    )
    texture_ZYX = ndimage.gaussian_filter(rng.normal(0, _NOISE, size), (0.3, 0.7, 0.7))
    noise_ZYX = rng.normal(0, _NOISE / 2, size) + 1.5 * texture_ZYX
    voxels_ZYX = clean_ZYX * (1 + 0.08 * bias_ZYX) + noise_ZYX
    return SyntheticScan(
        voxels_ZYX=voxels_ZYX.astype(np.float32),
        labels_ZYX=labels_ZYX,
        geometry=Geometry(
            shape=(size[0], size[1], size[2]),
            spacing_mm=spacing_mm,
            origin_mm=tuple(float(value) for value in rng.normal(0, 50, 3).round(2)),
        ),
    )


def make_dataset(folder: Path, *, num_training: int, num_test: int, seed: int = 0) -> None:
    """Write a raw dataset of such scans: `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`."""
    for part, first, count in (("Tr", 0, num_training), ("Ts", num_training, num_test)):
        for number in range(first, first + count):
            scan = make_scan(seed=seed * 10_000 + number)
            name = f"scan_{number:03d}"
            write_image(
                folder / f"images{part}" / f"{name}_0000.nii.gz", scan.voxels_ZYX, scan.geometry
            )
            write_label_map(
                folder / f"labels{part}" / f"{name}.nii.gz", scan.labels_ZYX, scan.geometry
            )
    write_json(
        folder / DATASET_JSON,
        {
            "name": "Synthetic",
            "description": "Made by sparseunet; shapes in noise, no patient.",
            "channel_names": {"0": "MRI"},
            "labels": CLASSES,
            "numTraining": num_training,
            "file_ending": ".nii.gz",
        },
    )


def _labels(grid_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(-3, 3, 3)
    radii = rng.uniform((20, 9, 10), (28, 12, 13))
    scaled = (grid_mm - centre[:, None, None, None]) / radii[:, None, None, None]
    angle = np.arctan2(scaled[1], scaled[2])
    organ = (scaled**2).sum(0) < 1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 6))
    offset = rng.uniform(-1, 1, 3) * (0.55, 0.3, 0.3) * radii
    lesion_centre = (centre + offset)[:, None, None, None]
    lesion = ((grid_mm - lesion_centre) ** 2).sum(0) < rng.uniform(5.5, 8.0) ** 2
    phase, side = rng.uniform(0, 6), rng.choice([-1, 1])
    path_y = centre[1] + 5 * np.sin(grid_mm[0] / 14 + phase)
    path_x = centre[2] + side * (radii[2] + 4.5)
    vessel = (grid_mm[1] - path_y) ** 2 + (grid_mm[2] - path_x) ** 2 < rng.uniform(2.6, 3.6) ** 2
    labels_ZYX = np.zeros(organ.shape, np.uint8)
    labels_ZYX[vessel], labels_ZYX[organ] = CLASSES["vessel"], CLASSES["organ"]
    labels_ZYX[lesion & organ] = CLASSES["lesion"]
    return labels_ZYX
