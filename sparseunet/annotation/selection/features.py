"""Slices as small pictures of one size, and features that need no training."""

import numpy as np

from sparseunet.data.rounding import divisors

_SAMPLE = 200_000
_LOWEST, _HIGHEST = 0.5, 99.5
_SIDE, _NUM_BINS = 16, 32


def small_pictures(slices_KCYX: np.ndarray, *, side: int) -> np.ndarray:
    """Return slices as squares of one size, comparable between scans.

    Every channel is clipped to its 0.5 and 99.5 percentiles over the scan and scaled to mean 0 and
    variance 1 (Z20, "Implementation Details", has no clipping). A pixel of the result is the mean
    of the area it covers, whatever the aspect; nothing is cut off.

    Returns:
        float32, shape (K, channels, side, side). All zero for a constant channel.
    """
    height, width = slices_KCYX.shape[2:]
    rows, columns = _area_weights(height, side), _area_weights(width, side)
    low_C, high_C = _range(slices_KCYX)
    small = np.clip(slices_KCYX, low_C[:, None, None], high_C[:, None, None])
    small = rows @ small @ columns.T
    mean_C = small.mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True)
    deviation_C = small.std(axis=(0, 2, 3), dtype=np.float64, keepdims=True)
    largest_C = np.maximum(np.abs(low_C), np.abs(high_C))[:, None, None]
    # Percentiles, weights and result are float32, whatever the scan is.
    scale_C = divisors(deviation_C, largest=largest_C, dtype=np.float32, num_values=small.size)
    return ((small - mean_C) / scale_C).astype(np.float32)


def intensity_features(slices_KCYX: np.ndarray) -> np.ndarray:
    """Return a picture of 16 × 16 pixels and 32 shares of intensities per channel, joined.

    Each of both parts is scaled so that it varies equally much within the scan.

    Returns:
        float32, shape (K, channels · 288).
    """
    picture = small_pictures(slices_KCYX, side=_SIDE).reshape(len(slices_KCYX), -1)
    low_C, high_C = _range(slices_KCYX)
    largest_C = np.maximum(np.abs(low_C), np.abs(high_C))
    range_C = divisors(high_C - low_C, largest=largest_C, dtype=np.float32)
    scaled = (slices_KCYX - low_C[:, None, None]) / range_C.astype(np.float32)[:, None, None]
    bins = np.clip(scaled * _NUM_BINS, 0, _NUM_BINS - 1).astype(np.intp)
    bins = bins.reshape(-1, bins.shape[2] * bins.shape[3])
    shares = np.stack([np.bincount(row, minlength=_NUM_BINS) for row in bins]) / bins.shape[1]
    shares = shares.reshape(len(slices_KCYX), -1)
    return np.concatenate([_unit_variance(picture), _unit_variance(shares)], axis=1)


def _unit_variance(features_KD: np.ndarray) -> np.ndarray:
    mean_D = features_KD.mean(axis=0, dtype=np.float64)
    centred = features_KD - mean_D.astype(features_KD.dtype)
    total, largest = (
        np.sqrt((each.astype(np.float64) ** 2).sum(axis=1).mean())
        for each in (centred, features_KD)
    )
    scale = divisors(total, largest=largest, dtype=features_KD.dtype, num_values=len(features_KD))
    return (centred / scale).astype(np.float32)


def _range(slices_KCYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two percentiles per channel, from evenly spaced voxels of large scans."""
    flat_CP = np.moveaxis(slices_KCYX, 1, 0).reshape(slices_KCYX.shape[1], -1)
    sample_CP = flat_CP[:, :: max(1, flat_CP.shape[1] // _SAMPLE)]
    low_C, high_C = np.percentile(sample_CP, (_LOWEST, _HIGHEST), axis=1).astype(np.float32)
    constant_C = low_C == high_C  # nearly all one value: keep what little differs
    low_C[constant_C] = flat_CP[constant_C].min(axis=1, initial=np.inf)
    high_C[constant_C] = flat_CP[constant_C].max(axis=1, initial=-np.inf)
    return low_C, high_C


def _area_weights(size: int, side: int) -> np.ndarray:
    """Return the share of every one of `size` pixels in every one of `side`, shape (side, size)."""
    edges = np.arange(side + 1) * (size / side)
    upper = np.minimum(edges[1:, None], np.arange(1, size + 1))
    overlap = np.maximum(upper - np.maximum(edges[:-1, None], np.arange(size)), 0)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
