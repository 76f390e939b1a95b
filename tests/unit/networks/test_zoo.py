"""Every network of the papers can be chosen by name, trained, and loaded again."""

import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from optional_packages import skip_without_packages_of
from tiny_training import make_recipe, write_tiny_record

from sparseunet.artifacts import read_json, write_json
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.networks.blocks import ConvNorm
from sparseunet.networks.build import ARCHITECTURES, build_network
from sparseunet.networks.trained_model import load_network
from sparseunet.planning.architectures import KNOWN, PACKAGES, require_extra
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.overrides import (
    require_trainable,
    smaller_patches,
    with_architecture,
    with_base_features,
    with_batch_size,
    with_patch_size,
    with_planned_patch,
)
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.runs.load import load_trained_model
from sparseunet.training.objective import Objective
from sparseunet.workspace import CHECKPOINT_FINAL

SMALL = {"segresnet": 8, "unetr": 2, "attention_unet": 4, "densevoxnet": 4, "inception_unet": 4}
LARGE = ("manet", "resnext101")
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "tumour": 2}, regions={})
CASES = [
    pytest.param(
        name,
        dimensions,
        marks=[pytest.mark.slow] if any(part in name for part in LARGE) else [],
        id=f"{name}-{dimensions}d",
    )
    for name, architecture in KNOWN.items()
    for dimensions in architecture.dimensions
]


def _planned(dimensions=3, patch_size=(16, 40, 56)):
    stages = 3
    return Configuration(
        name="2d" if dimensions == 2 else "3d_fullres",
        data_identifier="x",
        batch_size=2,
        patch_size=patch_size[-dimensions:],
        median_shape=(16.0, 40.0, 56.0)[-dimensions:],
        spacing_mm=(3.0, 1.0, 1.0)[-dimensions:],
        normalization=("zscore", "zscore"),
        use_mask_for_norm=(False, False),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=(32, 64, 128),
            kernel_sizes=((1, 3, 3)[-dimensions:], *((3,) * dimensions,) * 2),
            strides=((1,) * dimensions, (1, 2, 2)[-dimensions:], (2,) * dimensions),
            encoder_depths=(2,) * stages,
            decoder_depths=(2,) * (stages - 1),
        ),
        batch_dice=False,
    )


def _small(name, dimensions):
    """The network, narrow where it can be, on the smallest patch that every network takes."""
    configuration = with_architecture(_planned(dimensions), name)
    if KNOWN[name].features is not None:
        configuration = with_base_features(configuration, SMALL.get(name, 4))
    edge = 64 if KNOWN[name].features is None else 32
    return with_patch_size(configuration, (edge,) * dimensions)


def _build(configuration, *, deep_supervision=True):
    torch.manual_seed(0)
    return build_network(
        configuration.network,
        num_input_channels=len(configuration.normalization),
        num_outputs=LABELS.num_outputs,
        deep_supervision=deep_supervision,
    )


def test_every_network_that_can_be_planned_can_be_built():
    assert list(KNOWN) == list(ARCHITECTURES)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_a_network_trains_and_predicts_at_the_size_of_its_patch(name, dimensions):
    skip_without_packages_of(name)
    configuration = _small(name, dimensions)
    require_trainable(configuration)
    network, size = _build(configuration), configuration.patch_size
    image, labels = torch.randn(2, 2, *size), torch.randint(0, 3, (2, *size))
    objective = Objective(labels=LABELS, strides=configuration.network.strides, batch_dice=False)
    loss = objective.loss(network.train()(image), labels, torch.ones(2, *size))
    loss.backward()
    weights = dict(network.named_parameters())
    assert all(
        torch.isfinite(weight.grad).all() for weight in weights.values() if weight.grad is not None
    )
    reached = sum(
        weight.grad is not None and bool(weight.grad.any()) for weight in weights.values()
    )
    assert reached > 0.7 * len(weights)
    with torch.no_grad():
        assert network.eval()(image).shape == (2, 3, *size)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_a_recorded_network_is_loaded_with_the_same_logits(tmp_path, name, dimensions):
    skip_without_packages_of(name)
    configuration = _small(name, dimensions)
    network = _build(configuration).eval()
    folder = tmp_path / "run-1" / "fold_all"
    write_tiny_record(
        folder,
        fold="all",
        plan=_plan(configuration),
        configuration=configuration,
        recipe=make_recipe(mirror_axes=(0,)),
        dataset_json={
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": LABELS.classes,
            "file_ending": ".nii.gz",
        },
    )
    torch.save({"weights": network.state_dict()}, folder / CHECKPOINT_FINAL)
    model = load_trained_model(tmp_path / "run-1", ["all"])
    assert model.configuration == configuration
    loaded = load_network(model, model.checkpoints[0])
    image = torch.randn(1, 2, *configuration.patch_size)
    with torch.no_grad():
        assert torch.equal(loaded(image), network(image))


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_a_plan_with_another_network_survives_its_file(tmp_path, name, dimensions):
    plan = _plan(with_architecture(_planned(dimensions), name))
    write_json(tmp_path / "plans.json", plan_to_nnunet(plan))
    assert plan_from_nnunet(read_json(tmp_path / "plans.json")) == plan


