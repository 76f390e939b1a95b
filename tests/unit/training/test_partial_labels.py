"""Where nobody looked for a class, its absence teaches nothing."""

from dataclasses import replace

import pytest
import torch
from loss_formulas import expected_loss

from sparseunet.data.labels import LabelSchema
from sparseunet.networks.build import build_network
from sparseunet.planning.plan import NetworkPlan
from sparseunet.training.loader import Batch
from sparseunet.training.losses import LOSSES, load_loss
from sparseunet.training.losses.comparison import merge_unannotated
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.recipe import Recipe
from sparseunet.training.state import TrainingState
from sparseunet.training.step import Hardware, train_step

CLASSES = LabelSchema(classes={"background": 0, "liver": 1, "tumour": 2, "spleen": 3}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0},
    regions={"whole": (1, 2), "core": (2,), "other": (3,)},
    regions_class_order=(1, 2, 3),
)
STRIDES = {3: ((1, 1, 1), (2, 2, 2), (2, 2, 2)), 2: ((1, 1), (2, 2), (2, 2))}
SIZE = {3: (4, 8, 8), 2: (8, 8)}
LIVER_ONLY = [[True, True, False, False], [True, True, True, True]]
WHOLE_ONLY = [[True, False, False], [True, True, True]]

names = pytest.mark.parametrize("name", LOSSES)
spaces = pytest.mark.parametrize("dimensions", [2, 3])
batch_or_sample = pytest.mark.parametrize("batch_dice", [True, False], ids=["batch", "sample"])
schemas = pytest.mark.parametrize(
    ("labels", "annotated"),
    [(CLASSES, LIVER_ONLY), (REGIONS, WHOLE_ONLY)],
    ids=["classes", "regions"],
)


def _case(dimensions, labels, *, seed=0, dtype=torch.float32):
    """Return outputs of three levels, labels of which the first sample has two, and weights."""
    generator = torch.Generator().manual_seed(seed)
    size = (2, *SIZE[dimensions])
    labels_map = torch.randint(0, 4, size, generator=generator)
    labels_map[0] = labels_map[0] % 2
    weight = (torch.rand(size, generator=generator) < 0.5).float()
    outputs = [
        torch.randn(
            2,
            labels.num_outputs,
            *(length // factor for length in SIZE[dimensions]),
            generator=generator,
            dtype=dtype,
        ).requires_grad_()
        for factor in (1, 2, 4)
    ]
    return outputs, labels_map, weight


def _objective(dimensions, labels, name="dice_ce", *, batch_dice=True):
    return Objective(
        labels=labels, strides=STRIDES[dimensions], batch_dice=batch_dice, compare=load_loss(name)
    )


@names
@schemas
@spaces
@batch_or_sample
def test_all_classes_annotated_is_bit_for_bit_the_loss_without_this_knowledge(
    dimensions, labels, annotated, name, batch_dice
):
    outputs, labels_map, weight = _case(dimensions, labels)
    objective = _objective(dimensions, labels, name, batch_dice=batch_dice)
    everything = torch.ones_like(torch.tensor(annotated))
    results = []
    for known in (None, everything):
        loss = objective.loss(outputs, labels_map, weight, known)
        counts = objective.counts(outputs, labels_map, weight, known)
        results.append((loss, counts, *torch.autograd.grad(loss, outputs[:2])))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@names
@spaces
@batch_or_sample
@pytest.mark.parametrize("annotated", [LIVER_ONLY, LIVER_ONLY[:1] * 2], ids=["one case", "all"])
def test_the_loss_of_classes_is_that_of_the_formula(dimensions, annotated, name, batch_dice):
    outputs, labels_map, weight = _case(dimensions, CLASSES)
    labels_map %= 2
    objective = _objective(dimensions, CLASSES, name, batch_dice=batch_dice)
    found = objective.loss(outputs[0], labels_map, weight, torch.tensor(annotated))
    expected = expected_loss(
        name,
        outputs[0].detach(),
        labels_map,
        weight,
        batch_dice=batch_dice,
        annotated=torch.tensor(annotated).numpy(),
    )
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if "topk" not in name])
@spaces
@batch_or_sample
def test_the_loss_of_regions_is_that_of_the_formula(dimensions, name, batch_dice):
    outputs, labels_map, weight = _case(dimensions, REGIONS)
    objective = _objective(dimensions, REGIONS, name, batch_dice=batch_dice)
    found = objective.loss(outputs[0], labels_map, weight, torch.tensor(WHOLE_ONLY))
    expected = expected_loss(
        name,
        outputs[0].detach(),
        labels_map,
        weight,
        regions=((1, 2), (2,), (3,)),
        batch_dice=batch_dice,
        annotated=torch.tensor(WHOLE_ONLY).numpy(),
    )
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@spaces
def test_background_pushes_an_unannotated_class_as_if_it_were_background(dimensions):
    outputs, labels_map, weight = _case(dimensions, CLASSES)
    known = torch.tensor(LIVER_ONLY[:1])
    logits = outputs[0][:1].detach().requires_grad_()
    loss = _objective(dimensions, CLASSES, "ce").loss(logits, labels_map[:1], weight[:1], known)
    (gradient,) = torch.autograd.grad(loss, logits)

    probability = logits.detach().softmax(1)
    merged = probability[:, 0] + probability[:, 2] + probability[:, 3]
    share = weight[:1] / weight[:1].sum()
    is_background = labels_map[:1] == 0
    for channel in (0, 2, 3):
        p = probability[:, channel]
        expected = share * torch.where(is_background, p - p / merged, p)
        torch.testing.assert_close(gradient[:, channel], expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["ce", "focal", "topk"])
