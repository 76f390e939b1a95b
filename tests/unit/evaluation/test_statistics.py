import math

import numpy as np
import pytest

from sparseunet.evaluation.statistics import (
    bootstrap_means,
    holm,
    interval_95,
    mean_interval_95,
    wilcoxon_p,
)


def test_the_same_seed_gives_the_same_draws_and_another_one_does_not():
    values = np.random.default_rng(0).normal(size=(12, 2))

    first, second, other = (bootstrap_means(values, seed=seed) for seed in (1, 1, 2))

    assert first.shape == (2000, 2)
    assert (first == second).all()
    assert (first != other).any()


def test_an_interval_is_as_wide_as_the_normal_one_for_many_cases():
    values = np.random.default_rng(0).normal(10, 2, 400)

    low, high = mean_interval_95(values)

    standard_error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.03)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    random = np.random.default_rng(3)

    intervals = [mean_interval_95(random.normal(0, 1, 30)) for _ in range(200)]

    share = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.88 <= share <= 0.99


def test_undefined_values_do_not_count():
    values = np.array([0.2, np.nan, 0.4, 0.9, np.nan])

    assert mean_interval_95(values) == mean_interval_95(values[np.isfinite(values)])
    assert all(math.isnan(end) for end in mean_interval_95([0.5, np.nan]))
    assert all(math.isnan(end) for end in interval_95(np.array([np.nan])))


def test_columns_share_their_draws():
    values = np.random.default_rng(0).normal(size=12)

    means = bootstrap_means(np.stack([values, values + 1], axis=1))

    assert means[:, 1] - means[:, 0] == pytest.approx(np.ones(2000))


@pytest.mark.parametrize(("num_pairs", "p"), [(5, 2 / 2**5), (6, 2 / 2**6), (8, 2 / 2**8)])
def test_pairs_that_all_speak_for_one_side_reach_the_smallest_p_there_is(num_pairs, p):
    differences = np.arange(1, num_pairs + 1) / 10

    assert wilcoxon_p(differences) == pytest.approx(p)
    assert wilcoxon_p(np.concatenate([differences, np.zeros(4)])) == pytest.approx(p)


def test_the_example_of_hollander_and_wolfe_has_its_known_p():
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]

    assert wilcoxon_p(np.subtract(first, second)) == pytest.approx(0.0390625)


def test_differences_that_are_equal_but_for_rounding_share_a_rank():
    first, second = np.array([0.9, 0.8, 0.5, 0.4, 0.7]), np.array([0.8, 0.7, 0.6, 0.3, 0.7 - 1e-16])

    assert len(set(np.abs(first - second))) > 2, "all but the last are 0.1, rounded differently"
    assert wilcoxon_p(first - second) == wilcoxon_p(np.array([0.1, 0.1, -0.1, 0.1, 0.0]))


def test_equal_pairs_say_nothing():
    assert wilcoxon_p(np.zeros(9)) == 1


def test_holm_multiplies_by_the_number_of_tests_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_holm_does_not_count_what_was_not_tested():
    corrected = holm([0.02, math.nan, 0.5])

    assert corrected[0] == 0.04
    assert math.isnan(corrected[1])
    assert corrected[2] == 0.5
