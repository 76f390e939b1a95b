"""Networks by functions of a user's: what they are called with, and what they may give."""

import sys
from types import ModuleType

import pytest
import torch
from tiny_training import make_configuration
from torch import nn

from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.overrides import (
    with_architecture,
    with_base_features,
    with_patch_size,
    with_planned_patch,
)


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("a_users_module")
    monkeypatch.setitem(sys.modules, "a_users_module", made)
    return made


def build(module, function, *, dimensions=3):
    function.__module__, function.__qualname__ = "a_users_module", "build"
    module.build = function
    configuration = with_architecture(make_configuration(dimensions), function)
    return build_network(
        configuration.network, num_input_channels=1, num_outputs=2, deep_supervision=True
    )


def giving(change):
    """Return a function whose network gives what `change` makes of the right logits."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv3d(1, 2, 1)

        def forward(self, image):
            return change(self.convolution(image))

    def make(*, num_input_channels, num_outputs):
        assert (num_input_channels, num_outputs) == (1, 2)
        return Network()

    return make


def test_it_is_called_with_what_the_plan_has(module):
    seen = {}

    def make(**given):
        seen.update(given)
        return nn.Conv3d(1, 2, 1)

    build(module, make)
    network = make_configuration().network
    assert seen["dimensions"] == 3
    assert seen["patch_size"] == [8, 16, 16]
    assert seen["features_per_stage"] == network.features_per_stage
    assert seen["strides"] == network.strides
    assert seen["deep_supervision"] is True


def test_it_follows_the_width_and_the_patch(module):
    module.build = nn.Conv3d
    configuration = with_architecture(make_configuration(), "a_users_module:build")
    assert with_base_features(configuration, 8).network.features_per_stage == (8, 16, 32)
    for change in (with_patch_size, with_planned_patch):
        changed = change(configuration, (16, 32, 32))
        assert changed.network.arguments["patch_size"] == [16, 32, 32]


def test_a_plan_that_names_it_is_read_without_importing_it(module):
    from dataclasses import replace

    from tiny_training import make_plan

    plan = make_plan()
    configuration = with_architecture(plan.configurations["3d"], "not_there:build")
    configuration = replace(configuration, name="3d", normalization=("not_there:normalise",))
    plan = replace(plan, configurations={"3d": configuration})
    assert plan_from_nnunet(plan_to_nnunet(plan)) == plan


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *, num_outputs: num_outputs, "does not take num_input_channels"),
        (lambda depth, **more: (depth, more), "needs depth"),
        (lambda **more: len(more), "gave a int"),
    ],
)
def test_functions_that_cannot_be_used_are_refused(module, function, message):
    with pytest.raises(RequestError, match=message):
        build(module, function)


def test_buffers_that_no_checkpoint_holds_are_refused(module):
    def make(**more):
        network = nn.Conv3d(1, 2, 1)
        network.register_buffer("index", torch.arange(3))
        return network

    with pytest.raises(RequestError, match=r"index .*persistent=False"):
        build(module, make)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:, :1], r"expected logits of the shape \(1, 2, 8, 16, 16\)"),
        (lambda logits: logits[..., 1:], "expected logits"),
        (lambda logits: [logits, logits], r"Output 1 .*\(1, 2, 4, 8, 8\)"),
        (lambda logits: [logits] * 4, "4 outputs"),
        (lambda logits: {"out": logits}, "is dict"),
        (lambda logits: [logits][:0], "0 outputs"),
    ],
)
def test_outputs_that_nothing_can_be_done_with_are_refused(module, change, message):
    network = build(module, giving(change))
    with pytest.raises(RequestError, match=message):
        network(torch.zeros(1, 1, 8, 16, 16))


def test_of_a_list_only_the_first_counts_when_nothing_is_learned(module):
    network = build(module, giving(lambda logits: [logits, logits[..., ::2, ::2, ::2]]))
    image = torch.zeros(1, 1, 8, 16, 16)
    assert [tuple(each.shape[2:]) for each in network(image)] == [(8, 16, 16), (4, 8, 8)]
    assert tuple(network.eval()(image).shape) == (1, 2, 8, 16, 16)
