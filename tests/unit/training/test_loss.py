"""Every loss learns from annotated voxels and from nothing else."""

import math

import pytest
import torch
from loss_formulas import expected_loss

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.training.losses import LOSSES, load_loss
from sparseunet.training.losses.comparison import region_targets, weights_by_output
from sparseunet.training.objective import Objective
from sparseunet.training.recipe import Recipe

CLASSES = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0}, regions={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
)
STRIDES = {3: ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)), 2: ((1, 1), (2, 2), (2, 2), (2, 2))}
SIZE = {3: (8, 16, 16), 2: (16, 16)}
WEIGHTS = {"a": 0.25, "b": 1.4}


def _case(dimensions, *, labels, kind, seed=0):
    """Return outputs of three levels, labels and weights of two samples."""
    generator = torch.Generator().manual_seed(seed)
    size = (2, *SIZE[dimensions])
    weight = torch.zeros(size)
    if kind == "dense":
        weight[:] = 1
    elif kind == "slices":
        weight[:, 3] = 1
    else:
        weight[torch.rand(size, generator=generator) < 0.05] = 1
    labels_map = torch.randint(0, 3, size, generator=generator)
    outputs = []
    current = SIZE[dimensions]
    for stride in STRIDES[dimensions][:3]:
        current = tuple(length // step for length, step in zip(current, stride, strict=True))
        outputs.append(
            torch.randn(2, labels.num_outputs, *current, generator=generator, requires_grad=True)
        )
    return outputs, labels_map, weight


def _objective(dimensions, labels, name="dice_ce", *, batch_dice=True, **others):
    return Objective(
        labels=labels,
        strides=STRIDES[dimensions],
        batch_dice=batch_dice,
        compare=load_loss(name),
        **others,
    )


names = pytest.mark.parametrize("name", LOSSES)
kinds = pytest.mark.parametrize("kind", ["dense", "slices", "scribbles"])
cases = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
spaces = pytest.mark.parametrize("dimensions", [2, 3])
batch_or_sample = pytest.mark.parametrize("batch_dice", [True, False], ids=["batch", "sample"])


@names
@kinds
@cases
@spaces
@batch_or_sample
def test_gradient_is_zero_at_unannotated_voxels(dimensions, labels, name, kind, batch_dice):
    outputs, labels_map, weight = _case(dimensions, labels=labels, kind=kind)
    objective = _objective(dimensions, labels, name, batch_dice=batch_dice)
    objective.loss(outputs, labels_map, weight).backward()
    gradient = outputs[0].grad
    outside = (weight == 0).unsqueeze(1).expand_as(gradient)
    assert torch.isfinite(gradient).all()
    assert torch.count_nonzero(gradient[outside]) == 0
    assert torch.count_nonzero(gradient[~outside]) > 0


@names
@pytest.mark.parametrize("kind", ["slices", "scribbles"])
@cases
@spaces
@batch_or_sample
def test_labels_of_unannotated_voxels_change_nothing_bit_for_bit(
    dimensions, labels, name, kind, batch_dice
):
    outputs, labels_map, weight = _case(dimensions, labels=labels, kind=kind)
    other_map = torch.where(weight > 0, labels_map, (labels_map + 1) % 3)
    objective = _objective(dimensions, labels, name, batch_dice=batch_dice)
    results = []
    for current in (labels_map, other_map):
        loss = objective.loss(outputs, current, weight)
        counts = objective.counts(outputs, current, weight)
        results.append((loss, counts, *torch.autograd.grad(loss, outputs[:2])))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@names
@cases
@spaces
@batch_or_sample
def test_a_batch_without_annotation_gives_zero_and_no_gradient(
    dimensions, labels, name, batch_dice
):
    outputs, labels_map, weight = _case(dimensions, labels=labels, kind="dense")
    objective = _objective(dimensions, labels, name, batch_dice=batch_dice)
    loss = objective.loss(outputs, labels_map, torch.zeros_like(weight))
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(output.grad) == 0 for output in outputs[:2])
    assert not objective.counts(outputs, labels_map, torch.zeros_like(weight)).any()


