"""nnU-Net 2.8.1 built the networks compared with here (`in_nnunet/freeze_networks.py`)."""

import pytest
import torch
from frozen_models import TITLES, frozen, write_model_folder

from sparseunet.networks.trained_model import load_network
from sparseunet.networks.weights import weights_to_nnunet
from sparseunet.runs.exchange.nnunet_model import load_nnunet_model


@pytest.fixture(params=TITLES)
def both(request, tmp_path):
    """The frozen file, and our network with its weights."""
    folder = write_model_folder(tmp_path, request.param)
    model = load_nnunet_model(folder, [0])
    return frozen(request.param), load_network(model, model.checkpoints[0])


def test_our_network_answers_as_nnunets(both):
    golden, network = both
    with torch.inference_mode():
        logits = network(golden["input"])
    assert torch.allclose(logits, golden["logits"], atol=1e-5, rtol=0)


def test_our_weights_have_all_names_that_nnunet_gives_them(both):
    golden, network = both
    names = weights_to_nnunet(network.state_dict())
    assert names.keys() == golden["network_weights"].keys()
    assert all(torch.equal(names[name], golden["network_weights"][name]) for name in names)


def test_every_kind_of_network_and_block_is_frozen():
    names = {name for title in TITLES for name in frozen(title)["network_weights"]}
    for part in ("stem", "conv1", "conv2", "skip.0.conv", "skip.1.conv", "transpconvs", "convs.1"):
        assert any(part in name for name in names), part
    assert len({frozen(title)["input"].dim() for title in TITLES}) == 2
    assert frozen("regions_2d")["logits"].shape[1] == 2
    assert frozen("second_stage_3d")["input"].shape[1] == 3


@pytest.mark.parametrize("title", TITLES)
def test_nnunets_own_code_gives_these_logits_still(title):
    architectures = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    golden = frozen(title)
    said = golden["init_args"]
    content = said["plans"]["configurations"][said["configuration"]]
    if "architecture" not in content:
        pytest.skip("the old form of plans needs nnU-Net itself to be read")
    name = content["architecture"]["network_class_name"].rpartition(".")[2]
    arguments = dict(content["architecture"]["arch_kwargs"])
    dimensions = golden["input"].dim() - 2
    arguments |= {
        "conv_op": getattr(torch.nn, f"Conv{dimensions}d"),
        "norm_op": getattr(torch.nn, f"InstanceNorm{dimensions}d"),
        "nonlin": torch.nn.LeakyReLU,
    }
    network = getattr(architectures, name)(
        input_channels=golden["input"].shape[1],
        num_classes=golden["logits"].shape[1],
        deep_supervision=False,
        **arguments,
    ).eval()
    network.load_state_dict(golden["network_weights"])
    with torch.inference_mode():
        assert torch.allclose(network(golden["input"]), golden["logits"], atol=1e-5)