def test_in_a_plans_file_a_network_that_lacks_numbers_is_refused():
    content = plan_to_nnunet(_plan(with_architecture(_planned(), "segresnet")))
    del content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]
    with pytest.raises(RequestError, match="strides"):
        plan_from_nnunet(content)


def test_the_planned_patch_is_padded_to_what_a_network_pools():
    assert with_architecture(_planned(), "segresnet").patch_size == (16, 40, 56)
    assert with_architecture(_planned(), "unetr").patch_size == (16, 48, 64)
    assert with_architecture(_planned(2), "segformer_b3").patch_size == (64, 64)


def test_the_attention_unet_pools_as_planned():
    planned = _planned()
    configuration = with_architecture(planned, "attention_unet")
    assert configuration.network.strides == planned.network.strides
    assert configuration.network.kernel_sizes == ((3, 3, 3),) * 3
    assert configuration.patch_size == planned.patch_size
    smaller = with_planned_patch(configuration, (8, 32, 32))
    assert set(smaller.network.kernel_sizes) == {(3, 3, 3)}


def test_unetr_is_recorded_with_the_patch_that_its_positions_stand_for():
    configuration = with_patch_size(with_architecture(_planned(), "unetr"), (32, 16, 48))
    assert configuration.network.arguments["patch_size"] == [32, 16, 48]


def test_naming_the_planned_network_changes_nothing():
    planned = _planned()
    assert with_architecture(planned, "plain_unet") == planned


@pytest.mark.parametrize(
    ("name", "patch_size", "multiples"),
    [("segresnet", (20, 40, 40), r"\(8, 8, 8\)"), ("unetr", (24, 32, 32), r"\(16, 16, 16\)")],
)
def test_a_patch_that_a_network_cannot_take_is_refused_with_those_it_can(
    name, patch_size, multiples
):
    configuration = with_architecture(_planned(), name)
    with pytest.raises(RequestError, match=f"does not fit {name}.*multiples of {multiples}"):
        with_patch_size(configuration, patch_size)


def test_a_network_for_other_dimensions_is_refused_with_those_that_fit():
    with pytest.raises(RequestError, match=r"densevoxnet is a network for 3D.*inception_unet"):
        with_architecture(_planned(2), "densevoxnet")
    with pytest.raises(RequestError, match=r"cam_wnet is a network for 2D.*unetr"):
        with_architecture(_planned(3), "cam_wnet")


def test_an_unknown_network_is_refused_with_those_there_are():
    with pytest.raises(RequestError, match=r"no architecture 'vnet'.*segresnet"):
        with_architecture(_planned(), "vnet")


def test_widths_that_a_network_cannot_have_are_refused():
    with pytest.raises(RequestError, match=r"manet are fixed; leave the base features out"):
        with_base_features(with_architecture(_planned(2), "manet"), 8)
    with pytest.raises(RequestError, match=r"multiple of 4"):
        with_base_features(with_architecture(_planned(2), "inception_unet"), 6)


