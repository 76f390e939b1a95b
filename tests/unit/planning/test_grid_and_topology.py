"""Target spacing, order of axes, pooling and what fits in memory."""

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.planning.memory import choose_batch_size, shrinking_candidates
from sparseunet.planning.planners import PLANNERS
from sparseunet.planning.spacing import (
    choose_spacing,
    choose_transpose,
    coarser_grids,
    median_resampled_shape,
)
from sparseunet.planning.topology import choose_topology, initial_patch_size

edges = st.integers(min_value=8, max_value=400)
spacings = st.floats(min_value=0.2, max_value=8)


def test_the_target_spacing_is_the_median_for_nearly_isotropic_images():
    found = choose_spacing([(1, 1, 1), (2, 1, 1), (3, 1.5, 1)], [(100, 100, 100)] * 3)
    assert found.target_mm == (2, 1, 1)


def test_a_coarse_and_short_axis_takes_its_tenth_percentile():
    spacings_mm = [(float(z), 1.0, 1.0) for z in range(1, 12)]
    found = choose_spacing(spacings_mm, [(20, 200, 200)] * 11)
    assert found.target_mm == (2, 1, 1)


def test_a_coarse_axis_never_becomes_finer_than_the_others():
    spacings_mm = [(0.5, 1.0, 1.0)] * 3 + [(5.0, 1.0, 1.0)] * 7
    found = choose_spacing(spacings_mm, [(20, 200, 200)] * 10)
    assert found.target_mm == pytest.approx((1 + 1e-5, 1, 1), abs=1e-12)
    assert found.rule == "sharp_raised"


def test_a_coarse_but_long_axis_keeps_its_median():
    spacings_mm = [(float(z), 1.0, 1.0) for z in range(1, 12)]
    found = choose_spacing(spacings_mm, [(90, 200, 200)] * 11)
    assert (found.target_mm, found.rule) == ((6, 1, 1), "median")


@pytest.mark.parametrize(
    ("spacing_mm", "forward"),
    [
        ((3, 1, 1), (0, 1, 2)),
        ((1, 3, 1), (1, 0, 2)),
        ((1, 2, 3), (2, 0, 1)),
        ((1, 1, 1), (0, 1, 2)),
    ],
)
def test_the_coarsest_axis_comes_first_and_the_way_back_is_known(spacing_mm, forward):
    there, back = choose_transpose(spacing_mm)
    assert there == forward
    array = np.zeros((2, 3, 4))
    assert array.transpose(there).transpose(back).shape == array.shape


def test_shapes_are_rounded_per_case_before_the_median():
    found = median_resampled_shape(
        [(10, 10, 10), (11, 10, 10)], [(1, 1, 1), (1, 1, 1)], np.array([1.0, 2.0, 0.5])
    )
    assert found.tolist() == [10.5, 5, 20]


def test_only_axes_that_are_twice_as_fine_are_coarsened_first():
    grids = coarser_grids((5.0, 1.0, 1.0), (50, 400, 400))
    first_mm, first_shape = next(grids)
    assert first_mm == pytest.approx([5, 1.03, 1.03])
    assert first_shape == pytest.approx([50, 400 / 1.03, 400 / 1.03])
    later_mm, _ = list(islice(grids, 60))[-1]
    assert later_mm[0] > 5
    assert 1.9 < later_mm[0] / later_mm[1] < 2.1


@settings(max_examples=200)
@given(st.lists(st.tuples(spacings, edges), min_size=2, max_size=3))
def test_every_patch_divides_evenly_and_keeps_a_bottleneck_of_four_voxels(axes):
    spacing_mm, size = zip(*axes, strict=True)
    found = choose_topology(spacing_mm, size)
    assert found.strides[0] == (1,) * len(size)
    assert len(found.strides) == len(found.kernel_sizes)
    assert set(found.kernel_sizes[-1]) == {3}
    for edge, wanted, divisor in zip(found.patch_size, size, found.divisor, strict=True):
        assert edge % divisor == 0
        assert 0 <= edge - wanted < divisor
        assert divisor == 1 or edge // divisor >= 4


def test_a_coarse_axis_is_pooled_and_convolved_only_once_the_others_have_caught_up():
    found = choose_topology((5.0, 1.0, 1.0), (16, 256, 256))
    assert found.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert found.kernel_sizes[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_the_last_axis_left_needs_twelve_voxels():
    assert len(choose_topology((1.0, 1.0), (11, 4)).strides) == 1
    assert len(choose_topology((1.0, 1.0), (12, 4)).strides) == 2


def test_the_first_patch_is_cubic_in_millimetres_and_within_the_image():
    assert initial_patch_size((1.0, 1.0, 1.0), (999, 999, 999)) == (256, 256, 256)
    assert initial_patch_size((8.0, 1.0, 1.0), (999, 999, 999)) == (64, 512, 512)
    assert initial_patch_size((1.0, 1.0), (300.5, 99)) == (300.5, 99)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(spacings, st.integers(16, 900)), min_size=2, max_size=3),
    st.sampled_from(sorted(PLANNERS)),
    st.integers(2, 120),
)
def test_the_chosen_network_fits_in_memory_with_a_batch_of_two(axes, name, num_outputs):
    spacing_mm, shape = zip(*axes, strict=True)
    planner = PLANNERS[name]
    tried = list(shrinking_candidates(spacing_mm, shape, planner=planner, num_outputs=num_outputs))
    limit = planner.max_cost[len(shape)]
    assert tried[-1].cost <= limit
    assert all(candidate.cost > limit for candidate in tried[:-1])
    for before, after in pairwise(tried):
        assert sum(a != b for a, b in zip(before.patch_size, after.patch_size, strict=True)) >= 1
        assert all(a <= b for a, b in zip(after.patch_size, before.patch_size, strict=True))


def test_a_batch_holds_at_most_a_twentieth_of_a_small_dataset_but_two_samples():
    *_, chosen = shrinking_candidates(
        (1.0, 1.0), (64, 64), planner=PLANNERS["default"], num_outputs=2
    )
    filling_memory = round(12 * 85e6 / chosen.cost)
    for dataset_voxels, expected, rule in (
        (1e9, filling_memory, "memory"),
        (64 * 64 * 600, 30, "dataset"),
        (64 * 64, 2, "minimum"),
    ):
        batch = choose_batch_size(
            chosen, planner=PLANNERS["default"], dataset_voxels=dataset_voxels
        )
        assert (batch.batch_size, batch.rule) == (expected, rule)


def test_more_memory_means_larger_patches():
    sizes = []
    for memory_gb in (4, 8, 16, 32):
        planner = PLANNERS["default"].with_memory(memory_gb)
        *_, chosen = shrinking_candidates(
            (1.0, 1.0, 1.0), (400, 400, 400), planner=planner, num_outputs=3
        )
        sizes.append(np.prod(chosen.patch_size))
    assert sizes == sorted(set(sizes))
