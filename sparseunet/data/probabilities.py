"""What class probabilities say."""

import numpy as np
from numpy.typing import DTypeLike

_TINY = 1e-12


def entropy(
    probabilities_KZYX: np.ndarray, *, has_regions: bool, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Return Σ -p log p over classes in nats, at least 0; with regions the sum over each one's.

    Args:
        probabilities_KZYX: Of background and every class, summing to 1; or of every region, each
            in [0, 1].
        has_regions: Whether the channels are regions.
        dtype: Of the sum.
    """
    total_ZYX = np.zeros(probabilities_KZYX.shape[1:], dtype)
    for probability_ZYX in probabilities_KZYX:
        total_ZYX += _surprise(probability_ZYX)
        if has_regions:
            total_ZYX += _surprise(1 - probability_ZYX)
    return total_ZYX


def _surprise(probability: np.ndarray) -> np.ndarray:
    """Return -p log p, 0 at p = 0 and where rounding left a little more than 1."""
    return -probability * np.log(np.clip(probability, _TINY, 1.0))
