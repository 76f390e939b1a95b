"""Patches hold what they must, and annotated slices have no preferred place in them."""

from dataclasses import replace

import numpy as np
import pytest

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.training.recipe import Recipe
from sparseunet.training.sampling import CaseSummary, PatchSampler, PatchShare, resolve_shares

LABELS = LabelSchema(classes={"background": 0, "liver": 1, "tumour": 2}, regions={})
CHI_SQUARED_15 = 37.7
"""0.1 % quantile of chi-squared with 15 degrees of freedom."""


def _case(name, *, shape=(40, 32, 32), slices=None, classes=True):
    annotated = np.arange(shape[0]) if slices is None else np.array(slices)
    voxels = np.stack(
        np.meshgrid(annotated, np.arange(0, shape[1], 4), np.arange(0, shape[2], 4), indexing="ij"),
        -1,
    ).reshape(-1, 3)
    return CaseSummary(
        name=name,
        shape=shape,
        is_dense=slices is None,
        class_voxels={1: voxels[:1], 2: voxels[-5:]} if classes else {},
        annotated_voxels=voxels,
        annotated_slices=annotated,
    )


def _places(cases, *, number=4000, patch_size=(16, 16, 16), share=0.33, seed=0, **options):
    sampler = PatchSampler(
        cases, patch_size=patch_size, batch_size=number, foreground_share=share, **options
    )
    return sampler.places(np.random.default_rng(seed))


def _shares(**weights):
    return resolve_shares(weights, LABELS)


def _with_class_two_in(cases, name):
    """The cases, of which only one has class 2, in a corner of its own."""
    corner = np.array([[38, 30, 30]])
    return [
        replace(case, class_voxels={1: case.class_voxels[1]} | ({2: corner} if own else {}))
        for case in cases
        for own in [case.name == name]
    ]


def _holds(place, patch_size, voxels):
    start = np.array(place.start)
    return bool(((voxels >= start) & (voxels < start + patch_size)).all(axis=1).any())


