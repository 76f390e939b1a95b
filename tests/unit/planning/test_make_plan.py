"""From a fingerprint to a plan, and what is refused."""

from dataclasses import replace

import pytest

from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import Fingerprint, IntensityProperties
from sparseunet.planning.make_plan import make_plan

INTENSITIES = IntensityProperties(
    mean=100, median=90, std=20, min=0, max=400, percentile_00_5=10, percentile_99_5=300
)


def _fingerprint(*, shape=(40, 200, 160), spacing_mm=(3.0, 1.0, 1.0), channels=1, relative=1.0):
    return Fingerprint(
        spacings_mm=(spacing_mm,) * 3,
        shapes_after_crop=(shape,) * 3,
        median_relative_size_after_cropping=relative,
        intensities=(INTENSITIES,) * channels,
        num_foreground_voxels=5000,
        num_foreground_cases=3,
    )


def _json(**changes):
    return {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **changes,
    }


def _make(fingerprint=None, description=None, **options):
    return make_plan(
        fingerprint or _fingerprint(),
        dataset_json=description or _json(),
        dataset_name="Dataset001_Any",
        **options,
    )


def test_images_of_one_slice_get_the_2d_network_only():
    flat = _fingerprint(shape=(1, 200, 160), spacing_mm=(999.0, 1.0, 1.0))
    assert list(_make(flat).configurations) == ["2d"]


def test_volumes_get_both_and_a_cascade_only_when_they_are_large():
    assert list(_make().configurations) == ["2d", "3d_fullres"]
    large = _fingerprint(shape=(400, 500, 500), spacing_mm=(1.0, 1.0, 1.0))
    plan = _make(large)
    assert list(plan.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert plan.configurations["3d_lowres"].next_stage == "3d_cascade_fullres"
    assert plan.configurations["3d_cascade_fullres"].previous_stage == "3d_lowres"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("noNorm", "none"),
        ("zscore", "zscore"),
        ("rescale_to_0_1", "rescale_to_0_1"),
        ("rgb_to_0_1", "rgb_to_0_1"),
        ("T2 FLAIR", "zscore"),
    ],
)
def test_the_channel_name_decides_the_normalization(name, key):
    plan = _make(description=_json(channel_names={"0": name}))
    assert plan.configurations["2d"].normalization == (key,)


def test_channels_are_taken_in_the_order_of_their_numbers():
    names = {str(number): "CT" if number == 10 else "MR" for number in reversed(range(11))}
    plan = _make(_fingerprint(channels=11), _json(channel_names=names))
    assert plan.configurations["2d"].normalization == ("zscore",) * 10 + ("ct",)


@pytest.mark.parametrize(("relative", "masked"), [(0.74, True), (0.75, False), (1.0, False)])
def test_statistics_are_masked_only_where_cropping_removed_much_and_never_for_ct(relative, masked):
    names = {"0": "CT", "1": "T1"}
    plan = _make(_fingerprint(channels=2, relative=relative), _json(channel_names=names))
    assert plan.configurations["3d_fullres"].use_mask_for_norm == (False, masked)


def test_axes_are_transposed_so_that_slices_come_first():
    plan = _make(_fingerprint(shape=(200, 160, 40), spacing_mm=(1.0, 1.0, 3.0)))
    assert plan.transpose_forward == (2, 0, 1)
    assert plan.original_median_shape == (40, 200, 160)
    assert plan.configurations["3d_fullres"].spacing_mm == (3.0, 1.0, 1.0)
    assert plan.configurations["2d"].median_shape == (200.0, 160.0)


def test_the_ignore_label_is_no_output():
    many = {"background": 0, **{f"organ_{number}": number for number in range(1, 150)}}
    dense = _make(description=_json(labels=many))
    assert _make(description=_json(labels={**many, "ignore": 150})) == dense


@pytest.mark.parametrize(
    ("ending", "depth", "reader"),
    [
        (".png", 1, "NaturalImage2DIO"),
        (".tif", 1, "NaturalImage2DIO"),
        (".tif", 40, "Tiff3DIO"),
        (".nii", 40, "NibabelIO"),
        (".mha", 40, "SimpleITKIO"),
    ],
)
def test_the_reader_is_named_as_nnunet_names_it(ending, depth, reader):
    plan = _make(_fingerprint(shape=(depth, 200, 160)), _json(file_ending=ending))
    assert plan.image_reader_writer == reader


def test_a_target_spacing_that_leaves_no_voxel_is_refused():
    with pytest.raises(RequestError, match="smaller target spacing"):
        _make(target_spacing_mm=(5000.0, 1.0, 1.0), plans_name="coarse")


def test_a_target_spacing_given_by_hand_keeps_its_own_preprocessed_folder():
    plan = _make(planner="ResEncM", target_spacing_mm=(2.0, 2.0, 2.0), plans_name="coarse")
    full = plan.configurations["3d_fullres"]
    assert (full.spacing_mm, full.data_identifier) == ((2.0, 2.0, 2.0), "coarse_3d_fullres")
    assert plan.plans_name == "coarse"
    shared = _make(planner="ResEncM").configurations["3d_fullres"]
    assert shared.data_identifier == "nnUNetPlans_3d_fullres"


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(RequestError) as caught:
        _make(
            _fingerprint(channels=2),
            {"channel_names": {"0": "CT"}},
            planner="ResEncS",
            target_spacing_mm=(1, 0, 1),
        )
    message = str(caught.value)
    assert message.count("\n") == 3
    for word in ("ResEncS", "1 channels", '"labels"', "(1, 0, 1)"):
        assert word in message


def test_images_too_small_for_any_u_net_are_refused():
    with pytest.raises(RequestError, match="too small"):
        _make(_fingerprint(shape=(4, 7, 7)))


def test_a_configuration_too_small_is_left_out_with_a_warning(caplog):
    thin = _fingerprint(shape=(100, 7, 7), spacing_mm=(1.0, 1.0, 1.0))
    assert list(_make(thin).configurations) == ["3d_fullres"]
    assert "2d is left out" in caplog.text


def test_the_plan_does_not_depend_on_what_stands_behind_the_intensities():
    dense = _fingerprint()
    sparse = replace(
        dense, intensity_source="body", num_foreground_voxels=0, num_foreground_cases=0
    )
    assert _make(dense) == _make(sparse)
