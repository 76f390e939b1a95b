"""Random changes of intensities.

Noise and low resolution are batchgeneratorsv2's. Blur, brightness, contrast and gamma are its rules
on numpy, which takes a third to a half of the time (blur in 3D: about the same).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from scipy import ndimage

Step = tuple[float, Callable[[np.ndarray, np.random.Generator], np.ndarray]]
"""Probability, and a change of image_CZYX (float32, perhaps in place)."""

_SMALLEST_RANGE = 1e-7


def apply_steps(
    steps: Sequence[Step], image_CZYX: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Apply each step with its probability, in order. The image may be changed in place."""
    chances = rng.random(len(steps)).tolist()
    for chance, (probability, step) in zip(chances, steps, strict=True):
        if chance < probability:
            image_CZYX = step(image_CZYX, rng)
    return image_CZYX


def unchanged_intensities(image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image as it is."""
    del rng
    return image_CZYX


def blur(image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur every second channel by 0.5 to 1 voxels, another width along each axis."""
    for channel_ZYX in image_CZYX:
        if rng.random() < 0.5:
            blurred_ZYX = channel_ZYX
            for axis in range(channel_ZYX.ndim):
                sigma = rng.uniform(0.5, 1)
                blurred_ZYX = ndimage.gaussian_filter1d(
                    blurred_ZYX, sigma, axis, mode="mirror", radius=_kernel_radius(sigma)
                )
            channel_ZYX[...] = blurred_ZYX
    return image_CZYX


def scale_brightness(image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply each channel by 0.75 to 1.25."""
    for channel_ZYX in image_CZYX:
        np.multiply(channel_ZYX, _draw_about_one(0.75, 1.25, rng), out=channel_ZYX)
    return image_CZYX


def change_contrast(image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply distances to the mean by 0.75 to 1.25 per channel, and clip to the range before."""
    for channel_ZYX in image_CZYX:
        _scale_about_mean(channel_ZYX, _draw_about_one(0.75, 1.25, rng))
    return image_CZYX


def change_gamma(
    image_CZYX: np.ndarray, rng: np.random.Generator, *, inverted: bool = False
) -> np.ndarray:
    """Raise each channel, on its range as 0 to 1, to the power of 0.7 to 1.5.

    Mean and deviation of the channel are kept. `inverted` does so to the negative image.
    """
    for channel_ZYX in image_CZYX:
        exponent = _draw_about_one(0.7, 1.5, rng)
        if inverted:
            np.negative(channel_ZYX, out=channel_ZYX)
        _raise_on_range(channel_ZYX, exponent)
        if inverted:
            np.negative(channel_ZYX, out=channel_ZYX)
    return image_CZYX


def library_noise() -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return batchgeneratorsv2's Gaussian noise, one deviation of 0 to 0.1 for all channels."""
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform

    return _LibraryStep(
        GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True)
    )


def library_low_resolution(
    *, in_plane: bool
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return batchgeneratorsv2's resampling of every second channel to 0.5 to 1 of its voxels."""
    from batchgeneratorsv2.transforms.spatial.low_resolution import (
        SimulateLowResolutionTransform,
    )

    return _LibraryStep(
        SimulateLowResolutionTransform(
            scale=(0.5, 1),
            synchronize_channels=False,
            synchronize_axes=True,
            ignore_axes=(0,) if in_plane else (),
            p_per_channel=0.5,
        )
    )


def apply_bias_field(
    image_CZYX: np.ndarray, rng: np.random.Generator, *, strength: float
) -> np.ndarray:
    """Multiply what lies above the darkest voxel by exp of a random cubic polynomial.

    Coordinates run from -1 to 1 along each axis, and the coefficients of all terms of degree 1 to 3
    are drawn uniformly up to `strength`. Uneven coils of MR scanners look so. Each channel has a
    field of its own.
    """
    powers = [
        np.linspace(-1, 1, size, dtype=np.float32) ** np.arange(4, dtype=np.float32)[:, None]
        for size in image_CZYX.shape[1:]
    ]
    degrees = np.indices((4,) * len(powers)).sum(axis=0)
    for channel_ZYX in image_CZYX:
        coefficients = rng.uniform(-strength, strength, degrees.shape).astype(np.float32)
        exponent = np.where((degrees > 0) & (degrees <= 3), coefficients, np.float32(0))
        for along in powers:
            exponent = np.tensordot(exponent, along, axes=(0, 0))
        darkest = channel_ZYX.min()
        channel_ZYX[...] = (channel_ZYX - darkest) * np.exp(exponent) + darkest
    return image_CZYX


class _LibraryStep:
    """A transform of batchgeneratorsv2 that draws from our generator."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def __call__(self, image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with _global_states_from(rng):
            changed = self.transform(image=torch.from_numpy(image_CZYX))["image"]
        array: np.ndarray = changed.numpy()
        return array


@contextmanager
def _global_states_from(rng: np.random.Generator) -> Iterator[None]:
    """Let `rng` decide what batchgeneratorsv2 draws: it knows only the global random states."""
    numpy_before, torch_before = mtrand.get_bit_generator(), torch.get_rng_state()
    mtrand.set_bit_generator(rng.bit_generator)
    torch.default_generator.manual_seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        mtrand.set_bit_generator(numpy_before)
        torch.set_rng_state(torch_before)


def _scale_about_mean(channel_ZYX: np.ndarray, factor: np.float32) -> None:
    low, high, mean = channel_ZYX.min(), channel_ZYX.max(), channel_ZYX.mean()
    channel_ZYX -= mean
    channel_ZYX *= factor
    channel_ZYX += mean
    np.clip(channel_ZYX, low, high, out=channel_ZYX)


def _raise_on_range(channel_ZYX: np.ndarray, exponent: np.float32) -> None:
    mean, deviation = channel_ZYX.mean(), channel_ZYX.std(ddof=1)
    channel_ZYX -= channel_ZYX.min()
    extent = max(channel_ZYX.max(), np.float32(_SMALLEST_RANGE))
    channel_ZYX *= 1 / extent
    np.power(channel_ZYX, exponent, out=channel_ZYX)
    new_deviation = max(channel_ZYX.std(ddof=1), np.float32(_SMALLEST_RANGE) / extent)
    channel_ZYX -= channel_ZYX.mean()
    channel_ZYX *= deviation / new_deviation
    channel_ZYX += mean


def _draw_about_one(low: float, high: float, rng: np.random.Generator) -> np.float32:
    """Draw from `low` to 1 in half of the cases, else from 1 to `high`."""
    bounds = (low, 1) if rng.random() < 0.5 else (1, high)
    return np.float32(rng.uniform(*bounds))


def _kernel_radius(sigma: float) -> int:
    """Return the reach of nnU-Net 2.8.1's kernels: the odd size nearest to 6 sigma + 0.5."""
    return round((6 * sigma + 0.5 - 1) / 2)