@spaces
def test_a_network_sure_of_a_class_nobody_looked_for_is_left_alone(dimensions, name):
    labels_map = torch.zeros(1, *SIZE[dimensions], dtype=torch.int64)
    logits = torch.zeros(1, 4, *SIZE[dimensions])
    logits[:, 2] = 30  # tumour everywhere, where the file says background
    logits.requires_grad_()
    objective = _objective(dimensions, CLASSES, name)
    weight = torch.ones(labels_map.shape)
    pushes = []
    for known in (torch.tensor(LIVER_ONLY[:1]), None):
        loss = objective.loss(logits, labels_map, weight, known)
        pushes.append(torch.autograd.grad(loss, logits)[0].abs().sum().item())
    assert pushes[0] < 1e-6
    assert pushes[1] > 0.1


@schemas
@spaces
@names
def test_unannotated_voxels_of_partly_annotated_cases_have_no_gradient(
    dimensions, labels, annotated, name
):
    outputs, labels_map, weight = _case(dimensions, labels)
    objective = _objective(dimensions, labels, name)
    loss = objective.loss(outputs, labels_map, weight, torch.tensor(annotated))
    gradient = torch.autograd.grad(loss, outputs[0])[0]
    outside = (weight == 0).unsqueeze(1).expand_as(gradient)
    assert torch.isfinite(gradient).all()
    assert torch.count_nonzero(gradient[outside]) == 0
    assert torch.count_nonzero(gradient[~outside]) > 0


@names
@spaces
def test_a_region_nobody_looked_for_has_no_gradient_in_that_case(dimensions, name):
    outputs, labels_map, weight = _case(dimensions, REGIONS)
    objective = _objective(dimensions, REGIONS, name)
    loss = objective.loss(outputs, labels_map, weight, torch.tensor(WHOLE_ONLY))
    gradient = torch.autograd.grad(loss, outputs[0])[0]
    assert torch.count_nonzero(gradient[0, 1:]) == 0
    assert torch.count_nonzero(gradient[0, 0]) > 0
    assert all(torch.count_nonzero(gradient[1, channel]) > 0 for channel in range(3))


@names
@batch_or_sample
def test_where_no_region_was_looked_for_the_loss_is_zero(name, batch_dice):
    outputs, labels_map, weight = _case(3, REGIONS)
    objective = _objective(3, REGIONS, name, batch_dice=batch_dice)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss = objective.loss(outputs, labels_map, weight, nothing)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.count_nonzero(outputs[0].grad) == 0


def test_merged_classes_are_background_and_other_cases_stay_as_they_are():
    outputs, labels_map, _ = _case(3, CLASSES)
    labels_map[0, 0, 0, 0] = 3  # drawn, although nobody looked for it everywhere
    known = torch.tensor(LIVER_ONLY)
    logits, merged_map = merge_unannotated(outputs[0], labels_map, known)
    assert torch.equal(logits[1], outputs[0][1])
    assert torch.equal(merged_map[1], labels_map[1])
    assert merged_map[0, 0, 0, 0] == 0
    before, after = outputs[0][0].softmax(0), logits[0].softmax(0)
    torch.testing.assert_close(after[0], before[0] + before[2] + before[3])
    torch.testing.assert_close(after[1], before[1])
    assert not after[2:].any()
    assert known.tolist() == LIVER_ONLY


def test_pseudo_dice_counts_a_case_for_the_classes_looked_for_in_it():
    objective = _objective(3, replace(CLASSES, classes={"background": 0, "b": 2, "a": 1}))
    logits = torch.zeros(2, 3, 1, 1, 2)
    logits[:, 2] = 1  # class b everywhere
    labels_map = torch.tensor([[[[0, 0]]], [[[2, 0]]]])
    known = torch.tensor([[True, True, False], [True, True, True]])
    counts = objective.counts(logits, labels_map, torch.ones(2, 1, 1, 2), known)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0]]  # b, then a
    without = objective.counts(logits, labels_map, torch.ones(2, 1, 1, 2))
    assert without.tolist() == [[1, 3, 0], [0, 0, 0]]


def test_a_training_step_uses_what_the_batch_knows():
    plan = NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(4, 8),
        kernel_sizes=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        encoder_depths=(1, 1),
        decoder_depths=(1,),
    )
    recipe, losses = Recipe(), []
    batch = Batch(
        image_BCZYX=torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        labels_BZYX=torch.zeros(2, 4, 8, 8, dtype=torch.int64),
        weight_BZYX=torch.ones(2, 4, 8, 8),
        annotated_BK=torch.tensor(LIVER_ONLY[:1] * 2),
    )
    for one in (batch, replace(batch, annotated_BK=None)):
        torch.manual_seed(0)
        network = build_network(plan, num_input_channels=1, num_outputs=4, deep_supervision=True)
        state = TrainingState(
            network=network,
            optimizer=new_optimizer(network, recipe),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
        )
        hardware = Hardware(device=torch.device("cpu"), dtype=None, num_workers=0)
        objective = Objective(labels=CLASSES, strides=plan.strides, batch_dice=True)
        loss, counts = train_step(state, one, objective=objective, recipe=recipe, hardware=hardware)
        losses.append(loss)
        assert counts[1:, 1].any() == (one.annotated_BK is None)  # false tumour and spleen
    assert losses[0] < losses[1]