@names
@cases
@spaces
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_of_two_voxels_alike_each_gets_a_gradient_in_proportion_to_its_weight(
    dimensions, labels, name, share
):
    outputs, labels_map, weight = _case(dimensions, labels=labels, kind="dense")
    one, other = (0, *(2,) * dimensions), (0, *(5,) * dimensions)
    weight *= 0.01  # so that the two are among the hardest for top-k
    alike = torch.tensor([2.0, -2.0, 0.0][: labels.num_outputs])
    with torch.no_grad():
        for place in (one, other):
            outputs[0][(place[0], slice(None), *place[1:])] = alike
            labels_map[place] = 2
    weight[one], weight[other] = 1, share
    loss = _objective(dimensions, labels, name).loss(outputs, labels_map, weight)
    gradient = torch.autograd.grad(loss, outputs[0])[0]
    first, second = (gradient[(at[0], slice(None), *at[1:])] for at in (one, other))
    assert first.abs().min() > 0
    torch.testing.assert_close(second, share * first, rtol=1e-4, atol=0)


@names
@kinds
@spaces
@batch_or_sample
@pytest.mark.parametrize("class_weights", [{}, WEIGHTS], ids=["even", "weighted"])
def test_the_loss_of_classes_is_that_of_the_formula(
    dimensions, name, kind, batch_dice, class_weights
):
    outputs, labels_map, weight = _case(dimensions, labels=CLASSES, kind=kind)
    weight *= 0.25 + 0.75 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(3))
    by_output = weights_by_output(CLASSES, class_weights)
    objective = _objective(
        dimensions, CLASSES, name, batch_dice=batch_dice, class_weights=by_output
    )
    found = objective.loss(outputs[0], labels_map, weight)
    expected = expected_loss(
        name,
        outputs[0].detach(),
        labels_map,
        weight,
        batch_dice=batch_dice,
        class_weights=by_output,
    )
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if "topk" not in name])
@kinds
@spaces
@batch_or_sample
@pytest.mark.parametrize("class_weights", [{}, {"core": 0.5}], ids=["even", "weighted"])
def test_the_loss_of_regions_is_that_of_the_formula(
    dimensions, name, kind, batch_dice, class_weights
):
    outputs, labels_map, weight = _case(dimensions, labels=REGIONS, kind=kind)
    by_output = weights_by_output(REGIONS, class_weights)
    objective = _objective(
        dimensions, REGIONS, name, batch_dice=batch_dice, class_weights=by_output
    )
    found = objective.loss(outputs[0], labels_map, weight)
    expected = expected_loss(
        name,
        outputs[0].detach(),
        labels_map,
        weight,
        regions=((1, 2), (2,)),
        batch_dice=batch_dice,
        class_weights=by_output,
    )
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_hardest_voxels_of_regions_are_hard_in_their_mean_over_regions():
    outputs, labels_map, weight = _case(2, labels=REGIONS, kind="dense")
    loss = _objective(2, REGIONS, "topk").loss(outputs[0], labels_map, weight)
    per_voxel = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs[0], region_targets(labels_map, ((1, 2), (2,))), reduction="none"
    ).mean(1)
    torch.testing.assert_close(loss, per_voxel.flatten().topk(51).values.mean())


def test_the_default_loss_is_bit_for_bit_cross_entropy_minus_dice():
    outputs, labels_map, weight = _case(3, labels=CLASSES, kind="dense")
    probability = outputs[0].softmax(1)
    target = torch.nn.functional.one_hot(labels_map, 3).movedim(-1, 1).float()
    hit = (probability * target)[:, 1:].sum((2, 3, 4))
    total = probability[:, 1:].sum((2, 3, 4)) + target[:, 1:].sum((2, 3, 4))
    dice = ((2 * hit + 1e-5) / (total + 1e-5)).sum() / 4
    cross_entropy = torch.nn.functional.cross_entropy(outputs[0], labels_map, reduction="none")
    expected = cross_entropy.sum() / weight.sum() - dice
    found = _objective(3, CLASSES, batch_dice=False).loss(outputs[0], labels_map, weight)
    assert torch.equal(found, expected)


