"""Structural similarity between all slices of a scan (Wang et al. 2004)."""

from dataclasses import dataclass

import numpy as np

from sparseunet.data.rounding import range_divisor

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2
"""For intensities in [0, 1], as in Wang et al. 2004."""
_PIXELS_AT_ONCE = 1 << 16
"""Products that are worked on together; their temporaries fit the cache of one core."""


def ssim_of_all_pairs(slices_KCYX: np.ndarray, *, window: int = _WINDOW) -> np.ndarray:
    """Return the mean structural similarity of every pair of slices.

    Every channel is scaled to [0, 1] over the whole scan. Windows are uniform squares that lie
    within the slice, variances are those of samples (divided by one less than the pixels of a
    window), and channels are averaged: `skimage.metrics.structural_similarity` with its defaults.

    Args:
        slices_KCYX: Intensities of one scan.
        window: Odd side of the window; the largest odd one that fits for slices below it.

    Returns:
        Symmetric float32, shape (K, K), at most 1 and 1 on the diagonal.
    """
    smallest = min(slices_KCYX.shape[2:])
    window = min(window, smallest - (smallest + 1) % 2)
    channels = np.moveaxis(slices_KCYX, 1, 0)
    similarity_KK = np.mean([_ssim_of_channel(slices, window) for slices in channels], axis=0)
    return np.minimum(similarity_KK.round(6), 1)  # without the noise of float32, equal stays equal


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Statistics:
    """Means and variances per slice (K) and window (P, by the pixel at which the window starts).

    Constant factors of products of two slices are multiplied in once per slice, not per pair: with
    window of n pixels and u = n / (n - 1), the factors 2u / n of the sum of products and 2u of the
    product of means in 2c, and 2 in 2ab, each as its square root.
    """

    shifted_KP: np.ndarray
    """Pixels less the mean of the scan: covariances of small numbers lose no digits."""
    mean_KP: np.ndarray
    """Of the windows of `shifted_KP`, so that the product of two belongs to the covariance."""
    level_KP: np.ndarray
    """Mean of the windows of the pixels themselves."""
    power_KP: np.ndarray
    """Square of the mean, plus half the first constant of Wang et al."""
    variance_KP: np.ndarray
    """Variance of the windows, plus half the second constant."""