@pytest.mark.parametrize("kind", ["slice", "scribbles"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_position_of_an_annotated_slice_in_patches_is_uniform(axis, seed, kind):
    shape, slice_index = (48, 48, 48), 24
    annotated_ZYX = np.zeros(shape, bool)
    annotated_ZYX[(slice(None),) * axis + (slice_index,)] = True
    if kind == "scribbles":
        annotated_ZYX &= np.random.default_rng(9).random(shape) < 0.05
    case = CaseSummary(
        name="sparse",
        shape=shape,
        is_dense=False,
        class_voxels={1: np.argwhere(annotated_ZYX)[::7]},
        annotated_voxels=np.argwhere(annotated_ZYX)[::5],
        annotated_slices=np.unique(np.nonzero(annotated_ZYX)[0]),
        slice_axis=axis,
    )
    places = _places([case], seed=seed)
    counts = np.bincount([slice_index - place.start[axis] for place in places], minlength=16)
    expected = len(places) / 16
    assert len(counts) == 16
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARED_15


@pytest.mark.parametrize("with_class", [True, False])
def test_position_of_a_scribble_in_two_dimensional_patches_is_uniform(with_class):
    voxel = np.array([[5, 24, 24]])
    case = CaseSummary(
        name="dot",
        shape=(10, 48, 48),
        is_dense=False,
        class_voxels={1: voxel} if with_class else {},
        annotated_voxels=voxel,
        annotated_slices=np.array([5]),
    )
    starts = np.array([place.start for place in _places([case], patch_size=(1, 16, 16))])
    assert set(starts[:, 0].tolist()) == {5}
    for axis in (1, 2):
        counts = np.bincount(24 - starts[:, axis], minlength=16)
        expected = len(starts) / 16
        assert len(counts) == 16
        assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARED_15


def test_near_the_border_of_an_image_the_positions_left_are_equally_likely():
    for slice_index in (0, 3):
        case = _case("sparse", slices=[slice_index], classes=False)
        counts = np.bincount([slice_index - place.start[0] for place in _places([case])])
        assert len(counts) == slice_index + 1  # the patch never reaches out of the image
        assert counts / 4000 == pytest.approx(1 / (slice_index + 1), abs=0.03)


@pytest.mark.parametrize("axis", [0, 1])
def test_every_annotated_slice_of_a_sparse_case_is_held_equally_often(axis):
    """One slice holds a thick scribble of a thousand voxels, the others hold ten each."""
    rng, slices, voxels = np.random.default_rng(0), [2, 20, 37], []
    for index, number in zip(slices, (1000, 10, 10), strict=True):
        drawn = rng.integers(0, 32, (number, 3))
        drawn[:, axis] = index
        voxels.append(drawn)
    everything = np.concatenate(voxels)
    shape = [32, 32, 32]
    shape[axis] = 40
    case = CaseSummary(
        name="scribbles",
        shape=tuple(shape),
        is_dense=False,
        class_voxels={},
        annotated_voxels=everything[np.lexsort(everything.T[::-1])],
        annotated_slices=np.unique(everything[:, 0]),
        slice_axis=axis,
    )
    starts = np.array([place.start[axis] for place in _places([case], patch_size=(4, 4, 4))])
    held = [((starts <= index) & (index < starts + 4)).mean() for index in slices]
    assert held == pytest.approx([1 / 3] * 3, abs=0.03)


def test_every_patch_of_a_sparse_case_holds_annotation():
    case = _case("sparse", slices=[3, 30], classes=False)
    assert all(_holds(place, (16, 16, 16), case.annotated_voxels) for place in _places([case]))


def test_the_last_third_of_a_batch_holds_a_class_of_its_case():
    case = _case("sparse", slices=[3, 30])
    places = _places([case], number=12)
    voxels = np.concatenate(list(case.class_voxels.values()))
    assert all(_holds(place, (16, 16, 16), voxels) for place in places[8:])


def test_patches_stay_inside_a_larger_image_and_around_a_smaller_one():
    inside = _places([_case("dense")])
    assert all(0 <= place.start[0] <= 24 and 0 <= place.start[1] <= 16 for place in inside)
    around = _places([_case("small", shape=(10, 32, 32))])
    starts = {place.start[0] for place in around}
    assert starts == set(range(-6, 1))


def test_two_dimensional_patches_come_from_annotated_slices_only():
    cases = [_case("a", slices=[3, 30]), _case("b", slices=[7])]
    places = _places(cases, patch_size=(1, 16, 16))
    drawn = {(place.case, place.start[0]) for place in places}
    assert drawn == {("a", 3), ("a", 30), ("b", 7)}


def test_every_annotated_slice_is_drawn_equally_often_in_two_dimensions():
    cases = [_case("a", slices=[3, 30, 31]), _case("b", slices=[7])]
    places = _places(cases, patch_size=(1, 16, 16), share=0)
    share = np.mean([place.case == "b" for place in places])
    assert share == pytest.approx(0.25, abs=0.03)


def test_cases_are_drawn_equally_often_in_three_dimensions():
    cases = [_case("a", slices=[3, 30, 31]), _case("b", slices=[7])]
    share = np.mean([place.case == "b" for place in _places(cases)])
    assert share == pytest.approx(0.5, abs=0.03)


def test_the_same_seed_gives_the_same_places():
    cases = [_case("a", slices=[3, 30]), _case("b")]
    assert _places(cases, seed=5) == _places(cases, seed=5)
    assert _places(cases, seed=5) != _places(cases, seed=6)


def test_no_annotated_case_is_an_error():
    with pytest.raises(ValueError, match="no case"):
        _places([])


def test_a_rare_class_reaches_its_share_of_the_patches():
    cases = [_case(f"case_{number}", slices=[3, 20, 38]) for number in range(10)]
    cases = _with_class_two_in(cases, "case_4")
    places = _places(cases, shares=_shares(liver=50, tumour=30, rest=20), patch_size=(4, 4, 4))
    tumour = [_holds(place, (4, 4, 4), np.array([[38, 30, 30]])) for place in places]
    from_the_case = [place.case == "case_4" for place in places]
    assert np.mean(from_the_case) == pytest.approx(0.3 + 0.7 / 10, abs=0.03)
    assert np.mean(np.array(tumour) & np.array(from_the_case)) == pytest.approx(0.3, abs=0.03)


def test_rest_lies_anywhere_in_a_sparse_case():
    case = _case("sparse", slices=[3])
    places = _places([case], shares=_shares(rest=1), patch_size=(4, 4, 4))
    starts = np.bincount([place.start[0] for place in places], minlength=37)
    assert starts.min() > 0
    assert len(starts) == 37


def test_background_and_unannotated_patches_hold_such_voxels():
    case = replace(
        _case("sparse", slices=[3]),
        other_voxels={"background": np.array([[3, 1, 1]]), "unannotated": np.array([[30, 30, 30]])},
    )
    for name, voxels in case.other_voxels.items():
        places = _places([case], number=100, shares=_shares(**{name: 1}), patch_size=(4, 4, 4))
        assert all(_holds(place, (4, 4, 4), voxels) for place in places)


def test_what_no_case_has_leaves_its_share_to_the_others():
    cases = [_case("a", slices=[3], classes=False), _case("b", slices=[20, 30])]
    only_liver = _places(cases, number=100, shares=_shares(liver=1, background=5, unannotated=5))
    assert {place.case for place in only_liver} == {"b"}
    nothing = _case("c", slices=[3], classes=False)
    assert _places([nothing], shares=_shares(tumour=1)) == _places([nothing])


@pytest.mark.parametrize("names", [("liver", "rest"), ("rest",), ("tumour",)])
def test_two_dimensional_patches_with_shares_come_from_annotated_slices_only(names):
    cases = [_case("a", slices=[3, 30]), _case("b", slices=[7])]
    shares = _shares(**dict.fromkeys(names, 1))
    places = _places(cases, patch_size=(1, 16, 16), shares=shares)
    assert {(place.case, place.start[0]) for place in places} <= {("a", 3), ("a", 30), ("b", 7)}


@pytest.mark.parametrize(
    ("weighting", "expected"), [("uniform", 1 / 2), ("slices", 1 / 10), ("sqrt_slices", 1 / 4)]
)
def test_cases_are_drawn_by_the_number_of_their_annotated_slices(weighting, expected):
    cases = [_case("few", slices=[3, 20]), _case("many", slices=range(1, 37, 2))]
    for options in ({}, {"shares": _shares(liver=1, rest=1)}):
        places = _places(cases, case_weighting=weighting, **options)
        share = np.mean([place.case == "few" for place in places])
        assert share == pytest.approx(expected, abs=0.03)


def test_a_region_stands_for_all_of_its_classes():
    labels = LabelSchema(
        classes={"background": 0},
        regions={"whole": (1, 2), "core": (2,)},
        regions_class_order=(1, 2),
    )
    shares = resolve_shares({"whole": 3, "core": 0, "background": 1}, labels)
    assert shares == (
        PatchShare(name="whole", weight=3, values=(1, 2)),
        PatchShare(name="background", weight=1),
    )


def test_a_share_of_something_unknown_is_refused_with_all_names():
    with pytest.raises(RequestError, match=r"lung.*liver, tumour, background, unannotated, rest"):
        resolve_shares({"liver": 1, "lung": 2}, LABELS)


@pytest.mark.parametrize("shares", [{}, {"liver": 0}, {"liver": -1, "rest": 2}, {"a": np.nan}])
def test_shares_must_be_weights(shares):
    with pytest.raises(RequestError, match="weights"):
        Recipe(patch_shares=shares)


def test_cases_cannot_be_weighted_by_anything():
    with pytest.raises(RequestError, match="uniform, slices, sqrt_slices"):
        Recipe(case_weighting="size")


def test_a_function_of_the_users_draws_every_place_in_cases_drawn_as_ever():
    cases = [_case("few", slices=[3, 20]), _case("many", slices=range(1, 37, 2))]
    seen = []

    def draw(case, patch_size, rng):
        seen.append((case.name, patch_size))
        return rng.integers(0, 3), np.int64(1), 2

    for options in ({}, {"patch_size": (1, 16, 16)}):
        places = _places(cases, number=500, case_weighting="slices", draw_start=draw, **options)
        assert np.mean([place.case == "few" for place in places]) == pytest.approx(0.1, abs=0.05)
        assert {place.start[1:] for place in places} == {(1, 2)}
    assert {size for _, size in seen} == {(16, 16, 16), (1, 16, 16)}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ((1, 2), "three whole numbers"),
        ((1.5, 2, 3), "three whole numbers"),
        ((-16, 0, 0), "holds no voxel"),
        ((0, 0, 32), "holds no voxel"),
    ],
)
def test_places_that_show_nothing_are_refused(start, message):
    def draw(case, patch_size, rng):
        return start

    with pytest.raises(RequestError, match=message):
        _places([_case("a")], number=1, draw_start=draw)


def test_a_sampler_of_the_users_and_patch_shares_exclude_each_other():
    with pytest.raises(RequestError, match="my_module:draw"):
        Recipe(sampler="my_module:draw", patch_shares={"liver": 1})
    with pytest.raises(RequestError, match="nnunet"):
        Recipe(sampler="uniform")
