"""Optimisers and schedules are chosen by name, and do what their formulas say."""

import math
from itertools import pairwise

import pytest
import torch

from sparseunet.errors import RequestError
from sparseunet.training.optimisation import (
    OPTIMIZERS,
    SCHEDULES,
    learning_rate_at,
    new_optimizer,
)
from sparseunet.training.recipe import Recipe

ITERATIONS = 100


def _config(**changes):
    return Recipe(**({"iterations": ITERATIONS, "learning_rate": 0.1} | changes))


def _rates(**changes):
    recipe = _config(**changes)
    return [learning_rate_at(step, recipe) for step in range(recipe.iterations)]


OF_A_USER = """
import torch


def half_of_it(step, num_steps, recipe):
    return 0.5


def resilient(parameters, recipe, *, fused):
    return torch.optim.Rprop(parameters, lr=recipe.learning_rate)
"""


def test_by_default_the_rate_falls_as_in_nnunet_but_at_every_step():
    recipe = Recipe(iterations=ITERATIONS)
    expected = [0.01 * (1 - step / ITERATIONS) ** 0.9 for step in range(ITERATIONS)]
    assert [learning_rate_at(step, recipe) for step in range(ITERATIONS)] == expected


def test_the_schedules_follow_their_formulas():
    assert _rates(schedule="constant") == [0.1] * ITERATIONS
    assert _rates(schedule="poly", poly_exponent=2.0)[50] == pytest.approx(0.1 * 0.5**2)
    cosine = _rates(schedule="cosine")
    assert cosine[0] == 0.1
    assert cosine[50] == pytest.approx(0.05)
    assert cosine[25] == pytest.approx(0.05 * (1 + math.sqrt(0.5)))
    step = _rates(schedule="step", decay_factor=0.5, decay_every=40)
    assert sorted(set(step), reverse=True) == [0.1, 0.05, 0.025]
    assert [step.count(rate) for rate in (0.1, 0.05, 0.025)] == [40, 40, 20]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 10])
def test_a_rate_climbs_during_the_warm_up_and_never_after(schedule, warmup):
    rates = _rates(schedule=schedule, warmup=warmup, decay_every=30)
    assert all(before < after for before, after in pairwise(rates[:warmup]))
    assert rates[warmup] == 0.1
    assert all(before >= after for before, after in pairwise(rates[warmup:]))
    assert min(rates) > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_finds_the_minimum_of_a_bowl(optimizer):
    bowl = torch.nn.Linear(3, 1, bias=False)
    recipe = _config(optimizer=optimizer, momentum=0.5, weight_decay=0.0)
    steps = new_optimizer(bowl, recipe)
    for _ in range(200):
        steps.zero_grad()
        (bowl.weight - 2).square().sum().backward()
        steps.step()
    assert torch.allclose(bowl.weight, torch.full((1, 3), 2.0), atol=1e-2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fused_kernels_take_the_same_steps(optimizer):
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.Linear(16, 16)
        steps = new_optimizer(layer, _config(optimizer=optimizer))
        assert steps.defaults["fused"] is True
        for group in steps.param_groups:
            group["fused"] = fused
        for _ in range(5):
            steps.zero_grad()
            layer(torch.ones(16)).square().sum().backward()
            steps.step()
        results.append(layer.weight.detach())
    assert torch.allclose(*results, rtol=1e-5, atol=1e-6)


def test_weight_decay_acts_on_gradients_in_adam_and_on_weights_in_adamw():
    moved = {}
    for optimizer in ("adam", "adamw"):
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, 100.0)
        steps = new_optimizer(layer, _config(optimizer=optimizer, weight_decay=0.1))
        layer.weight.grad = torch.zeros_like(layer.weight)
        steps.step()
        moved[optimizer] = 100 - float(layer.weight.detach())
    assert moved["adam"] == pytest.approx(0.1, rel=1e-3)  # one rate, whatever the gradient's size
    assert moved["adamw"] == pytest.approx(0.1 * 0.1 * 100, rel=1e-3)


def test_functions_of_a_user_are_found_by_their_path(tmp_path, monkeypatch):
    (tmp_path / "recipe_of_a_user.py").write_text(OF_A_USER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = _config(schedule="recipe_of_a_user:half_of_it", optimizer="recipe_of_a_user:resilient")
    assert learning_rate_at(3, recipe) == 0.05
    assert isinstance(new_optimizer(torch.nn.Linear(1, 1), recipe), torch.optim.Rprop)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adagrad"}, r"no optimiser 'adagrad'; choose from sgd, adam, adamw"),
        ({"schedule": "linear"}, r"no schedule 'linear'; choose from poly, cosine, step"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), found 1.0"),
        ({"weight_decay": -1.0}, r"0 or more, found -1.0"),
        ({"decay_factor": 0.0}, r"in \(0, 1\], found 0.0"),
        ({"decay_every": 0}, r"decay_every must be at least 1, found 0"),
        ({"warmup": ITERATIONS}, r"shorter than the training of 100 iterations, found 100"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        _config(**changes)


def test_a_path_that_leads_nowhere_is_refused_before_the_first_step():
    with pytest.raises(RequestError, match="no_such_module"):
        new_optimizer(torch.nn.Linear(1, 1), _config(schedule="no_such_module:schedule"))
