"""The next round goes where a network is unsure, and always keeps a random share beside it."""

import numpy as np
import pytest

from sparseunet.annotation.budget import parse_budget
from sparseunet.annotation.cost import ASSUMED_COST
from sparseunet.annotation.next_round import (
    RoundOptions,
    SliceUncertainty,
    annotated_slices,
    measure_uncertainty,
    plan_next_round,
    rank_by_uncertainty,
)
from sparseunet.annotation.selection.slices import SliceStack
from sparseunet.data.annotation_record import AnnotationRecord
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

NUM_SLICES = 40
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "lesion": 2}, regions={})
ORGAN, LESION = set(range(10, 15)), set(range(30, 35))
"""Slices of the first scan where the network is unsure about one class."""


def stacks() -> list[SliceStack]:
    return [
        SliceStack(
            case=Case(name=name, images=(), label=None),
            axis=0,
            num_slices=NUM_SLICES,
            spacing_mm=(1.0, 1.0, 1.0),
            number=number,
        )
        for number, name in enumerate(("unsure", "sure"))
    ]


def uncertainties() -> list[SliceUncertainty]:
    by_class_KC = np.full((NUM_SLICES, 2), 1e-6)
    by_class_KC[sorted(ORGAN), 0] = 0.9
    by_class_KC[sorted(LESION), 1] = 0.1
    entropy_K = by_class_KC.sum(axis=1)
    nothing = np.full((NUM_SLICES, 2), 1e-6)
    return [
        SliceUncertainty(entropy_K=entropy_K, by_class_KC=by_class_KC),
        SliceUncertainty(entropy_K=nothing.sum(axis=1), by_class_KC=nothing),
    ]


def rank(total, *, taken=(frozenset(), frozenset()), **options):
    return rank_by_uncertainty(
        stacks(),
        uncertainties(),
        taken=taken,
        total=total,
        class_names=("organ", "lesion"),
        options=RoundOptions(**{"number": 3, "random_share": 0.25, **options}),
    )


def is_for_comparison(slice_) -> bool:
    return slice_.for_comparison


def test_entropy_is_that_of_each_slice():
    probabilities_KZYX = np.zeros((3, 4, 5, 6), np.float32)
    probabilities_KZYX[0] = 1
    probabilities_KZYX[:, 2] = np.array([0.5, 0.5, 0.0]).reshape(3, 1, 1)
    probabilities_KZYX[:, 3] = 1 / 3
    found = measure_uncertainty(probabilities_KZYX, axis=0)
    assert found.entropy_K == pytest.approx([0, 0, np.log(2), np.log(3)], abs=1e-6)
    assert found.by_class_KC[2] == pytest.approx([0.5 * np.log(2), 0], abs=1e-6)
    across_x = measure_uncertainty(probabilities_KZYX, axis=2)
    assert across_x.entropy_K.shape == (6,)
    assert across_x.entropy_K == pytest.approx([(np.log(2) + np.log(3)) / 4] * 6)


def test_regions_are_unsure_each_on_its_own():
    probabilities_KZYX = np.full((2, 1, 2, 2), 0.5, np.float32)
    found = measure_uncertainty(probabilities_KZYX, axis=0, has_regions=True)
    assert found.entropy_K == pytest.approx([2 * np.log(2)])
    assert found.by_class_KC.shape == (1, 2)


def test_ranked_slices_are_where_the_network_is_unsure_and_classes_take_turns():
    ranked = [slice_ for slice_ in rank(12) if not is_for_comparison(slice_)]
    assert len(ranked) == 9
    assert {slice_.stack for slice_ in ranked} == {0}
    indices = {slice_.index for slice_ in ranked}
    assert indices <= ORGAN | LESION
    # by entropy alone the lesion would get nothing before the organ is used up
    assert len(indices & LESION) >= 3


