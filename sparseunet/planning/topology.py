"""Which axes a U-Net pools at each stage, with which kernels, and what patch suits that."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

_MIN_EDGE = 4
"""No axis is pooled below this many voxels."""
_INITIAL_VOXELS = {2: 2048**2, 3: 256**3}
"""Voxels of the patch that planning starts from, per number of dimensions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Strides and kernels per stage, highest resolution first, and the patch padded to suit."""

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        """Number of voxels that each axis of the patch is a multiple of."""
        return tuple(int(factor) for factor in np.prod(self.strides, axis=0))


def initial_patch_size(
    spacing_mm: Sequence[float], median_shape: Sequence[float]
) -> tuple[float, ...]:
    """Return the patch that planning starts from: cubic in millimetres, within the median image.

    A clipped axis may hold half a voxel, as medians do. Source: nnU-Net 2.8.1 (256³ or 2048²).
    """
    inverse = 1 / np.asarray(spacing_mm, np.float64)
    dimensions = len(inverse)
    scale = (_INITIAL_VOXELS[dimensions] / np.prod(inverse)) ** (1 / dimensions)
    wanted = [round(edge) for edge in inverse * scale]
    return tuple(min(edge, size) for edge, size in zip(wanted, median_shape, strict=True))


def choose_topology(spacing_mm: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Pool the finest axes first until every axis is short; pad the patch to what was pooled.

    An axis can be pooled while it holds 8 voxels (12 if it is the only one left) and its spacing
    is below twice the finest spacing of the axes that can. Its kernel is 1 until its spacing is
    below twice the finest of all, then 3. The bottleneck's kernel is 3 everywhere.

    Returns:
        A topology of one stage if the patch is too small to be pooled at all.

    Source: nnU-Net 2.8.1, minimum bottleneck edge of 4.
    """
    spacing, size = list(spacing_mm), list(patch_size)
    kernel = [1] * len(size)
    strides = [(1,) * len(size)]
    kernels: list[tuple[int, ...]] = []
    while pooled := _axes_to_pool(spacing, size):
        finest = min(spacing)
        kernel = [
            3 if known == 3 or current / finest < 2 else 1
            for known, current in zip(kernel, spacing, strict=True)
        ]
        for axis in pooled:
            spacing[axis] *= 2
            size[axis] = ceil(size[axis] / 2)
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(len(size))))
        kernels.append(tuple(kernel))
    kernels.append((3,) * len(size))
    divisor = np.prod(strides, axis=0)
    padded = tuple(
        int(ceil(edge / factor) * factor) for edge, factor in zip(patch_size, divisor, strict=True)
    )
    return Topology(patch_size=padded, strides=tuple(strides), kernel_sizes=tuple(kernels))


def _axes_to_pool(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    long = [axis for axis, edge in enumerate(size) if edge >= 2 * _MIN_EDGE]
    if not long:
        return []
    finest = min(spacing[axis] for axis in long)
    chosen = [axis for axis in long if spacing[axis] / finest < 2]
    if len(chosen) == 1 and size[chosen[0]] < 3 * _MIN_EDGE:
        return []
    return chosen
