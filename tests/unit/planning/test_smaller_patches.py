"""Patches cut to save time keep a network that fits them."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.errors import RequestError
from sparseunet.planning.memory import shrinking_candidates
from sparseunet.planning.overrides import (
    smaller_patches,
    with_base_features,
    with_planned_patch,
)
from sparseunet.planning.plan import Configuration
from sparseunet.planning.planners import PLANNERS
from sparseunet.planning.topology import choose_topology


def _configuration(spacing_mm, shape, planner="default") -> Configuration:
    *_, chosen = shrinking_candidates(spacing_mm, shape, planner=PLANNERS[planner], num_outputs=3)
    return Configuration(
        name="3d_fullres" if len(shape) == 3 else "2d",
        data_identifier="x",
        batch_size=2,
        patch_size=chosen.patch_size,
        median_shape=tuple(shape),
        spacing_mm=tuple(spacing_mm),
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=chosen.network,
        batch_dice=False,
    )


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("shape", [(16, 230, 230), (128, 128, 128), (400, 300)])
def test_planning_for_the_planned_patch_gives_the_planned_network(shape, planner):
    planned = _configuration((5.0, 1.0, 1.0)[-len(shape) :], shape, planner)
    assert with_planned_patch(planned, planned.patch_size) == planned


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.5, 6), st.integers(16, 300)), min_size=2, max_size=3),
    st.sampled_from(sorted(PLANNERS)),
    st.sampled_from([8, 32]),
)
def test_ever_smaller_patches_fit_their_networks_and_keep_some_context(axes, planner, features):
    spacing_mm, shape = zip(*axes, strict=True)
    try:
        planned = with_base_features(_configuration(spacing_mm, shape, planner), features)
    except RequestError:
        return
    if len(planned.network.strides) < 2:
        return
    tried = [planned, *smaller_patches(planned)]
    for before, after in pairwise(tried):
        assert prod(after.patch_size) < prod(before.patch_size)
    for item in tried:
        topology = choose_topology(spacing_mm, item.patch_size)
        assert topology.patch_size == item.patch_size
        assert (item.network.strides, item.network.kernel_sizes) == (
            topology.strides,
            topology.kernel_sizes,
        )
        stages = len(topology.strides)
        assert len(item.network.features_per_stage) == stages
        assert len(item.network.encoder_depths) == stages
        assert len(item.network.decoder_depths) == stages - 1
        assert item.network.features_per_stage[0] == features
        for edge, first in zip(item.patch_size, planned.patch_size, strict=True):
            assert edge >= min(first, max(32, first / 2))


def test_a_short_axis_stays_while_the_others_are_cut():
    planned = _configuration((10.0, 1.5, 1.5), (10, 256, 224))
    smallest = [*smaller_patches(planned)][-1]
    assert planned.patch_size == (10, 256, 224)
    assert smallest.patch_size == (10, 128, 128)


def test_the_network_gets_shallower_with_its_patch():
    planned = _configuration((1.0, 1.0), (512, 512))
    smallest = [*smaller_patches(planned)][-1]
    assert len(smallest.network.strides) < len(planned.network.strides)


def test_a_patch_too_small_to_be_pooled_is_refused():
    planned = _configuration((1.0, 1.0, 1.0), (64, 64, 64))
    with pytest.raises(RequestError, match="at least 12"):
        with_planned_patch(planned, (4, 4, 4))
