"""A batch that is shared among processes has the loss of the whole batch."""

import pytest
import torch

from sparseunet.data.labels import LabelSchema
from sparseunet.training.losses import LOSSES, load_loss
from sparseunet.training.objective import Objective

CLASSES = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0}, regions={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
)
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
SIZE = (4, 8, 8)
EVERYTHING_TOGETHER = [name for name in LOSSES if "topk" not in name]
"""Top-k chooses the hardest among the voxels of a process."""


class _Processes:
    """Sums over processes that take turns: first each says its sums, then each hears all."""

    def __init__(self, number):
        self.said = [[] for _ in range(number)]
        self.heard = 0

    def say(self, process):
        def total(sums):
            self.said[process].append(sums.detach().clone())
            return sums

        return total

    def hear(self, process):
        position = iter(range(len(self.said[process])))

        def total(sums):
            place = next(position)
            self.heard += 1
            others = [said[place] for at, said in enumerate(self.said) if at != process]
            return sums + sum(others)

        return total


def _batch(labels, *, empty_half):
    generator = torch.Generator().manual_seed(0)
    labels_map = torch.randint(0, 3, (4, *SIZE), generator=generator)
    weight = (torch.rand(4, *SIZE, generator=generator) < 0.2).float()
    weight[0] *= 0.1  # halves that weigh differently
    if empty_half:
        weight[2:] = 0
    outputs = [
        torch.randn(
            4, labels.num_outputs, *(length // factor for length in SIZE), generator=generator
        ).requires_grad_()
        for factor in (1, 2, 4)
    ]
    known = torch.ones(4, labels.num_outputs, dtype=torch.bool)
    known[1, -1] = False
    return outputs, labels_map, weight, known


def _half(batch, half):
    outputs, *others = batch
    part = slice(2 * half, 2 * half + 2)
    return [output[part] for output in outputs], *(other[part] for other in others)


@pytest.mark.parametrize("name", EVERYTHING_TOGETHER)
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("batch_dice", [True, False], ids=["batch", "sample"])
@pytest.mark.parametrize("empty_half", [True, False], ids=["one half empty", "both annotated"])
def test_halves_have_value_gradient_and_counts_of_the_whole(name, labels, batch_dice, empty_half):
    batch = _batch(labels, empty_half=empty_half)
    outputs = batch[0]

    def objective(**total):
        return Objective(
            labels=labels,
            strides=STRIDES,
            batch_dice=batch_dice,
            compare=load_loss(name),
            enough_annotated=0.9,
            **total,
        )

    whole = objective().loss(*batch)
    expected = torch.autograd.grad(whole, outputs[:2])

    processes = _Processes(2)
    for half in range(2):
        objective(total=processes.say(half)).loss(*_half(batch, half))
    assert len(processes.said[0]) == len(processes.said[1])
    found = [torch.zeros_like(gradient) for gradient in expected]
    for half in range(2):
        loss = objective(total=processes.hear(half)).loss(*_half(batch, half))
        torch.testing.assert_close(loss, whole)
        parts = torch.autograd.grad(loss, outputs[:2])
        found = [one + part for one, part in zip(found, parts, strict=True)]
    assert processes.heard > 0
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_counts_of_halves_are_those_of_the_whole(labels):
    batch = _batch(labels, empty_half=False)
    whole = Objective(labels=labels, strides=STRIDES, batch_dice=True).counts(*batch)
    processes = _Processes(2)
    for total in (processes.say, processes.hear):
        halves = [
            Objective(labels=labels, strides=STRIDES, batch_dice=True, total=total(half)).counts(
                *_half(batch, half)
            )
            for half in range(2)
        ]
    assert whole.any()
    assert all(torch.equal(half, whole) for half in halves)


@pytest.mark.parametrize("name", ["topk", "dice_topk"])
def test_top_k_is_the_mean_over_what_each_process_chose(name):
    batch = _batch(CLASSES, empty_half=False)
    processes = _Processes(2)
    losses = []
    for total in (processes.say, processes.hear):
        losses = [
            Objective(
                labels=CLASSES,
                strides=STRIDES,
                batch_dice=True,
                compare=load_loss(name),
                total=total(half),
            ).loss(*_half(batch, half))
            for half in range(2)
        ]
    torch.testing.assert_close(losses[0], losses[1])
