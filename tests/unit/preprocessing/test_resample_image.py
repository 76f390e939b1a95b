import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from sparseunet.preprocessing import resample
from sparseunet.preprocessing.interpolation import axis_map, resampled_shape, separate_axis
from sparseunet.preprocessing.resample import resample_image, resample_mask

SIZES = st.tuples(*[st.integers(1, 13)] * 3)


def reference(channel_ZYX, shape, order):
    return resize(
        channel_ZYX.astype(float), shape, order=order, mode="edge", anti_aliasing=False, clip=True
    )


@settings(max_examples=60)
@given(shape=SIZES, new_shape=SIZES, order=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_resampling_equals_skimage(shape, new_shape, order, seed):
    image_CZYX = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    result_CZYX = resample_image(
        image_CZYX, new_shape, spacing_mm=(1, 1, 1), new_spacing_mm=(1, 1, 1), order=order
    )
    for before_ZYX, after_ZYX in zip(image_CZYX, result_CZYX, strict=True):
        assert np.allclose(after_ZYX, reference(before_ZYX, new_shape, order), atol=2e-5)


@settings(max_examples=40)
@given(shape=SIZES, new_shape=SIZES, axis=st.integers(0, 2), seed=st.integers(0, 99))
def test_far_slices_are_resampled_in_plane_and_then_taken_by_nearest_neighbour(
    shape, new_shape, axis, seed
):
    image_ZYX = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    spacing_mm = tuple(5.0 if other == axis else 1.0 for other in range(3))
    (result_ZYX,) = resample_image(
        image_ZYX[None], new_shape, spacing_mm=spacing_mm, new_spacing_mm=spacing_mm
    )
    if new_shape == shape:
        assert np.array_equal(result_ZYX, image_ZYX)
        return
    in_plane = tuple(size for other, size in enumerate(new_shape) if other != axis)
    slices = [reference(plane, in_plane, 3) for plane in np.moveaxis(image_ZYX, axis, 0)]
    which = axis_map(shape[axis], new_shape[axis], order=0).nearest
    expected_ZYX = np.moveaxis(np.stack([slices[index] for index in which]), 0, axis)
    assert np.allclose(result_ZYX, expected_ZYX, atol=2e-5)


def test_nearest_positions_equal_scipy_for_every_pair_of_small_sizes():
    for size in range(1, 25):
        for new_size in range(1, 40):
            positions = (size / new_size) * (np.arange(new_size) + 0.5) - 0.5
            expected = ndimage.map_coordinates(
                np.arange(size, dtype=float), positions[None], order=0, mode="nearest"
            )
            nearest = axis_map(size, new_size, order=0).nearest
            assert np.array_equal(nearest, expected)
            by_skimage = reference(np.arange(size), (new_size,), 0)
            assert np.allclose(np.abs(nearest - positions), np.abs(by_skimage - positions))


@settings(max_examples=200)
@given(size=st.integers(1, 60), new_size=st.integers(1, 60))
def test_cells_divide_the_source_and_hold_the_nearest_position(size, new_size):
    step = axis_map(size, new_size, order=1)
    assert np.allclose(step.weights.sum(axis=1), 1, atol=1e-5)
    assert np.all(step.weights[np.arange(new_size), step.nearest] >= 0.5 - 1e-6)
    if step.shrinks:
        assert step.cell_starts[0] == 0
        assert np.all(np.diff(step.cell_starts) >= 1)
        assert np.all((step.cell_weights > 0).sum(axis=0) == 1)
        assert np.all(step.cell_weights[np.arange(new_size), step.nearest] > 0)
    else:
        assert set(step.nearest.tolist()) == set(range(size))


def test_an_unchanged_shape_returns_the_same_voxels():
    image_CZYX = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    same_CZYX = resample_image(
        image_CZYX, (3, 4, 5), spacing_mm=(1, 1, 1), new_spacing_mm=(1.001, 1, 1)
    )
    assert np.shares_memory(same_CZYX, image_CZYX)


def test_values_stay_within_those_of_the_input():
    image_CZYX = np.zeros((1, 9, 9, 9), np.float32)
    image_CZYX[0, 4:, 3:, 2:] = 100
    result_CZYX = resample_image(
        image_CZYX, (14, 13, 12), spacing_mm=(1, 1, 1), new_spacing_mm=(0.7, 0.7, 0.7)
    )
    assert result_CZYX.min() == 0
    assert result_CZYX.max() == 100


@pytest.mark.parametrize(
    ("spacing_mm", "new_spacing_mm", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((3, 1, 1), (3, 1, 1), None),
        ((3.1, 1, 1), (1, 1, 1), 0),
        ((1, 1, 1), (1, 5, 1), 1),
        ((1, 2, 7), (6, 1, 1), 2),
        ((4, 4, 1), (5, 1, 1), None),
        ((999, 1, 1), (999, 1, 1), 0),
    ],
)
def test_the_separate_axis_is_the_single_coarsest_of_spacings_apart_by_more_than_three(
    spacing_mm, new_spacing_mm, axis
):
    assert separate_axis(spacing_mm, new_spacing_mm) == axis


def test_the_new_shape_rounds_and_never_vanishes():
    assert resampled_shape((36, 50, 35), (1, 1, 1), (1, 1, 1)) == (36, 50, 35)
    assert resampled_shape((10, 5, 1), (2.5, 1, 1), (1, 2, 9)) == (25, 2, 1)


def test_a_mask_is_resampled_by_nearest_neighbour():
    mask_ZYX = np.random.default_rng(0).random((7, 8, 9)) > 0.5
    expected_ZYX = reference(mask_ZYX, (11, 5, 9), 0) > 0.5
    assert np.array_equal(resample_mask(mask_ZYX, (11, 5, 9)), expected_ZYX)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("separate", [None, 0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "new_shape"),
    [
        ((20, 6, 7), (31, 9, 8)),  # grows, along z most
        ((20, 6, 7), (23, 9, 10)),  # grows, along z least
        ((31, 9, 8), (20, 8, 6)),
        ((20, 9, 7), (20, 6, 9)),
        ((20, 6, 7), (33, 6, 7)),
    ],
)
def test_blocks_along_z_give_the_same_as_the_whole(shape, new_shape, separate, order, monkeypatch):
    image_CZYX = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    spacing_mm = tuple(5.0 if axis == separate else 1.0 for axis in range(3))

    def resampled():
        return resample_image(
            image_CZYX, new_shape, spacing_mm=spacing_mm, new_spacing_mm=spacing_mm, order=order
        )

    whole_CZYX = resampled()
    monkeypatch.setattr(resample, "_PLANES_AT_ONCE", 4)
    assert np.allclose(resampled(), whole_CZYX, atol=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (5, 1, 1)])
def test_no_third_volume_is_held_beside_image_and_result(spacing_mm):
    image_CZYX = np.random.default_rng(0).normal(size=(1, 900, 30, 30)).astype(np.float32)
    spacings = {"spacing_mm": spacing_mm, "new_spacing_mm": spacing_mm}
    resample_image(image_CZYX, (990, 33, 33), **spacings)  # the weights are made once
    tracemalloc.start()
    try:
        result_CZYX = resample_image(image_CZYX, (990, 33, 33), **spacings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < result_CZYX.nbytes + image_CZYX.nbytes / 2
