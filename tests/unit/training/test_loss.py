"""The loss learns from annotated voxels and from nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.data.labels import LabelSchema
from sparseunet.training.deep_supervision import downsample_targets, level_weights
from sparseunet.training.loss import dice_binary_cross_entropy, dice_cross_entropy, region_targets
from sparseunet.training.objective import Objective

CLASSES = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0}, regions={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
)
STRIDES = {3: ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)), 2: ((1, 1), (2, 2), (2, 2), (2, 2))}
SIZE = {3: (8, 16, 16), 2: (16, 16)}


def _case(dimensions, *, labels, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (2, *SIZE[dimensions])
    weight = (torch.rand(size, generator=generator) < share).float()
    labels_map = torch.randint(0, 3, size, generator=generator)
    outputs = []
    current = SIZE[dimensions]
    for stride in STRIDES[dimensions][:3]:
        current = tuple(length // step for length, step in zip(current, stride, strict=True))
        outputs.append(
            torch.randn(2, labels.num_outputs, *current, generator=generator, requires_grad=True)
        )
    return outputs, labels_map, weight


def _objective(dimensions, labels, *, batch_dice=True):
    return Objective(labels=labels, strides=STRIDES[dimensions], batch_dice=batch_dice)


cases = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
spaces = pytest.mark.parametrize("dimensions", [2, 3])
batch_or_sample = pytest.mark.parametrize("batch_dice", [True, False])


@cases
@spaces
@batch_or_sample
def test_gradient_is_zero_at_unannotated_voxels(dimensions, labels, batch_dice):
    outputs, labels_map, weight = _case(dimensions, labels=labels, share=0.1)
    objective = _objective(dimensions, labels, batch_dice=batch_dice)
    objective.loss(outputs, labels_map, weight).backward()
    gradient = outputs[0].grad
    outside = (weight == 0).unsqueeze(1).expand_as(gradient)
    assert torch.count_nonzero(gradient[outside]) == 0
    assert torch.count_nonzero(gradient[~outside]) > 0


@cases
@spaces
@batch_or_sample
def test_labels_of_unannotated_voxels_change_nothing_bit_for_bit(dimensions, labels, batch_dice):
    outputs, labels_map, weight = _case(dimensions, labels=labels, share=0.1)
    other_map = torch.where(weight > 0, labels_map, (labels_map + 1) % 3)
    objective = _objective(dimensions, labels, batch_dice=batch_dice)
    gradients = []
    for current in (labels_map, other_map):
        loss = objective.loss(outputs, current, weight)
        gradients.append((loss, *torch.autograd.grad(loss, outputs[:2])))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@cases
@spaces
@batch_or_sample
def test_a_batch_without_annotation_gives_zero_and_no_gradient(dimensions, labels, batch_dice):
    outputs, labels_map, weight = _case(dimensions, labels=labels, share=0.1)
    loss = _objective(dimensions, labels, batch_dice=batch_dice).loss(
        outputs, labels_map, torch.zeros_like(weight)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(output.grad) == 0 for output in outputs[:2])


def test_an_unannotated_sample_does_not_change_the_dice_of_the_others():
    outputs, labels_map, weight = _case(3, labels=CLASSES, share=0.2)
    weight[1] = 0
    alone = dice_cross_entropy(outputs[0][:1], labels_map[:1], weight[:1], batch_dice=False)
    together = dice_cross_entropy(outputs[0], labels_map, weight, batch_dice=False)
    torch.testing.assert_close(alone, together)


@given(scale=st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_weights_scale_cross_entropy_gradients_linearly(scale):
    logits = torch.randn(1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    labels_map = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    weight = torch.ones(1, 2, 2, 2)
    weight[0, 0, 0, 0] = scale
    logits.requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits, labels_map, reduction="none")
    expected = torch.autograd.grad((loss * weight).sum() / weight.sum(), logits)[0]
    from sparseunet.training.loss import _weighted_mean

    found = torch.autograd.grad(
        _weighted_mean(
            torch.nn.functional.cross_entropy(logits, labels_map, reduction="none"), weight
        ),
        logits,
    )[0]
    torch.testing.assert_close(found, expected)
    ratio = found[0, 0, 0, 0, 0] / found[0, 0, 1, 1, 1]
    single = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, labels_map, reduction="sum"), logits
    )[0]
    torch.testing.assert_close(ratio, scale * single[0, 0, 0, 0, 0] / single[0, 0, 1, 1, 1])


def test_dense_labels_give_the_textbook_loss():
    outputs, labels_map, weight = _case(3, labels=CLASSES, share=2.0)
    probability = outputs[0].softmax(1)
    scores = []
    for value in (1, 2):
        target = (labels_map == value).float()
        hit = (probability[:, value] * target).sum((1, 2, 3))
        total = probability[:, value].sum((1, 2, 3)) + target.sum((1, 2, 3))
        scores.append((2 * hit + 1e-5) / (total + 1e-5))
    expected = (
        torch.nn.functional.cross_entropy(outputs[0], labels_map) - torch.stack(scores).mean()
    )
    torch.testing.assert_close(
        dice_cross_entropy(outputs[0], labels_map, weight, batch_dice=False), expected
    )


def test_regions_overlap():
    labels_map = torch.tensor([[[0, 1, 2]]])
    target = region_targets(labels_map, ((1, 2), (2,)))
    assert target[0, :, 0].tolist() == [[0, 1, 1], [0, 0, 1]]
    sure = torch.where(target > 0, 20.0, -20.0)
    loss = dice_binary_cross_entropy(sure, target, torch.ones(1, 1, 3), batch_dice=True)
    torch.testing.assert_close(loss, torch.tensor(-1.0))


@given(
    position=st.tuples(st.integers(0, 7), st.integers(0, 15), st.integers(0, 15)),
    value=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_one_annotated_voxel_is_seen_at_every_level_with_its_own_label(position, value):
    labels_map = torch.zeros(1, 8, 16, 16, dtype=torch.int64)
    weight = torch.zeros(1, 8, 16, 16)
    labels_map[(0, *position)], weight[(0, *position)] = value, 0.5
    for factor in ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8)):
        coarse, coarse_weight = downsample_targets(labels_map, weight, factor=factor, num_values=3)
        where = tuple(place // step for place, step in zip(position, factor, strict=True))
        assert coarse[(0, *where)] == value
        assert coarse_weight[(0, *where)] == 0.5
        assert torch.count_nonzero(coarse_weight) == 1


def test_a_coarse_voxel_takes_the_majority_of_its_annotated_voxels():
    labels_map = torch.tensor([[[[1, 2], [2, 1]], [[2, 0], [0, 0]]]])
    weight = torch.tensor([[[[1.0, 1], [1, 0]], [[1, 0], [0, 0]]]])
    coarse, coarse_weight = downsample_targets(labels_map, weight, factor=(2, 2, 2), num_values=3)
    assert coarse.item() == 2
    assert coarse_weight.item() == 1


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


def test_pseudo_dice_counts_annotated_voxels_only():
    objective = _objective(3, CLASSES)
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[0, 1] = 1  # class a everywhere
    labels_map = torch.tensor([[[[1, 1, 0, 2]]]])
    counts = objective.counts(logits, labels_map, torch.tensor([[[[1.0, 0, 1, 0]]]]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert objective.pseudo_dice(counts) == {"a": pytest.approx(2 / 3), "b": None}
