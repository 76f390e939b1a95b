"""Patches hold what they must, and annotated slices have no preferred place in them."""

import numpy as np
import pytest

from sparseunet.training.sampling import CaseSummary, batch_places


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


def _places(cases, *, number=4000, patch_size=(16, 16, 16), share=0.33, seed=0):
    rng = np.random.default_rng(seed)
    return batch_places(
        cases, patch_size=patch_size, batch_size=number, foreground_share=share, rng=rng
    )


def _holds(place, patch_size, voxels):
    start = np.array(place.start)
    return bool(((voxels >= start) & (voxels < start + patch_size)).all(axis=1).any())


def test_position_of_an_annotated_slice_in_patches_is_uniform():
    case = _case("sparse", slices=[20], classes=False)
    positions = [20 - place.start[0] for place in _places([case])]
    counts = np.bincount(positions, minlength=16)
    expected = len(positions) / 16
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 37.7  # 0.1 % quantile of chi-squared with 15 degrees of freedom


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
