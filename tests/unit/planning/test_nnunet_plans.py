"""Plans files written by nnU-Net or by hand."""

from dataclasses import replace

import pytest

from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import Fingerprint, IntensityProperties
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet


@pytest.fixture
def plan():
    intensities = IntensityProperties(
        mean=100, median=90, std=20, min=0, max=400, percentile_00_5=10, percentile_99_5=300
    )
    return make_plan(
        Fingerprint(
            spacings_mm=((1.0, 1.0, 1.0),),
            shapes_after_crop=((400, 500, 500),),
            median_relative_size_after_cropping=1.0,
            intensities=(intensities,),
        ),
        dataset_json={"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}},
        dataset_name="Dataset001_Any",
    )


def test_our_own_key_does_not_disturb_the_plan(plan):
    content = plan_to_nnunet(plan, sparseunet={"num_foreground_voxels": 7})
    assert content["sparseunet"] == {"num_foreground_voxels": 7}
    assert plan_from_nnunet(content) == plan


def test_a_configuration_inherits_and_its_own_keys_win(plan):
    content = plan_to_nnunet(plan)
    content["configurations"]["bigger_batch"] = {"inherits_from": "3d_fullres", "batch_size": 9}
    content["configurations"]["bigger_still"] = {"inherits_from": "bigger_batch", "batch_size": 11}
    read = plan_from_nnunet(content)
    full = read.configurations["3d_fullres"]
    assert read.configurations["bigger_batch"] == replace(full, name="bigger_batch", batch_size=9)
    assert read.configurations["bigger_still"].batch_size == 11
    assert plan_from_nnunet(plan_to_nnunet(read)) == read


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inherits_from": "nowhere"}, ["custom", "nowhere", "not in the file"]),
        ({"inherits_from": "custom"}, ["custom -> custom"]),
        ({"inherits_from": "2d", "normalization_schemes": ["MyNorm"]}, ["MyNorm", "CTNorm"]),
        ({"inherits_from": "2d", "preprocessor_name": "Mine"}, ["preprocessor_name", "Mine"]),
        ({"inherits_from": "2d", "resampling_fn_data": "torch"}, ["resampling_fn_data", "torch"]),
        (
            {"inherits_from": "2d", "architecture": {"network_class_name": "a.Net"}},
            ["a.Net", "PlainConvUNet"],
        ),
        ({"UNet_class_name": "PlainConvUNet"}, ["custom", "n_conv_per_stage_encoder"]),
    ],
)
def test_what_would_be_done_differently_is_refused(plan, change, words):
    content = plan_to_nnunet(plan)
    content["configurations"]["custom"] = change
    with pytest.raises(RequestError) as caught:
        plan_from_nnunet(content, source="plans.json")
    for word in ["plans.json", *words]:
        assert word in str(caught.value)