def test_an_unannotated_sample_does_not_change_the_loss_of_the_others():
    outputs, labels_map, weight = _case(3, labels=CLASSES, kind="scribbles")
    weight[1] = 0
    objective = _objective(3, CLASSES, batch_dice=False)
    alone = objective.loss([output[:1] for output in outputs], labels_map[:1], weight[:1])
    torch.testing.assert_close(alone, objective.loss(outputs, labels_map, weight))


@pytest.mark.parametrize("num_levels", [1, 2])
@names
def test_networks_of_one_or_two_levels_have_a_finite_loss(name, num_levels):
    outputs, labels_map, weight = _case(3, labels=CLASSES, kind="slices")
    objective = _objective(3, CLASSES, name)
    loss = objective.loss(outputs[:num_levels], labels_map, weight)
    assert math.isfinite(loss.item())
    assert torch.equal(loss, objective.loss(outputs[0], labels_map, weight))


def test_regions_overlap_and_labels_of_no_region_are_in_none():
    labels_map = torch.tensor([[[0, 1, 2, 7]]])
    target = region_targets(labels_map, ((1, 2), (2,)))
    assert target[0, :, 0].tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]


def test_pseudo_dice_counts_annotated_voxels_only():
    objective = _objective(3, CLASSES)
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[0, 1] = 1  # class a everywhere
    labels_map = torch.tensor([[[[1, 1, 0, 2]]]])
    counts = objective.counts(logits, labels_map, torch.tensor([[[[1.0, 0, 1, 0]]]]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert objective.pseudo_dice(counts) == {"a": pytest.approx(2 / 3), "b": None}


def test_a_loss_of_ones_own_is_named_by_its_path():
    assert load_loss("sparseunet.training.losses.named:focal") is load_loss("focal")
    with pytest.raises(RequestError, match=r"no loss 'dise'; choose from dice_ce, ce, .*dice_topk"):
        load_loss("dise")


def test_class_weights_name_classes_of_the_dataset():
    assert weights_by_output(CLASSES, {}) is None
    assert weights_by_output(CLASSES, {"background": 0.04, "b": 1.4}) == (0.04, 1.0, 1.4)
    with pytest.raises(RequestError, match=r"given for liver; .* are background, a, b"):
        weights_by_output(CLASSES, {"liver": 1.0})
    with pytest.raises(RequestError, match=r"given for background; .* are whole, core"):
        weights_by_output(REGIONS, {"background": 1.0})


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_class_weight_is_a_number_from_zero_on(weight):
    with pytest.raises(RequestError, match="weight of class a must be 0 or more"):
        Recipe(class_weights={"a": weight})


def test_class_weights_without_a_cross_entropy_are_refused():
    with pytest.raises(RequestError, match="the loss dice has none"):
        Recipe(loss="dice", class_weights={"a": 2.0})


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "dice_topk"])
@cases
@spaces
def test_dense_labels_and_enough_of_sparse_ones_are_learnt_from_as_before(dimensions, labels, name):
    outputs, labels_map, weight = _case(dimensions, labels=labels, kind="dense")
    weight[:, : SIZE[dimensions][0] // 2] = 0
    plain, light = (
        _objective(dimensions, labels, name, enough_annotated=share) for share in (0.0, 0.25)
    )
    for current in (torch.ones_like(weight), weight):
        both = [one.loss(outputs, labels_map, current) for one in (plain, light)]
        assert torch.equal(*both)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "dice_topk"])
@cases
def test_beside_the_dice_few_annotated_voxels_weigh_in_proportion(labels, name):
    outputs, labels_map, weight = _case(3, labels=labels, kind="slices")
    mean = name.removeprefix("dice_")

    def loss(which, **others):
        finest = _objective(3, labels, which, **others)
        return finest.loss(outputs[0], labels_map, weight).item()

    # One slice of eight is annotated, an eighth of the voxels: half of what is enough.
    expected = loss("dice") + 0.5 * loss(mean)
    assert loss(name, enough_annotated=0.25) == pytest.approx(expected, rel=1e-6)
    assert loss(mean, enough_annotated=0.25) == loss(mean), "alone, it has nothing to outweigh"
