"""Staggered slices: whatever part of a dataset is annotated, its slices are spread evenly."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.make_annotation_plan import make_annotation_plan
from sparseunet.annotation.next_round import (
    RoundOptions,
    SliceUncertainty,
    rank_by_uncertainty,
)
from sparseunet.annotation.selection.fixed import fixed_interval_slices
from sparseunet.annotation.selection.slices import SliceStack
from sparseunet.annotation.selection.staggered import (
    in_order_of_priority,
    number_scans,
    shift,
    staggered_slices,
    systematic_sample,
    visit_evenly,
)
from sparseunet.annotation.spending import Axis, SpendingOptions
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image
from sparseunet.data.labels import LabelSchema

DEPTH = 1000
"""So deep that rounding to whole slices does not count."""


def discrepancy(places: Sequence[float]) -> float:
    """Return the largest error of 'the share of places below x is x' (star discrepancy)."""
    ordered = np.sort(np.asarray(places, float))
    rank = np.arange(len(ordered))
    return float(
        max((ordered - rank / len(ordered)).max(), ((rank + 1) / len(ordered) - ordered).max())
    )


def is_even(places: Sequence[float]) -> bool:
    """Return whether places in [0, 1) keep the bound of 2 · log(n) / n (of one place: any)."""
    count = len(places)
    return count < 2 or discrepancy(places) <= 2 * math.log(count) / count + 1 / DEPTH


def make_dataset(
    folder: Path, shapes: Sequence[tuple[int, int, int]], *, spacing_mm: Sequence[float] = (3, 1, 1)
) -> Dataset:
    """Write scans of nothing, which is all that staggered slices need."""
    cases = []
    for number, shape in enumerate(shapes):
        path = folder / f"scan_{number}_0000.nii.gz"
        geometry = Geometry(shape=shape, spacing_mm=tuple(map(float, spacing_mm)))
        write_image(path, np.zeros(shape, np.float32), geometry)
        cases.append(Case(name=f"scan_{number}", images=(path,), label=None))
    return Dataset(
        name="Dataset001_Scans",
        folder=folder,
        cases=tuple(cases),
        labels=LabelSchema(classes={"background": 0, "organ": 1}, regions={}),
        channel_names=("T1",),
        file_ending=".nii.gz",
        description={},
    )


def slices_by_case(plan: AnnotationPlan) -> dict[str, tuple[int, ...]]:
    return {case.case: tuple(sorted(case.slices)) for case in plan.cases}


@given(st.integers(0, 5000), st.integers(2, 600), st.integers(0, 5))
def test_any_scans_in_a_row_have_even_places(start: int, count: int, seed: int) -> None:
    assert is_even([shift(number, seed) for number in range(start, start + count)])


@given(st.integers(2, 300), st.integers(1, 12))
def test_all_slices_of_the_first_scans_are_even(num_scans: int, count: int) -> None:
    places = [
        index / DEPTH
        for number in range(num_scans)
        for index in staggered_slices(DEPTH, count=count, number=number)
    ]
    assert is_even(places)


@pytest.mark.parametrize("num_scans", [8, 60, 200, 500])
@pytest.mark.parametrize("seed", [0, 3])
def test_any_share_of_the_scans_is_even_and_so_is_the_rest(num_scans: int, seed: int) -> None:
    order = visit_evenly(range(num_scans), seed=seed)
    assert sorted(order) == list(range(num_scans))
    for count in range(1, num_scans + 1):
        assert is_even([shift(number, seed) for number in order[:count]]), count
        assert is_even([shift(number, seed) for number in order[count:]]), count


def test_a_share_is_spread_over_the_order_of_names_too() -> None:
    order = visit_evenly(range(200), seed=0)
    for count in (10, 25, 50, 100):
        assert is_even([number / 200 for number in order[:count]])


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13])
def test_an_unfinished_list_is_even_wherever_it_ends(count: int) -> None:
    order = visit_evenly(range(120), seed=0)
    worked_through = []
    for turn in range(count):
        for done, number in enumerate(order):
            slices = staggered_slices(DEPTH, count=count, number=number)
            worked_through.append(in_order_of_priority(slices, number=number, seed=0)[turn] / DEPTH)
            if done % 7 == 0:
                assert is_even(worked_through), (turn, done)


@given(st.integers(1, 200), st.data())
def test_no_slice_is_chosen_twice_and_all_are_where_all_are_asked_for(
    num_slices: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, num_slices))
    number, seed = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 100))
    chosen = staggered_slices(num_slices, count=count, number=number, seed=seed)
    assert len(set(chosen)) == len(chosen) == count
    assert all(0 <= index < num_slices for index in chosen)
    assert sorted(in_order_of_priority(chosen, number=number, seed=seed)) == list(chosen)
    everything = staggered_slices(num_slices, count=num_slices, number=number, seed=seed)
    assert everything == tuple(range(num_slices))


@given(st.integers(1, 200), st.data())
def test_the_first_scan_gets_what_fixed_gives(num_slices: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, num_slices))
    fixed = fixed_interval_slices(num_slices, count=count)
    assert staggered_slices(num_slices, count=count, number=0) == fixed


def test_more_slices_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="Cannot choose 4 of 3 slices"):
        staggered_slices(3, count=4, number=0)


def test_scans_are_numbered_in_the_order_that_a_person_expects() -> None:
    numbers = number_scans(["patient_10", "patient_9", "patient_007", "control"])
    assert numbers == {"control": 0, "patient_007": 1, "patient_9": 2, "patient_10": 3}
    assert number_scans(["a²", "a2", "2a"]) == {"2a": 0, "a2": 1, "a²": 2}
    more = number_scans([*numbers, "patient_11"])
    assert numbers.items() <= more.items()


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(0, 500), st.integers(0, 9))
def test_a_systematic_sample_takes_only_what_weighs_and_nothing_twice(
    weights: list[float], number: int, seed: int
) -> None:
    heavy = [place for place, weight in enumerate(weights) if weight > 0]
    for count in {0, len(heavy) // 2, len(heavy)}:
        found = systematic_sample(np.array(weights), count=count, number=number, seed=seed)
        assert len(set(found)) == len(found) == count
        assert set(found) <= set(heavy)


def test_a_systematic_sample_is_in_proportion_to_the_weights() -> None:
    weights_K = np.array([6.0, 1, 1, 0, 1, 1])
    counts_K = np.zeros(6)
    for number in range(400):
        counts_K[systematic_sample(weights_K, count=2, number=number, seed=0)] += 1
    assert counts_K[0] == 400, "in proportion it would be 1.2 times: it is certain"
    assert counts_K[3] == 0
    assert counts_K[[1, 2, 4, 5]] / 400 == pytest.approx(np.full(4, 1 / 4), abs=0.01)


def test_adding_scans_moves_no_slice_of_another(tmp_path: Path) -> None:
    shapes = [(30 + number % 5, 6, 6) for number in range(14)]
    dataset = make_dataset(tmp_path, shapes)
    fewer = replace(dataset, cases=dataset.cases[:9])
    before, after = (
        slices_by_case(make_annotation_plan(one, budget="5slices per case"))
        for one in (fewer, dataset)
    )
    assert len(before) == 9
    assert before.items() <= after.items()


def test_scans_with_fewer_slices_than_others_and_a_single_scan_are_planned(tmp_path: Path) -> None:
    few, single = tmp_path / "few", tmp_path / "single"
    few.mkdir()
    single.mkdir()
    plan = make_annotation_plan(
        make_dataset(few, [(2, 6, 6), (20, 6, 6), (20, 6, 6)]),
        budget="14slices",
        options=SpendingOptions(num_volumes=3),
    )
    assert [len(case.slices) for case in plan.cases] == [2, 6, 6]
    assert plan.cases[1].slices != plan.cases[2].slices
    alone = make_annotation_plan(make_dataset(single, [(21, 6, 6)]), budget="3slices")
    assert slices_by_case(alone) == {"scan_0": fixed_interval_slices(21, count=3)}


def test_strata_of_different_numbers_of_slices_are_even_each(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [(40, 4, 4)] * 40)
    plan = make_annotation_plan(
        dataset, budget="55slices", options=SpendingOptions(num_volumes=40, dimensions=2)
    )
    for count in (1, 2):
        stratum = [case for case in plan.cases if len(case.slices) == count]
        assert len(stratum) == {1: 25, 2: 15}[count]
        assert is_even([shift(int(case.case.removeprefix("scan_"))) for case in stratum])


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [((1, 1, 1), {0, 1, 2}), ((2, 1, 1), {0, 1, 2}), ((5, 1, 1), {0}), ((1, 5, 1), {1})],
)
def test_the_axis_alternates_where_pixels_are_not_too_long(
    tmp_path: Path, spacing_mm: tuple[float, ...], expected: set[int]
) -> None:
    dataset = make_dataset(tmp_path, [(12, 14, 16)] * 6, spacing_mm=spacing_mm)
    plan = make_annotation_plan(dataset, budget="2slices per case", axis="alternate")
    assert {case.axis for case in plan.cases} == expected == set(plan.provenance["axes"])
    assert len({case.case for case in plan.cases}) == len(plan.cases) == 6
    assert all(case.num_slices == (12, 14, 16)[case.axis] for case in plan.cases)


@pytest.mark.parametrize("flat", [0, 1, 2])
@pytest.mark.parametrize("axis", ["auto", "alternate"])
def test_pictures_stored_as_volumes_are_annotated_whole(
    tmp_path: Path, flat: int, axis: Axis
) -> None:
    sizes = [20, 24, 24]
    sizes[flat] = 1
    dataset = make_dataset(tmp_path, [(sizes[0], sizes[1], sizes[2])] * 4)
    plan = make_annotation_plan(dataset, budget="2slices", axis=axis)
    assert {(case.axis, case.slices) for case in plan.cases} == {(flat, (0,))}


def test_what_a_next_round_is_compared_with_is_spread_over_scans_and_places() -> None:
    stacks = [
        SliceStack(
            case=Case(name=f"scan_{number}", images=(), label=None),
            axis=0,
            num_slices=40,
            spacing_mm=(3.0, 1.0, 1.0),
            number=number,
        )
        for number in range(60)
    ]
    nothing = SliceUncertainty(entropy_K=np.zeros(40), by_class_KC=np.zeros((40, 1)))
    taken = [frozenset(staggered_slices(40, count=2, number=number)) for number in range(60)]
    for total in (30, 60, 150):
        chosen = rank_by_uncertainty(
            stacks,
            [nothing] * 60,
            taken=taken,
            total=total,
            class_names=("organ",),
            options=RoundOptions(random_share=1.0),
        )
        assert all(one.for_comparison for one in chosen)
        assert not any(one.index in taken[one.stack] for one in chosen)
        by_scan = np.bincount([one.stack for one in chosen], minlength=60)
        assert by_scan.max() - by_scan.min() <= 1
        places = [(one.index + 0.5) / 40 for one in chosen]
        assert discrepancy(places) <= 2 * math.log(total) / total + 1 / 40