def test_other_details_of_the_network_are_refused(plan):
    content = plan_to_nnunet(plan)
    arguments = content["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments["norm_op"] = "torch.nn.BatchNorm2d"
    arguments["dropout_op"] = "torch.nn.Dropout2d"
    with pytest.raises(RequestError) as caught:
        plan_from_nnunet(content)
    assert "2d: norm_op" in str(caught.value)
    assert "2d: dropout_op" in str(caught.value)


@pytest.mark.parametrize("key", ["plans_name", "transpose_forward", "image_reader_writer"])
def test_a_missing_key_is_named(plan, key):
    content = plan_to_nnunet(plan)
    del content[key]
    with pytest.raises(RequestError, match=key):
        plan_from_nnunet(content)


ARGUMENTS = "architecture.arch_kwargs."
INTENSITIES = "foreground_intensity_properties_per_channel"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("patch_size", [10**5] * 3, "at most 268435456 voxels"),
        ("patch_size", [-16, 16, 16], "2 or 3 whole numbers above 0"),
        ("patch_size", [0, 16, 16], "2 or 3 whole numbers above 0"),
        ("patch_size", [16.5, 16, 16], "2 or 3 whole numbers above 0"),
        ("patch_size", [float("inf"), 16, 16], "2 or 3 whole numbers above 0"),
        ("patch_size", ["16", 16, 16], "2 or 3 whole numbers above 0"),
        ("patch_size", None, "2 or 3 whole numbers above 0"),
        ("patch_size", [129, 128, 128], "divisors of the patch_size"),
        ("spacing", [0, 1, 1], "3 numbers above 0"),
        ("spacing", [float("nan"), 1, 1], "3 numbers above 0"),
        ("spacing", ["1", 1, 1], "3 numbers above 0"),
        ("spacing", [1, 1], "3 numbers above 0"),
        ("batch_size", -2, "a whole number above 0"),
        ("batch_size", "two", "a whole number above 0"),
        ("use_mask_for_norm", "no", "true or false for each of the 1"),
        ("use_mask_for_norm", [False, False], "true or false for each of the 1"),
        ("normalization_schemes", "CTNormalization", "a list of names"),
        ("data_identifier", "../../elsewhere", "expected a name"),
        ("previous_stage", "../../elsewhere", "expected a name"),
        ("architecture", None, "no network_class_name"),
        (ARGUMENTS + "strides", [[0, 0, 0]] * 6, "whole numbers above 0 for every stage"),
        (ARGUMENTS + "strides", [[-2, 2, 2]] * 6, "whole numbers above 0 for every stage"),
        (ARGUMENTS + "kernel_sizes", [[2, 2, 2]] * 6, "odd numbers up to 99"),
        (ARGUMENTS + "kernel_sizes", [[10**6 + 1] * 3] * 6, "odd numbers up to 99"),
        (ARGUMENTS + "kernel_sizes", [[3, 3, 3]], "as many everywhere"),
        (ARGUMENTS + "features_per_stage", [10**9] * 6, "1 to 65536"),
        (ARGUMENTS + "features_per_stage", "many", "whole numbers above 0 for every stage"),
        (ARGUMENTS + "n_conv_per_stage", [10**9] * 6, "1 to 1000"),
    ],
)
def test_values_that_no_plan_has_are_refused_by_key(plan, key, value, words):
    content = plan_to_nnunet(plan)
    target = content["configurations"]["3d_fullres"]
    *way, last = key.split(".")
    for step in way:
        target = target[step]
    target[last] = value
    with pytest.raises(RequestError) as caught:
        plan_from_nnunet(content, source="plans.json", only=["3d_fullres"])
    for word in ["plans.json", "3d_fullres", words]:
        assert word in str(caught.value)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("transpose_forward", [0, 0, 1], "an order of 0, 1, 2"),
        ("transpose_forward", "012", "an order of 0, 1, 2"),
        ("transpose_backward", [2, 0, 1], "which undoes transpose_forward"),
        ("original_median_spacing_after_transp", [0, 1, 1], "3 numbers above 0"),
        (INTENSITIES, {}, "channels 0 to 0 of 2d"),
        (INTENSITIES, [], "channels 0 to 0 of 2d"),
        (INTENSITIES, {"0": {"mean": 1}}, "misses numbers: mean, median, std"),
    ],
)
def test_values_that_no_dataset_has_are_refused_by_key(plan, key, value, words):
    content = plan_to_nnunet(plan) | {key: value}
    with pytest.raises(RequestError) as caught:
        plan_from_nnunet(content, source="plans.json")
    for word in ["plans.json", key, words]:
        assert word in str(caught.value)


def test_statistics_must_be_finite_where_they_normalise(plan):
    content = plan_to_nnunet(plan)
    content[INTENSITIES]["0"]["std"] = float("nan")
    with pytest.raises(RequestError, match="not finite, as CTNormalization needs it"):
        plan_from_nnunet(content)
    for configuration in content["configurations"].values():
        if "normalization_schemes" in configuration:
            configuration["normalization_schemes"] = ["ZScoreNormalization"]
    plan_from_nnunet(content)


@pytest.mark.parametrize("content", [None, [], {}, {"configurations": 3}])
def test_another_kind_of_file_is_refused(content):
    with pytest.raises(RequestError, match="no plans file"):
        plan_from_nnunet(content)


def test_an_unknown_planner_is_recorded_as_the_default_one(plan, caplog):
    content = {**plan_to_nnunet(plan), "experiment_planner_used": "MyPlanner"}
    assert plan_from_nnunet(content).planner == "default"
    assert "MyPlanner" in caplog.text
