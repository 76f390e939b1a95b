"""What every selector promises, whatever its rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import blobs, intensities

from sparseunet.annotation.selection import SELECTORS, load_selector
from sparseunet.annotation.selection.fixed import spread_first
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image
from sparseunet.errors import RequestError

SHAPE = (14, 24, 20)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[SliceStack]:
    folder, made = tmp_path_factory.mktemp("scans"), []
    for number in range(3):
        path = folder / f"scan_{number}_0000.nii.gz"
        geometry = Geometry(shape=SHAPE, spacing_mm=(3.0, 1.0, 1.0))
        write_image(path, intensities(blobs(SHAPE, seed=number), seed=number), geometry)
        case = Case(name=f"scan_{number}", images=(path,), label=None)
        made.append(SliceStack(case=case, axis=0, num_slices=SHAPE[0], spacing_mm=(3.0, 1.0, 1.0)))
    return made


def test_a_stack_reads_its_slices_across_its_axis(stacks: list[SliceStack]) -> None:
    across_z = stacks[0].read()
    assert across_z.shape == (14, 1, 24, 20)
    across_x = SliceStack(
        case=stacks[0].case, axis=2, num_slices=SHAPE[2], spacing_mm=(1.0, 3.0, 1.0)
    ).read()
    assert across_x.shape == (20, 1, 14, 24)
    assert np.array_equal(across_x[7, 0], across_z[:, 0, :, 7])


@pytest.mark.parametrize("name", SELECTORS)
def test_every_stack_gets_exactly_what_was_asked_for_and_no_slice_twice(
    stacks: list[SliceStack], name: str
) -> None:
    request = SelectionRequest(counts=(3, 0, 5), total=8, seed=4, time_budget_s=5.0)
    chosen = load_selector(name)(stacks, request=request)
    found = [(item.stack, item.index) for item in chosen]
    assert len(set(found)) == len(found) == 8
    assert [sum(stack == number for stack, _ in found) for number in range(3)] == [3, 0, 5]
    assert all(0 <= index < SHAPE[0] for _, index in found)
    assert all(item.reason for item in chosen)
    assert load_selector(name)(stacks, request=request) == chosen


@pytest.mark.parametrize("name", SELECTORS)
def test_all_slices_can_be_chosen_but_no_more(stacks: list[SliceStack], name: str) -> None:
    request = SelectionRequest(counts=(14, 1, 0), total=15, time_budget_s=5.0)
    chosen = load_selector(name)(stacks, request=request)
    assert {item.index for item in chosen if item.stack == 0} == set(range(14))
    with pytest.raises(RequestError, match=r"scan_1 \(15 of 14\)"):
        load_selector(name)(stacks, request=SelectionRequest(counts=(0, 15, 0), total=15))


@given(st.sets(st.integers(0, 200), max_size=40))
def test_spreading_keeps_the_slices_and_starts_in_the_middle(indices: set[int]) -> None:
    ordered = spread_first(sorted(indices))
    assert sorted(ordered) == sorted(indices)
    if indices:
        assert ordered[0] == sorted(indices)[(len(indices) - 1) // 2]


def test_an_unknown_selector_is_answered_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="no selector 'fix'; choose from fixed"):
        load_selector("fix")
    with pytest.raises(RequestError, match="cannot be imported"):
        load_selector("nowhere.at_all:select")


def test_a_selector_of_ones_own_is_named_by_its_path() -> None:
    path = "sparseunet.annotation.selection.fixed:select_fixed"
    assert load_selector(path) is load_selector("fixed")
