"""No annotated voxel is lost on the way to lower resolutions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.training.deep_supervision import level_weights, targets_of_levels

STRIDES = {3: ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)), 2: ((1, 1), (2, 2), (2, 2), (2, 2))}
SIZE = {3: (8, 16, 16), 2: (16, 16)}


@given(
    dimensions=st.sampled_from([2, 3]),
    position=st.tuples(st.integers(0, 7), st.integers(0, 15), st.integers(0, 15)),
    value=st.integers(0, 2),
)
@settings(max_examples=60)
def test_one_annotated_voxel_is_seen_at_every_level_with_its_own_label(dimensions, position, value):
    labels_map = torch.zeros(1, *SIZE[dimensions], dtype=torch.int64)
    weight = torch.zeros(1, *SIZE[dimensions])
    position = position[-dimensions:]
    labels_map[(0, *position)], weight[(0, *position)] = value, 0.5
    levels = targets_of_levels(labels_map, weight, strides=STRIDES[dimensions], num_values=3)
    where = position
    for (coarse, coarse_weight), stride in zip(levels, STRIDES[dimensions], strict=True):
        where = tuple(place // step for place, step in zip(where, stride, strict=True))
        assert coarse[(0, *where)] == value
        assert coarse_weight[(0, *where)] == 0.5
        assert torch.count_nonzero(coarse_weight) == 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_slice_and_scribble_is_seen_at_every_level(dimensions):
    generator = torch.Generator().manual_seed(0)
    labels_map = torch.randint(0, 3, (4, *SIZE[dimensions]), generator=generator)
    weight = (torch.rand(4, *SIZE[dimensions], generator=generator) < 0.02).float()
    weight[0] = 0
    weight[0, 5] = 1  # one slice
    for _, coarse in targets_of_levels(
        labels_map, weight, strides=STRIDES[dimensions], num_values=3
    ):
        assert (coarse.flatten(1).amax(1) > 0).all()


def test_a_coarse_voxel_takes_the_majority_of_its_annotated_voxels():
    labels_map = torch.tensor([[[[1, 2], [2, 1]], [[2, 0], [0, 0]]]])
    weight = torch.tensor([[[[1.0, 1], [1, 0]], [[1, 0], [0, 0]]]])
    ((coarse, coarse_weight),) = targets_of_levels(
        labels_map, weight, strides=((2, 2, 2),), num_values=3
    )
    assert coarse.item() == 2
    assert coarse_weight.item() == 1


def test_a_tie_goes_to_the_label_in_the_middle():
    labels_map = torch.arange(4).repeat(32**3 // 4).reshape(1, 32, 32, 32)
    middle = int(labels_map[0, 16, 16, 16])
    for value in range(4):
        shifted = (labels_map - middle + value) % 4
        levels = targets_of_levels(
            shifted, torch.ones(1, 32, 32, 32), strides=((2, 2, 2),) * 5, num_values=4
        )
        assert levels[-1][0].item() == value


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_going_level_by_level_elects_what_all_voxels_together_would(share):
    generator = torch.Generator().manual_seed(1)
    labels_map = torch.randint(0, 3, (2, 8, 16, 16), generator=generator)
    weight = (torch.rand(2, 8, 16, 16, generator=generator) < share).float()
    *_, last = targets_of_levels(labels_map, weight, strides=STRIDES[3], num_values=3)
    ((labels_once, weight_once),) = targets_of_levels(
        labels_map, weight, strides=((4, 8, 8),), num_values=3
    )
    assert torch.equal(last[0], labels_once)
    assert torch.equal(last[1], weight_once)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (1, (1.0,)),
        (2, (1.0, 0.0)),
        (3, (2 / 3, 1 / 3, 0.0)),
        (5, (8 / 15, 4 / 15, 2 / 15, 1 / 15, 0)),
    ],
)
def test_level_weights_halve_and_skip_the_lowest(levels, expected):
    assert level_weights(levels) == pytest.approx(expected)
