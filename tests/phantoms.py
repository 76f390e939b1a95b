"""Shapes with known answers, as arrays.

from phantoms import blobs, box, intensities, sphere
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage


def sphere(
    shape: Sequence[int],
    *,
    center: Sequence[float] | None = None,
    radius_mm: float,
    spacing_mm: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the bool mask of voxels whose centre lies within `radius_mm` of `center` (in voxels).

    Works in any number of dimensions; the default centre is the middle of the grid.
    """
    spacing = np.ones(len(shape)) if spacing_mm is None else np.asarray(spacing_mm, float)
    middle = (np.asarray(shape) - 1) / 2 if center is None else np.asarray(center, float)
    squared = np.zeros(tuple(shape))
    for axis, size in enumerate(shape):
        along = ((np.arange(size) - middle[axis]) * spacing[axis]) ** 2
        squared += along.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return squared <= radius_mm**2


def box(shape: Sequence[int], *, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Return the bool mask of the voxels from `start` to before `stop`."""
    mask = np.zeros(tuple(shape), bool)
    mask[tuple(slice(first, last) for first, last in zip(start, stop, strict=True))] = True
    return mask


def blobs(
    shape: Sequence[int], *, seed: int, num_classes: int = 2, share: float = 0.3, width: float = 2.0
) -> np.ndarray:
    """Return a uint8 label map of irregular blobs; about `share` of the voxels are not background.

    `num_classes` counts foreground classes 1, 2, ...; `width` is the size of the blobs in voxels.
    """
    noise = np.random.default_rng(seed).standard_normal((num_classes, *shape))
    smooth = np.stack([ndimage.gaussian_filter(channel, width) for channel in noise])
    strongest = smooth.max(axis=0)
    inside = strongest > np.quantile(strongest, 1 - share)
    return np.where(inside, smooth.argmax(axis=0) + 1, 0).astype(np.uint8)


def intensities(labels: np.ndarray, *, seed: int, noise: float = 10.0) -> np.ndarray:
    """Return a float32 scan of `labels`: 100 per label value plus noise of the given deviation."""
    random = np.random.default_rng(seed).standard_normal(labels.shape)
    return (100.0 * labels + noise * random).astype(np.float32)


def alexnet_weights(path: Path, *, seed: int = 0) -> Path:
    """Write random weights in the layout of AlexNet's in torchvision, and return the path."""
    import torch

    from sparseunet.networks.alexnet import CONVOLUTIONS

    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, (inputs, outputs, size) in CONVOLUTIONS.items():
        scale = (2 / (inputs * size**2)) ** 0.5
        shape = (outputs, inputs, size, size)
        weights[f"{name}.weight"] = scale * torch.randn(shape, generator=random)
        weights[f"{name}.bias"] = torch.zeros(outputs)
    torch.save(weights, path)
    return path
