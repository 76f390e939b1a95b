"""Tell what numbers really spread from what only rounding makes of equal ones.

A spread is a standard deviation, a range or a length. Numbers that should be equal have one too, of
their last digits, and which it is depends on the machine. Numbers divided by it would be noise as
large as what differs elsewhere.
"""

import numpy as np
import numpy.typing as npt

_UNITS = 64
"""So many units in the last place equal numbers may differ by: products with weights that sum to 1,
as pictures are made smaller by, were up to 14 off."""


def is_rounding_noise(
    spread: npt.ArrayLike, *, largest: npt.ArrayLike, dtype: npt.DTypeLike, num_values: int = 1
) -> np.ndarray:
    """Return where a spread is no larger than that of equal numbers that were rounded.

    Args:
        spread: Not negative.
        largest: Of the magnitudes of the numbers it belongs to; broadcasts with `spread`.
        dtype: Of the numbers. Of integers the smallest floating one that holds them counts.
        num_values: How many numbers went into a mean or a sum behind it, made in float64.

    Returns:
        bool, of the shape of both. True where all numbers are 0.
    """
    last_place = np.finfo(np.result_type(dtype, np.float16)).eps
    noise = _UNITS * float(last_place) + num_values * float(np.finfo(np.float64).eps)
    return np.asarray(spread) <= noise * np.abs(np.asarray(largest, np.float64))


def divisors(
    spread: npt.ArrayLike, *, largest: npt.ArrayLike, dtype: npt.DTypeLike, num_values: int = 1
) -> np.ndarray:
    """Return what brings deviations to units of their spread: it, or infinity where it is noise.

    So what differs by rounding only becomes exactly 0. Arguments as in `is_rounding_noise`.

    Returns:
        float64, of the shape of both.
    """
    noise = is_rounding_noise(spread, largest=largest, dtype=dtype, num_values=num_values)
    return np.where(noise, np.inf, spread)


def range_divisor(low: float, high: float, *, dtype: npt.DTypeLike) -> float:
    """Return what brings numbers, less `low`, to [0, 1]; infinity where only rounding differs."""
    return float(divisors(high - low, largest=max(abs(low), abs(high)), dtype=dtype))
