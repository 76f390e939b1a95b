"""What every selector promises, whatever its rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import alexnet_weights, blobs, intensities

from sparseunet.annotation.selection import SELECTORS, load_selector
from sparseunet.annotation.selection.fixed import spread_first
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

SHAPE = (14, 24, 20)
SPACING_MM = (3.0, 1.0, 1.0)
LABELS = LabelSchema(classes={"background": 0, "large": 1, "small": 2}, regions={})


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[SliceStack]:
    folder, made = tmp_path_factory.mktemp("scans"), []
    for number in range(3):
        path, label = folder / f"scan_{number}_0000.nii.gz", folder / f"scan_{number}.nii.gz"
        geometry = Geometry(shape=SHAPE, spacing_mm=(3.0, 1.0, 1.0))
        labels = blobs(SHAPE, seed=number)
        write_image(path, intensities(labels, seed=number), geometry)
        write_label_map(label, labels, geometry)
        case = Case(name=f"scan_{number}", images=(path,), label=label)
        made.append(
            SliceStack(
                case=case, axis=0, num_slices=SHAPE[0], spacing_mm=(3.0, 1.0, 1.0), number=number
            )
        )
    return made


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What some selectors need besides images; features are learned once for all tests."""
    return {
        "labels": LABELS,
        "cache": tmp_path_factory.mktemp("features"),
        "weights": alexnet_weights(tmp_path_factory.mktemp("weights") / "alexnet-random.pth"),
    }


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
    stacks: list[SliceStack], resources: dict[str, Any], name: str
) -> None:
    request = SelectionRequest(counts=(3, 0, 5), total=8, seed=4, **resources)
    chosen = load_selector(name)(stacks, request=request)
    found = [(item.stack, item.index) for item in chosen]
    assert len(set(found)) == len(found) == 8
    assert [sum(stack == number for stack, _ in found) for number in range(3)] == [3, 0, 5]
    assert all(0 <= index < SHAPE[0] for _, index in found)
    assert all(item.reason for item in chosen)
    assert load_selector(name)(stacks, request=request) == chosen
    in_processes = replace(request, num_workers=2)
    assert load_selector(name)(stacks, request=in_processes) == chosen


@pytest.mark.parametrize("name", SELECTORS)
def test_all_slices_can_be_chosen_but_no_more(
    stacks: list[SliceStack], resources: dict[str, Any], name: str
) -> None:
    request = SelectionRequest(counts=(14, 1, 0), total=15, **resources)
    chosen = load_selector(name)(stacks, request=request)
    assert {item.index for item in chosen if item.stack == 0} == set(range(14))
    with pytest.raises(RequestError, match=r"scan_1 \(15 of 14\)"):
        load_selector(name)(stacks, request=replace(request, counts=(0, 15, 0)))


@pytest.mark.parametrize("name", SELECTORS)
def test_nothing_is_chosen_when_nothing_is_asked_for(
    stacks: list[SliceStack], resources: dict[str, Any], name: str
) -> None:
    request = SelectionRequest(counts=(0, 0, 0), total=0, **resources)
    assert load_selector(name)(stacks, request=request) == ()


@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "dataset"])
def test_selectors_of_single_scans_refuse_a_total_without_counts(
    stacks: list[SliceStack], resources: dict[str, Any], name: str
) -> None:
    with pytest.raises(RequestError, match="needs a number of slices per scan"):
        load_selector(name)(stacks, request=SelectionRequest(counts=None, total=9, **resources))


def test_other_seeds_draw_other_slices(stacks: list[SliceStack], resources: dict[str, Any]) -> None:
    for name in ("staggered", "random", "kmeans", "foreground-aware", "positive-weighted"):
        plans = {
            load_selector(name)(
                stacks, request=SelectionRequest(counts=(4, 4, 4), total=12, seed=seed, **resources)
            )
            for seed in range(3)
        }
        assert len(plans) == 3, name


@given(st.sets(st.integers(0, 200), max_size=40))
def test_spreading_keeps_the_slices_and_starts_in_the_middle(indices: set[int]) -> None:
    ordered = spread_first(sorted(indices))
    assert sorted(ordered) == sorted(indices)
    if indices:
        assert ordered[0] == sorted(indices)[(len(indices) - 1) // 2]


def test_an_unknown_selector_is_answered_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="no selector 'fix'; choose from staggered, fixed"):
        load_selector("fix")
    with pytest.raises(RequestError, match="cannot be imported"):
        load_selector("nowhere.at_all:select")


def test_a_selector_of_ones_own_is_named_by_its_path() -> None:
    path = "sparseunet.annotation.selection.fixed:select_fixed"
    assert load_selector(path) is load_selector("fixed")