def test_a_share_looks_at_no_image_and_is_spread_over_the_order_of_priority():
    chosen = rank(40)
    assert sum(map(is_for_comparison, chosen)) == 10
    assert 3 <= sum(map(is_for_comparison, chosen[:20])) <= 7
    assert {slice_.stack for slice_ in chosen if is_for_comparison(slice_)} == {0, 1}
    assert sum(map(is_for_comparison, rank(1))) == 1, "there is always a slice to compare with"


def test_no_slice_is_chosen_twice_or_annotated_already():
    taken = (frozenset(range(0, 40, 2)), frozenset(range(39)))
    chosen = rank(21, taken=taken)
    places = {(slice_.stack, slice_.index) for slice_ in chosen}
    assert places == {(0, index) for index in range(1, 40, 2)} | {(1, 39)}
    with pytest.raises(RequestError, match="22 slices are asked for, but only 21"):
        rank(22, taken=taken)


def test_crossing_slices_of_another_axis_do_not_count_as_annotated(tmp_path):
    labels = LabelSchema(classes={"background": 0, "organ": 1}, regions={}, ignore=2)
    labels_ZYX = np.full((10, 8, 8), 2, np.uint8)
    labels_ZYX[[1, 4]] = 0
    path = tmp_path / "scan.nii.gz"
    write_label_map(path, labels_ZYX, Geometry(shape=(10, 8, 8), spacing_mm=(1.0, 1.0, 1.0)))
    case = Case(name="scan", images=(), label=path)

    def found(axis: int, record: AnnotationRecord | None = None) -> frozenset[int]:
        stack = SliceStack(
            case=case, axis=axis, num_slices=labels_ZYX.shape[axis], spacing_mm=(1.0, 1.0, 1.0)
        )
        return annotated_slices(stack, labels, record=record)

    assert found(0) == {1, 4}
    assert found(1) == set()
    scribbled = AnnotationRecord(
        axis=1, num_slices=8, annotated_slices=(5,), annotated_classes=("organ",)
    )
    assert found(1, scribbled) == {5}
    assert found(0, scribbled) == {1, 4}


def test_the_first_round_strays_further_than_later_ones():
    def on_target(number: int) -> int:
        rounds = [rank(12, number=number, seed=seed) for seed in range(20)]
        return sum(
            one.stack == 0 and one.index in ORGAN | LESION
            for chosen in rounds
            for one in chosen
            if not is_for_comparison(one)
        )

    assert on_target(1) < on_target(3) == 20 * 9
    assert RoundOptions(number=9).beta == 100


def test_the_same_seed_gives_the_same_slices():
    assert rank(12, seed=1) == rank(12, seed=1) != rank(12, seed=2)


def plan(budget: str, **options):
    return plan_next_round(
        "Dataset001_X",
        stacks(),
        uncertainties(),
        taken=(frozenset(), frozenset()),
        budget=parse_budget(budget),
        labels=LABELS,
        cost=ASSUMED_COST,
        options=RoundOptions(**{"number": 3, **options}),
    )


def test_the_plan_reports_the_random_baseline():
    about = plan("15slices").provenance["next_round"]
    assert (about["num_ranked"], about["num_random"]) == (10, 5)
    assert about["mean_entropy_ranked"] > about["mean_entropy_left"]
    assert about["mean_entropy_random"] is not None
    everything = plan("15slices", random_share=1.0).provenance["next_round"]
    assert (everything["num_ranked"], everything["mean_entropy_ranked"]) == (0, None)


def test_budgets_mean_the_same_as_in_the_first_round():
    assert plan("25%").num_slices == 20
    timed = plan("40min")
    assert 30 < timed.expected_minutes <= 40
    for budget, message in (
        ("81slices", "only 80"),
        ("1%", "not one slice"),
        ("1min", "not enough for one slice"),
        ("3slices per case", "for all cases together"),
    ):
        with pytest.raises(RequestError, match=message):
            plan(budget)


def test_a_round_without_random_slices_is_refused():
    with pytest.raises(RequestError, match="random share must be above 0"):
        RoundOptions(random_share=0)
    with pytest.raises(RequestError, match="counted from 1"):
        RoundOptions(number=0)
