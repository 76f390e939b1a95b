"""A scan in memory."""

from dataclasses import dataclass

import numpy as np

from sparseunet.data.geometry import Geometry


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Image:
    """The channels of one scan on one voxel grid. Every value is finite."""

    voxels_CZYX: np.ndarray
    """float32, shape (channels, z, y, x)."""
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels_CZYX.shape[1:] != self.geometry.shape:
            raise ValueError(
                f"Voxels have shape {self.voxels_CZYX.shape[1:]}, the geometry says "
                f"{self.geometry.shape}. Both must describe the same grid."
            )
