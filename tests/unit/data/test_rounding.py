"""Numbers that differ by rounding only have no spread, whatever their size and type."""

import numpy as np
import pytest

from sparseunet.data.rounding import divisors, is_rounding_noise, range_divisor

AWKWARD = [0.1, 1 / 3, -2.7, 1e7 + 0.1, 1e-12, 0.0]
TYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("size", [2, 3, 7, 1000, 99_999])
def test_equal_numbers_have_no_spread_though_their_mean_rounds(size, value, dtype):
    numbers = np.full(size, value, dtype)
    numbers[::3] = np.nextafter(numbers[::3], dtype(np.inf))
    mean = numbers.sum(dtype=np.float64) / size
    spread = np.sqrt(np.square(numbers - mean).mean())
    largest = np.abs(numbers).max()
    if value:
        assert spread > 0
        assert is_rounding_noise(spread, largest=largest, dtype=dtype, num_values=size)
        assert not np.any((numbers - mean) / divisors(spread, largest=largest, dtype=dtype))
    assert is_rounding_noise(0, largest=largest, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_spread_of_a_ten_thousandth_is_kept_at_every_scale(scale, dtype):
    assert divisors(1e-4 * scale, largest=scale, dtype=dtype, num_values=10**6) == 1e-4 * scale


def test_every_column_is_judged_by_its_own_magnitude():
    found = divisors(
        np.array([1e-3, 1e-3, 0]), largest=np.array([1e6, 1, 0]), dtype=np.float32, num_values=9
    )
    assert found.tolist() == [np.inf, 1e-3, np.inf]


def test_a_range_is_kept_unless_it_is_rounding():
    assert range_divisor(-1024.0, 3071.0, dtype=np.float32) == 4095
    assert range_divisor(1e7, 1e7 + 1, dtype=np.float32) == np.inf
    assert range_divisor(0, 255, dtype=np.uint8) == 255