def _ssim_of_channel(slices_KYX: np.ndarray, window: int) -> np.ndarray:
    """Return the structural similarity of all pairs of slices of one channel, float32 (K, K).

    Per window, with means a, b, variances v, w and the covariance c of two slices,

        ssim = (2ab + C1) (2c + C2) / ((a² + b² + C1) (v + w + C2))

    and the similarity of the slices is the mean over all windows inside the slice. Example: means
    0.5 and 0.5, variances 0.01 and 0.01, covariance 0.005 give
    (0.5001 · 0.0109) / (0.5001 · 0.0209) = 0.52; a covariance of 0.01 gives 1.

    The rows of a slice lie end to end, so a window that starts near the right border continues in
    the next rows. Such windows are computed too, as that is faster, and get the weight 0.
    """
    # 1. Statistics of every slice, and the weight of every window: equal inside, 0 across borders.
    num, height, width = slices_KYX.shape
    length = height * width - (window - 1) * (width + 1)
    at_once = min(num, max(1, _PIXELS_AT_ONCE // length))
    workspace = _Workspace(at_once, height * width)
    each = _measure(slices_KYX, window, workspace)
    counted_YX = np.zeros((height, width), np.float32)
    counted_YX[: height - window + 1, : width - window + 1] = 1
    weight_P = (counted_YX / counted_YX.sum()).reshape(-1)[:length]

    similarity_KK = np.eye(num, dtype=np.float32)
    product_JP, other_JP = np.empty((2, at_once, height * width), np.float32)
    # 2. Every pair once, one slice against several others at a time.
    for one in range(num):
        for start in range(one + 1, num, at_once):
            some = slice(start, min(start + at_once, num))
            used = slice(0, some.stop - some.start)
            np.multiply(each.shifted_KP[some], each.shifted_KP[one], out=product_JP[used])
            # 2c + C2: window sums of products less the product of the means (factors are in
            # `_Statistics` already).
            ratio_JP = _window_sums(product_JP[used], window, width, workspace)
            product, other = product_JP[used, :length], other_JP[used, :length]
            ratio_JP -= np.multiply(each.mean_KP[some], each.mean_KP[one], out=product)
            ratio_JP += np.float32(_C2)
            # (2ab + C1)
            np.multiply(each.level_KP[some], each.level_KP[one], out=product)
            product += np.float32(_C1)
            ratio_JP *= product
            # (a² + b² + C1) (v + w + C2)
            np.add(each.power_KP[some], each.power_KP[one], out=product)
            product *= np.add(each.variance_KP[some], each.variance_KP[one], out=other)
            ratio_JP /= product
            ratio_JP -= 1  # the mean of ones may round, that of zeros does not
            similarity_KK[one, some] = similarity_KK[some, one] = 1 + ratio_JP @ weight_P
    return similarity_KK


def _measure(slices_KYX: np.ndarray, window: int, workspace: "_Workspace") -> _Statistics:
    """Return means and variances of every window of every slice, scaled for products of pairs.

    Intensities are first scaled to [0, 1] over the scan.
    """
    num, height, width = slices_KYX.shape
    low, high = float(slices_KYX.min()), float(slices_KYX.max())
    scale = range_divisor(low, high, dtype=slices_KYX.dtype)
    shifted_KP = ((slices_KYX - low) / scale).reshape(num, -1)
    level = np.float32(shifted_KP.mean(dtype=np.float64))
    shifted_KP -= level
    length = height * width - (window - 1) * (width + 1)
    mean_KP, variance_KP = np.empty((2, num, length), np.float32)
    for start in range(0, num, workspace.rows):
        some = slice(start, min(start + workspace.rows, num))
        mean_KP[some] = _window_sums(shifted_KP[some], window, width, workspace)
        variance_KP[some] = _window_sums(shifted_KP[some] ** 2, window, width, workspace)
    mean_KP /= np.float32(window**2)
    unbiased = window**2 / max(window**2 - 1, 1)
    variance_KP /= np.float32(window**2)
    variance_KP -= mean_KP**2
    variance_KP *= np.float32(unbiased)
    variance_KP += np.float32(_C2 / 2)
    level_KP = mean_KP + level
    return _Statistics(
        shifted_KP=shifted_KP * np.float32((2 * unbiased) ** 0.5 / window),
        mean_KP=mean_KP * np.float32((2 * unbiased) ** 0.5),
        level_KP=level_KP * np.float32(2**0.5),
        power_KP=level_KP**2 + np.float32(_C1 / 2),
        variance_KP=variance_KP,
    )


class _Workspace:
    """Arrays for sliding sums, used again for every pair."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows = rows
        self.doubled = np.empty((2, rows, length), np.float32)
        self.totals = np.empty((2, rows, length), np.float32)


def _window_sums(
    values_KP: np.ndarray, window: int, width: int, workspace: _Workspace
) -> np.ndarray:
    """Return sums over squares that start at every pixel of images whose rows are end to end."""
    across_KP = _sliding_sums(values_KP, window, 1, workspace.doubled, workspace.totals[0])
    return _sliding_sums(across_KP, window, width, workspace.doubled, workspace.totals[1])


def _sliding_sums(
    values_KP: np.ndarray, window: int, step: int, doubled: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return sums of `window` (odd) values `step` apart, from sums of 1, 2, 4, ... values.

    Example: window 7 = 1 + 2 + 4 values starting at 0. Sums of two, t[i] = v[i] + v[i+1], and of
    four, f[i] = t[i] + t[i+2], give v[0] + t[1] + f[3], which is v[0] + ... + v[6]: four additions
    instead of six.
    """
    rows, length = len(values_KP), values_KP.shape[1] - (window - 1) * step
    total_KP = total[:rows, :length]
    part_KP, size, start, first = values_KP, 1, 0, True
    while True:
        if window & size:
            piece_KP = part_KP[:, start * step : start * step + length]
            if first:
                first_KP, first = piece_KP, False
            else:
                np.add(first_KP, piece_KP, out=total_KP)
                first_KP = total_KP
            start += size
        size *= 2
        if size > window:
            return first_KP
        longer = part_KP.shape[1] - size // 2 * step
        part_KP = np.add(
            part_KP[:, :longer],
            part_KP[:, -longer:],
            out=doubled[size.bit_length() % 2, :rows, :longer],
        )
