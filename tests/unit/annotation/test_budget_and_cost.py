"""Budgets mean what a person wrote, and costs follow what was measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.budget import parse_budget
from sparseunet.annotation.cost import ASSUMED_COST, CostModel, fit_cost
from sparseunet.data.annotation_record import AnnotatedView, AnnotationRecord
from sparseunet.errors import RequestError


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("400slices", "slices", 400),
        ("1 slice", "slices", 1),
        ("10%", "share", 0.1),
        ("7 %", "share", 0.07),
        ("12.5%", "share", 0.125),
        ("90min", "minutes", 90),
        ("6h", "minutes", 360),
        ("1.5H", "minutes", 90),
    ],
)
def test_a_budget_is_read_as_written(text, unit, amount):
    budget = parse_budget(text)
    assert (budget.unit, budget.amount, budget.per_case) == (unit, amount, False)
    assert parse_budget(str(budget)) == budget
    per_case = parse_budget(f"{text} per case")
    assert (per_case.unit, per_case.amount, per_case.per_case) == (unit, amount, True)
    assert parse_budget(str(per_case)) == per_case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0slices", "buys nothing"),
        ("-5slices", "buys nothing"),
        ("0%", "buys nothing"),
        ("-1h", "buys nothing"),
        ("2.5slices", "not a whole number"),
        ("101%", "more than there is"),
        ("400", "not understood; expected a number with a unit, e.g. 400slices"),
        ("slices", "not understood"),
        ("400 cases", "not understood"),
        ("nan%", "not understood"),
        ("", "not understood"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        parse_budget(text)


MODEL = CostModel(
    minutes_per_volume=3.0,
    minutes_per_slice=0.25,
    minutes_per_foreground_slice=4.0,
    minutes_per_neighbouring_slice=1.5,
    foreground_share=0.5,
    num_records=0,
)


def test_a_slice_beside_an_annotated_one_costs_less():
    assert MODEL.minutes([]) == 0
    assert MODEL.minutes([7]) == pytest.approx(0.25 + 0.5 * 4)
    assert MODEL.minutes([7, 9]) == pytest.approx(2 * MODEL.minutes([7]))
    assert MODEL.minutes([8, 7]) == pytest.approx(MODEL.minutes([7]) + 0.25 + 0.5 * 1.5)


@given(st.integers(1, 60))
def test_costs_by_count_are_those_of_evenly_spread_slices(num_slices):
    minutes = MODEL.minutes_by_count(num_slices)
    assert len(minutes) == num_slices + 1
    assert minutes[0] == 0
    assert minutes[1] == pytest.approx(MODEL.minutes([0]))
    assert minutes[-1] == pytest.approx(MODEL.minutes(range(num_slices)))


def record(slices, empty=(), minutes=None) -> AnnotationRecord:
    return AnnotationRecord(
        axis=0,
        num_slices=100,
        annotated_slices=tuple(slices),
        reviewed_empty_slices=tuple(empty),
        annotated_classes=("organ",),
        minutes=minutes,
    )


def measured_cases(num: int, *, noise: float) -> list[AnnotationRecord]:
    """Cases annotated in the time that MODEL says, up to noise in minutes."""
    random = np.random.default_rng(1)
    records = []
    for _ in range(num):
        slices = np.sort(random.choice(100, random.integers(1, 40), replace=False)).tolist()
        empty = [index for index in slices if random.random() < 0.5]
        drawn = set(slices) - set(empty)
        near = sum(index - 1 in slices for index in drawn)
        minutes = 3 + 0.25 * len(slices) + 4 * (len(drawn) - near) + 1.5 * near
        records.append(record(slices, empty, minutes=minutes + random.normal(0, noise)))
    return records


def test_prices_are_recovered_from_measured_minutes():
    model = fit_cost(measured_cases(200, noise=0.5))
    assert model.num_records == 200
    assert model.minutes_per_foreground_slice == pytest.approx(4, rel=0.05)
    assert model.minutes_per_neighbouring_slice == pytest.approx(1.5, rel=0.1)
    assert model.minutes_per_volume == pytest.approx(3, rel=0.2)
    assert model.foreground_share == pytest.approx(0.5, abs=0.03)
    assert "fitted to 200 measured cases" in model.describe()


def test_one_measured_case_scales_the_assumption():
    twice = record((10, 20), empty=(10,), minutes=2 * (1 + 2 * 0.5 + 2.0))
    model = fit_cost([twice])
    assert model.num_records == 1
    for name in ("minutes_per_volume", "minutes_per_slice", "minutes_per_foreground_slice"):
        assert getattr(model, name) == pytest.approx(2 * getattr(ASSUMED_COST, name))
    assert model.foreground_share == 0.5


def test_slices_across_other_axes_are_paid_for_too():
    across_y = AnnotatedView(
        axis=1, num_slices=50, annotated_slices=(3, 30), reviewed_empty_slices=()
    )
    both = replace(record((10, 20), minutes=100.0), further_views=(across_y,))
    assert (
        fit_cost([both]).minutes_per_slice
        < fit_cost([record((10, 20), minutes=100.0)]).minutes_per_slice
    )
    empty = replace(across_y, reviewed_empty_slices=(3, 30))
    assert fit_cost([replace(both, further_views=(empty,))]).foreground_share == 0.5


def test_no_price_is_ever_negative():
    # much shorter for many slices than for one: a plain least-squares fit would pay for slices
    odd = [record(range(60), minutes=2.0), record((1,), minutes=30.0), record((5,), minutes=30.0)]
    model = fit_cost(odd)
    assert model.minutes_per_slice >= 0
    assert model.minutes_per_neighbouring_slice >= 0
    assert model.minutes(range(60)) >= 0


def test_records_without_minutes_tell_how_often_there_is_an_object():
    model = fit_cost([record((1, 2, 3, 4), empty=(1, 2, 3)), record(())])
    assert model.num_records == 0
    assert model.foreground_share == 0.25
    assert model.minutes_per_volume == ASSUMED_COST.minutes_per_volume
    assert "assumed" in model.describe()
    assert fit_cost([]) == ASSUMED_COST


def test_the_assumption_can_be_scaled_to_what_a_slice_takes():
    assert ASSUMED_COST.with_minutes_per_slice(12).minutes([3]) == pytest.approx(12)
    with pytest.raises(RequestError, match="more than 0 minutes"):
        ASSUMED_COST.with_minutes_per_slice(0)
