"""A budget becomes volumes and slices by the rules and tables of published experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.allocation import (
    Situation,
    allocate,
    compare,
    recommend,
    require_alternatives,
    slices_for_budget,
)
from sparseunet.annotation.budget import parse_budget
from sparseunet.annotation.cost import ASSUMED_COST
from sparseunet.annotation.evidence import (
    DENSITIES,
    VOLUME_SHARES,
    Z25_TABLE_2,
    Z25_TABLE_2_DENSE,
    Z25_TABLE_2_DEVIATION,
    Z25_TABLE_4_3D,
    describe_evidence,
    expect_share_of_dense,
)
from sparseunet.errors import RequestError


def situation(num_volumes=40, depth=50, *, dimensions=2, num_axes=1) -> Situation:
    return Situation(
        depths=((depth,) * num_axes,) * num_volumes, dimensions=dimensions, cost=ASSUMED_COST
    )


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.data())
def test_slices_are_shared_out_equally_as_far_as_there_are_any(capacities, data):
    total = data.draw(st.integers(0, sum(capacities)))
    counts = allocate(total, capacities)
    assert sum(counts) == total
    assert all(0 <= count <= capacity for count, capacity in zip(counts, capacities, strict=True))
    for count, capacity in zip(counts, capacities, strict=True):
        if count < capacity:
            assert count >= max(counts) - 1


def test_what_does_not_divide_goes_to_the_deepest_volumes():
    assert allocate(7, (10, 30, 20)) == (2, 3, 2)
    assert allocate(8, (10, 30, 20)) == (2, 3, 3)
    assert allocate(4, (10, 10, 10)) == (2, 1, 1)
    with pytest.raises(ValueError, match="Cannot distribute 11 over 10"):
        allocate(11, (4, 6))


def test_the_tables_are_complete():
    for table in (Z25_TABLE_2, Z25_TABLE_2_DEVIATION):
        assert list(table) == list(Z25_TABLE_2_DENSE) == list(Z25_TABLE_4_3D)
        for rows in table.values():
            assert np.shape(rows) == (len(VOLUME_SHARES), len(DENSITIES))
    # the row that the liver tumour has with all volumes and density 0.2, and its deviation
    assert Z25_TABLE_2["LiTS17 liver tumour"][0][2] == 0.4990
    assert Z25_TABLE_2_DEVIATION["LiTS17 liver tumour"][0][2] == 0.0068


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("column", range(5))
def test_at_the_points_of_the_tables_they_are_quoted(row, column):
    shares = [
        Z25_TABLE_2[target][row][column] / dense for target, dense in Z25_TABLE_2_DENSE.items()
    ]
    found = expect_share_of_dense(
        density=DENSITIES[column], volume_share=VOLUME_SHARES[row], dimensions=2
    )
    assert found.mean == pytest.approx(np.mean(shares))
    assert (found.lowest, found.highest) == pytest.approx((min(shares), max(shares)))
    assert not found.extrapolated


def test_between_the_points_lies_what_is_between():
    low, middle, high = (
        expect_share_of_dense(density=density, volume_share=0.25, dimensions=2).mean
        for density in (0.05, 0.07, 0.1)
    )
    assert low < middle < high


def test_beyond_the_tables_expectations_fall_and_say_so():
    edge = expect_share_of_dense(density=0.05, volume_share=0.125, dimensions=2)
    below = expect_share_of_dense(density=0.01, volume_share=0.125, dimensions=2)
    fewer = expect_share_of_dense(density=0.05, volume_share=0.03, dimensions=2)
    assert below.extrapolated
    assert fewer.extrapolated
    assert below.mean < edge.mean
    assert fewer.mean < edge.mean
    nothing = expect_share_of_dense(density=1e-9, volume_share=1e-9, dimensions=3)
    assert nothing.lowest == 0


def test_3d_with_all_volumes_is_table_4_relative_to_its_highest_density():
    found = expect_share_of_dense(density=0.05, volume_share=1.0, dimensions=3)
    assert found.lowest == pytest.approx(0.4487 / 0.5857)
    assert found.highest == pytest.approx(0.9089 / 0.9150, abs=2e-3)
    assert any("not to dense labels" in line for line in describe_evidence(3))
    assert any("table 2" in line for line in describe_evidence(2))


def test_everything_annotated_is_dense():
    found = expect_share_of_dense(density=1.0, volume_share=1.0, dimensions=3)
    assert (found.mean, found.lowest, found.highest) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("budget", "dimensions", "num_volumes"),
    [
        ("100slices", 2, 40),  # more volumes first
        ("30slices", 2, 30),  # no volume without a slice
        ("100slices", 3, 20),  # five of fifty slices each: a density of 0.1
        ("10%", 3, 40),
        ("3slices", 3, 1),  # not even one volume gets its minimum
        ("4slices per case", 2, 40),
    ],
)
def test_most_volumes_that_get_their_minimum_are_recommended(budget, dimensions, num_volumes):
    alternatives = compare(parse_budget(budget), situation(dimensions=dimensions))
    assert recommend(alternatives).num_volumes == num_volumes


@given(
    st.sampled_from(["1slices", "17slices", "300slices", "1%", "33%", "100%", "30min", "9h"]),
    st.integers(1, 50),
    st.integers(2, 40),
    st.sampled_from([2, 3]),
)
def test_no_alternative_costs_more_than_the_budget(text, num_volumes, depth, dimensions):
    budget, there = parse_budget(text), situation(num_volumes, depth, dimensions=dimensions)
    for alternative in compare(budget, there):
        assert 1 <= alternative.num_volumes <= num_volumes
        assert alternative.num_slices >= alternative.num_volumes
        assert alternative.num_slices <= there.available(alternative.num_volumes)
        if budget.unit == "slices":
            assert alternative.num_slices == budget.amount
        elif budget.unit == "share":
            assert alternative.num_slices <= budget.amount * there.num_slices + 1e-6
        else:
            assert alternative.minutes <= budget.amount + 1e-6


def test_time_buys_fewer_slices_in_more_volumes():
    bought = slices_for_budget(parse_budget("2h"), situation())
    assert bought[40] < bought[10]
    assert slices_for_budget(parse_budget("2h"), situation())[40] >= 40


def test_a_share_is_not_lost_to_rounding():
    hundred = situation(num_volumes=10, depth=10)
    for percent in range(1, 101):
        assert slices_for_budget(parse_budget(f"{percent}%"), hundred)[10] == percent


def test_slices_across_three_axes_hold_more_voxels_than_across_one():
    one = compare(parse_budget("10%"), situation(num_axes=1))[0]
    three = compare(parse_budget("10%"), situation(num_axes=3))[0]
    assert one.density == pytest.approx(0.1)
    assert three.density == pytest.approx(1 - 0.9**3)


@pytest.mark.parametrize(
    ("budget", "num_volumes", "message"),
    [
        ("2001slices", None, "2001 slices of the about 2000"),
        ("1min", None, "not one slice in each of 1 scans .that takes about 2.5 min"),
        ("1min per case", None, "not one slice in each of 40 scans"),
        ("5slices", 9, "not one slice in each of 9 scans"),
        ("500slices", 2, "500 slices of the about 100"),
        ("51slices per case", None, "2040 slices of the about 2000"),
    ],
)
def test_an_impossible_budget_is_explained(budget, num_volumes, message):
    with pytest.raises(RequestError, match=message):
        require_alternatives(parse_budget(budget), situation(), num_volumes=num_volumes)
