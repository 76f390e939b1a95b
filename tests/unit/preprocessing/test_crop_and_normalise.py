import numpy as np
import pytest
from phantoms import box, sphere
from scipy import ndimage

from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.preprocessing.crop import crop_box
from sparseunet.preprocessing.normalise import NORMALIZATIONS, normalise

CT = IntensityProperties(
    mean=60.0,
    median=60.0,
    std=15.0,
    min=-50.0,
    max=200.0,
    percentile_00_5=20.0,
    percentile_99_5=95.0,
)


def normalised(image_CZYX, inside_ZYX, scheme, *, masked=False):
    channels = len(image_CZYX)
    return normalise(
        image_CZYX,
        inside_ZYX,
        schemes=[scheme] * channels,
        use_mask=[masked] * channels,
        intensities=[CT] * channels,
    )


def test_the_box_holds_every_nonzero_voxel_and_touches_them_on_all_sides():
    image_CZYX = np.zeros((2, 12, 14, 16), np.float32)
    image_CZYX[0, 3:5, 4:9, 2] = -1
    image_CZYX[1, 4, 4:6, 2:11] = 7
    inside_ZYX, start, shape = crop_box(image_CZYX)
    assert (start, shape) == ((3, 4, 2), (2, 5, 9))
    assert np.array_equal(inside_ZYX, (image_CZYX != 0).any(axis=0))


def test_enclosed_holes_are_inside_and_open_ones_are_not():
    shell_ZYX = sphere((21, 21, 21), radius_mm=8) & ~sphere((21, 21, 21), radius_mm=5)
    inside_ZYX, _, _ = crop_box(shell_ZYX[None].astype(np.float32))
    assert np.array_equal(inside_ZYX, sphere((21, 21, 21), radius_mm=8))
    shell_ZYX[:, 10, 10] = False
    inside_ZYX, _, _ = crop_box(shell_ZYX[None].astype(np.float32))
    assert np.array_equal(inside_ZYX, shell_ZYX)


def test_holes_are_the_same_as_when_filled_in_the_whole_volume():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image_ZYX = np.zeros((9, 10, 11))
        image_ZYX[1:, 2:9, :8] = rng.random((8, 7, 8)) > 0.45
        inside_ZYX, _, _ = crop_box(image_ZYX[None])
        assert np.array_equal(inside_ZYX, ndimage.binary_fill_holes(image_ZYX))


def test_an_image_of_zeros_keeps_the_whole_volume():
    inside_ZYX, start, shape = crop_box(np.zeros((1, 3, 4, 5), np.float32))
    assert inside_ZYX.all()
    assert (start, shape) == ((0, 0, 0), (3, 4, 5))


def test_zscore_gives_mean_0_and_deviation_1():
    image_CZYX = np.random.default_rng(0).normal(300, 40, (2, 8, 9, 10)).astype(np.float32)
    result_CZYX = normalised(image_CZYX, np.ones((8, 9, 10), bool), "zscore")
    assert result_CZYX.dtype == np.float32
    for channel_ZYX in result_CZYX:
        assert channel_ZYX.mean() == pytest.approx(0, abs=1e-5)
        assert channel_ZYX.std() == pytest.approx(1, abs=1e-5)


def test_zscore_with_mask_measures_inside_and_leaves_0_outside():
    inside_ZYX = sphere((10, 12, 14), radius_mm=4)
    image_ZYX = np.random.default_rng(0).normal(300, 40, inside_ZYX.shape) * inside_ZYX
    (result_ZYX,) = normalised(image_ZYX[None], inside_ZYX, "zscore", masked=True)
    assert result_ZYX[inside_ZYX].mean() == pytest.approx(0, abs=1e-5)
    assert result_ZYX[inside_ZYX].std() == pytest.approx(1, abs=1e-5)
    assert np.all(result_ZYX[~inside_ZYX] == 0)


def test_ct_clips_to_the_percentiles_of_the_dataset_and_uses_its_statistics():
    image_CZYX = np.array([-1000, 20, 60, 95, 3000], np.float32).reshape(1, 1, 1, 5)
    result_CZYX = normalised(image_CZYX, np.ones((1, 1, 5), bool), "ct")
    expected = (np.array([20, 20, 60, 95, 95]) - 60) / 15
    assert np.allclose(result_CZYX.ravel(), expected, atol=1e-6)


def test_the_other_schemes():
    image_CZYX = np.array([0, 51, 255], np.float32).reshape(1, 1, 1, 3)
    inside_ZYX = np.ones((1, 1, 3), bool)
    assert np.array_equal(normalised(image_CZYX, inside_ZYX, "none"), image_CZYX)
    for scheme in ("rescale_to_0_1", "rgb_to_0_1"):
        assert np.allclose(normalised(image_CZYX, inside_ZYX, scheme).ravel(), [0, 0.2, 1])


@pytest.mark.parametrize("scheme", NORMALIZATIONS)
@pytest.mark.parametrize("value", [0.0, 200.3])
@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_image_stays_finite_and_small(scheme, value, masked):
    image_CZYX = np.full((1, 3, 4, 5), value, np.float32)
    inside_ZYX = box((3, 4, 5), start=(0, 0, 0), stop=(2, 4, 5))
    result_CZYX = normalised(image_CZYX, inside_ZYX, scheme, masked=masked)
    assert np.isfinite(result_CZYX).all()
    assert np.abs(result_CZYX).max() <= 201
    if scheme in ("zscore", "rescale_to_0_1"):
        assert np.all(result_CZYX == 0)


def test_the_image_of_the_caller_is_not_changed():
    image_CZYX = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    before_CZYX = image_CZYX.copy()
    for scheme in NORMALIZATIONS:
        normalised(image_CZYX, np.ones((2, 3, 4), bool), scheme)
    assert np.array_equal(image_CZYX, before_CZYX)


def test_what_does_not_fit_the_plan_is_refused_with_what_was_found_and_expected():
    inside_ZYX = np.ones((1, 1, 2), bool)
    image_CZYX = np.array([-3, 300], np.float32).reshape(1, 1, 1, 2)
    with pytest.raises(ValueError, match="from 0 to 255, found -3 to 300"):
        normalised(image_CZYX, inside_ZYX, "rgb_to_0_1")
    with pytest.raises(ValueError, match=r"'zcsore'; expected one of zscore"):
        normalised(image_CZYX, inside_ZYX, "zcsore")
    with pytest.raises(ValueError, match="1 channels; expected 2"):
        normalise(
            image_CZYX,
            inside_ZYX,
            schemes=["none"] * 2,
            use_mask=[False] * 2,
            intensities=[CT] * 2,
        )