@pytest.mark.parametrize(
    ("name", "patch_size", "batch_size", "remedy"),
    [
        ("deeplabv3plus", (64, 64), 1, "a batch of 2"),
        ("unet_resnet152", (32, 32), 1, r"a batch of 2, or the patch \(32, 64\)"),
        ("inception_unet", (16, 16), 2, r"the patch \(16, 32\)"),
    ],
)
def test_what_leaves_a_single_value_to_normalise_is_refused(name, patch_size, batch_size, remedy):
    configuration = with_patch_size(with_architecture(_planned(2), name), patch_size)
    with pytest.raises(RequestError, match=remedy):
        require_trainable(with_batch_size(configuration, batch_size))
    require_trainable(with_batch_size(with_patch_size(configuration, (64, 64)), 2))


@pytest.mark.parametrize("name", ["segresnet", "segformer_b3"])
def test_a_missing_package_is_named_with_its_extra(name):
    extra = KNOWN[name].extra
    if find_spec(PACKAGES[extra]) is not None:
        pytest.skip(f"{PACKAGES[extra]} is installed")
    with pytest.raises(RequestError, match=rf"{name}.*pip install 'sparseunet\[{extra}\]'"):
        require_extra(name)
    with pytest.raises(RequestError, match=rf"sparseunet\[{extra}\]"):
        _build(with_architecture(_planned(2), name))


def test_a_smaller_patch_for_a_time_keeps_a_network_that_pools_in_its_own_way():
    planned = replace(
        with_patch_size(with_architecture(_planned(), "densevoxnet"), (64, 64, 64)),
        median_shape=(80.0, 80.0, 80.0),
    )
    smaller = list(smaller_patches(planned))
    assert smaller[-1].patch_size == (32, 32, 32)
    assert {item.network for item in smaller} == {planned.network}


def test_densevoxnet_has_as_many_weights_as_its_paper_says():
    network = _build(with_architecture(_planned(), "densevoxnet"))
    count = sum(weight.numel() for weight in network.parameters())
    assert count == pytest.approx(1.8e6, rel=0.1)


def test_densevoxnet_in_training_gives_full_half_and_quarter_resolution():
    network = _build(_small("densevoxnet", 3)).train()
    sizes = [tuple(level.shape[2:]) for level in network(torch.randn(2, 2, 8, 16, 16))]
    assert sizes == [(8, 16, 16), (4, 8, 8), (2, 4, 4)]


def test_the_first_encoder_of_cam_wnet_has_the_weights_of_vgg_16():
    configuration = replace(
        with_architecture(_planned(2), "cam_wnet"), normalization=("zscore",) * 3
    )
    encoder = _build(configuration).coarse.encoder
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 13
    assert sum(w.numel() for layer in convolutions for w in layer.parameters()) == 14_714_688


def test_an_inception_block_sees_at_most_two_pixels_away():
    network = _build(_small("inception_unet", 2)).double().eval()
    block = network.encoder[0]
    for layer in block.modules():  # without the norm, which sees the whole patch
        if isinstance(layer, ConvNorm):
            layer.forward = torch.nn.Sequential(layer.conv, layer.activation).forward
    image = torch.zeros(1, 2, 17, 17, dtype=torch.float64)
    changed = image.clone()
    changed[..., 8, 8] = 1.0
    moved = (block(image) != block(changed)).any(dim=1)[0].nonzero()
    assert (moved - 8).abs().max() == 2


def test_segformer_repeats_a_grey_image_as_colours():
    skip_without_packages_of("segformer_b3")
    configuration = replace(_small("segformer_b3", 2), normalization=("zscore",))
    network = _build(configuration).eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = network.network(grey.repeat(1, 3, 1, 1))
        assert torch.equal(network(grey), expected)


def _plan(configuration):
    intensities = IntensityProperties(
        mean=0.0, median=0.0, std=1.0, min=-9.0, max=9.0, percentile_00_5=-9.0, percentile_99_5=9.0
    )
    return Plan(
        dataset_name="Dataset001_Test",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=(3.0, 1.0, 1.0),
        original_median_shape=(16, 40, 56),
        image_reader_writer="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        intensities=(intensities,) * len(configuration.normalization),
        configurations={configuration.name: configuration},
    )


def test_patches_are_multiples_of_what_the_strides_say():
    for name, architecture in KNOWN.items():
        for dimensions in architecture.dimensions:
            configuration = with_architecture(_planned(dimensions), name)
            for size, strides in zip(
                configuration.patch_size,
                zip(*configuration.network.strides, strict=True),
                strict=True,
            ):
                assert size % math.prod(strides) == 0, name
