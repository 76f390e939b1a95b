"""A scan in memory."""

from dataclasses import dataclass

import numpy as np

from sparseunet.data.geometry import Geometry


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Image:
    """The channels of one scan on one voxel grid. Every value is finite.

    Attributes:
        voxels_CZYX: float32, shape (channels, z, y, x).
        geometry: The grid, the same for all channels.
    """

    voxels_CZYX: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels_CZYX.shape[1:] != self.geometry.shape:
            raise ValueError(
                f"Voxels have shape {self.voxels_CZYX.shape[1:]}, the geometry says "
                f"{self.geometry.shape}. Both must describe the same grid."
            )
