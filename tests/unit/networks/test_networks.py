"""Networks are those of nnU-Net's plans."""

import subprocess
import sys

import pytest
import torch

from sparseunet.errors import RequestError
from sparseunet.networks.blocks import ConvNorm
from sparseunet.networks.build import build_network
from sparseunet.networks.device import autocast, resolve_device, resolve_precision
from sparseunet.planning.overrides import with_base_features, with_patch_size
from sparseunet.planning.plan import Configuration, NetworkPlan


def _plan(*, architecture="plain_unet", features=(4, 8, 16, 32), dimensions=3):
    return NetworkPlan(
        architecture=architecture,
        features_per_stage=features,
        kernel_sizes=((1,) + (3,) * (dimensions - 1),) + ((3,) * dimensions,) * (len(features) - 1),
        strides=((1,) * dimensions,) + ((2,) * dimensions,) * (len(features) - 1),
        encoder_depths=(2,) * len(features),
        decoder_depths=(2,) * (len(features) - 1),
    )


def _configuration(*, features=(4, 8, 16, 32)):
    return Configuration(
        name="3d_fullres",
        data_identifier="x",
        batch_size=2,
        patch_size=(16, 16, 16),
        median_shape=(16.0, 16.0, 16.0),
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=_plan(features=features),
        batch_dice=False,
    )


def _network(plan, *, deep_supervision=True):
    return build_network(
        plan, num_input_channels=2, num_outputs=3, deep_supervision=deep_supervision
    )


@pytest.mark.parametrize("architecture", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_deep_supervision_gives_every_decoder_resolution_from_high_to_low(architecture, dimensions):
    network = _network(_plan(architecture=architecture, dimensions=dimensions))
    image = torch.randn(2, 2, *(16,) * dimensions)
    shapes = [tuple(output.shape) for output in network.train()(image)]
    assert shapes == [(2, 3, *(16 // 2**level,) * dimensions) for level in range(3)]
    assert network.eval()(image).shape == (2, 3, *(16,) * dimensions)


def test_a_network_without_numbers_is_built_without_importing_a_compiler():
    script = (
        "import sys, torch\n"
        "from sparseunet.networks.build import build_network\n"
        "from sparseunet.planning.plan import NetworkPlan\n"
        f"plan = {_plan(features=(4, 8))!r}\n"
        "with torch.device('meta'):\n"
        "    build_network(plan, num_input_channels=1, num_outputs=2, deep_supervision=False)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)


def test_training_and_evaluation_agree_at_full_resolution():
    network = _network(_plan())
    image = torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.train()(image)[0], network.eval()(image))


def test_the_hippocampus_network_has_as_many_weights_as_nnunets():
    plan = NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(32, 64, 128, 256),
        kernel_sizes=((3, 3, 3),) * 4,
        strides=((1, 1, 1), *((2, 2, 2),) * 3),
        encoder_depths=(2,) * 4,
        decoder_depths=(2,) * 3,
    )
    network = build_network(plan, num_input_channels=1, num_outputs=3, deep_supervision=True)
    assert sum(weight.numel() for weight in network.parameters()) == 5_603_177


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (4, 6, 8)])
def test_a_block_gives_what_its_layers_give_one_after_another_bit_for_bit(size, activation, dtype):
    torch.manual_seed(0)
    block = ConvNorm(len(size), 3, 4, (3,) * len(size), stride=1, activation=activation)
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    image, weights = torch.randn(2, 3, *size), torch.randn(2, 4, *size)
    found = []
    for forward in (block, lambda image: block.activation(block.norm(block.conv(image)))):
        block.zero_grad()
        features = image.clone().requires_grad_()
        with autocast(torch.device("cpu"), dtype):
            output = forward(features)
        (output * weights).sum().backward()
        gradients = [each.grad for each in block.parameters()]
        found.append([output.detach().clone(), features.grad, *map(torch.clone, gradients)])
    assert all(map(torch.equal, *found))


def test_the_same_seed_gives_the_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(_network(_plan()).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_unknown_architecture_is_named_with_those_there_are():
    with pytest.raises(RequestError, match=r"'transformer'.*plain_unet"):
        _network(_plan(architecture="transformer"))


def test_base_features_double_per_stage_up_to_the_cap():
    configuration = _configuration(features=(32,) * 5)
    changed = with_base_features(configuration, 24).network.features_per_stage
    assert changed == (24, 48, 96, 192, 320)
    with pytest.raises(RequestError, match="found 0"):
        with_base_features(configuration, 0)


def test_a_patch_must_be_one_that_the_network_can_halve():
    configuration = _configuration()
    assert with_patch_size(configuration, (8, 24, 16)).patch_size == (8, 24, 16)
    for wrong in ((8, 20, 16), (8, 16), (0, 16, 16)):
        with pytest.raises(RequestError, match=r"multiples of \(8, 8, 8\)"):
            with_patch_size(configuration, wrong)


def test_bfloat16_changes_the_output_little_and_does_not_round_it():
    device = resolve_device("cpu")
    network = _network(_plan(), deep_supervision=False).eval()
    image = torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        exact = network(image)
        with autocast(device, resolve_precision("bfloat16", device, learning=False)):
            rounded = network(image)
    assert rounded.dtype is torch.float32
    assert not torch.equal(rounded, rounded.bfloat16().float())
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
    assert resolve_precision("float32", device, learning=False) is None


def test_devices_and_precisions_that_are_not_there_are_refused():
    with pytest.raises(RequestError, match="'tpu'"):
        resolve_device("tpu")
    with pytest.raises(RequestError, match="'int8'"):
        resolve_precision("int8", torch.device("cpu"), learning=True)
