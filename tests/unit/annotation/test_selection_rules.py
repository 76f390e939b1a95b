"""Rules of selectors that cluster nothing, on small cases with known answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.selection.clusters import histogram_points, pixel_points
from sparseunet.annotation.selection.coreset import k_centre_greedy
from sparseunet.annotation.selection.coverage import normalise_rows
from sparseunet.annotation.selection.features import intensity_features, small_pictures
from sparseunet.annotation.selection.foreground import (
    select_foreground_aware,
    select_positive_weighted,
)
from sparseunet.annotation.selection.slices import SelectionRequest, Selector, SliceStack
from sparseunet.annotation.selection.ssim import ssim_of_all_pairs
from sparseunet.annotation.selection.uniform import select_random
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

NUM = 60
AWKWARD = [0.1, 1 / 3, 0.7, 1e7 + 0.1, -123.456, 1e-6]
"""Values whose mean over many voxels rounds to another number."""
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "tumour": 2}, regions={}, ignore=3)


def make_stacks(folder: Path, labels_ZYX: np.ndarray, *, num: int) -> list[SliceStack]:
    """Return many cases that share one label file."""
    geometry = Geometry(shape=labels_ZYX.shape, spacing_mm=(1.0, 1.0, 1.0))
    write_image(folder / "image.nii.gz", labels_ZYX.astype(np.float32), geometry)
    write_label_map(folder / "label.nii.gz", labels_ZYX, geometry)
    return [
        SliceStack(
            case=Case(
                name=f"case_{number}",
                images=(folder / "image.nii.gz",),
                label=folder / "label.nii.gz",
            ),
            axis=0,
            num_slices=len(labels_ZYX),
            spacing_mm=(1.0, 1.0, 1.0),
            number=number,
        )
        for number in range(num)
    ]


def organ_with_tumour() -> np.ndarray:
    labels_ZYX = np.zeros((NUM, 6, 6), np.uint8)
    labels_ZYX[20:40, 2:5, 2:5] = 1
    labels_ZYX[30:32, 3, 3] = 2
    return labels_ZYX


def share_chosen(stacks: Sequence[SliceStack], select, slices: Sequence[int], count: int) -> float:  # type: ignore[no-untyped-def]
    request = SelectionRequest(
        counts=(count,) * len(stacks), total=count * len(stacks), labels=LABELS
    )
    return float(np.mean([item.index in slices for item in select(stacks, request=request)]))


def test_random_slices_are_uniform_and_begin_like_fewer_ones(tmp_path: Path) -> None:
    stacks = make_stacks(tmp_path, np.zeros((NUM, 4, 4), np.uint8), num=200)
    few, more = (
        select_random(stacks, request=SelectionRequest(counts=(n,) * 200, total=n * 200))
        for n in (3, 6)
    )
    assert more[: len(few)] == few
    counts = np.bincount([item.index for item in more], minlength=NUM)
    assert 5 <= counts.min() <= counts.max() <= 40  # 20 expected


def test_a_third_of_foreground_aware_slices_is_laid_through_objects(tmp_path: Path) -> None:
    stacks = make_stacks(tmp_path, organ_with_tumour(), num=400)
    share = share_chosen(stacks, select_foreground_aware, range(20, 40), 1)
    assert share == pytest.approx(4 / 6 * 20 / 60 + 2 / 6, abs=0.01)
    # Half of those third are the tumour's, although it has 2 of 20 slices.
    share = share_chosen(stacks, select_foreground_aware, (30, 31), 1)
    expected = 4 / 6 * 2 / 60 + 2 / 6 * (1 / 2 + 1 / 2 * 2 / 20)
    assert share == pytest.approx(expected, abs=0.01)
    request = SelectionRequest(counts=(NUM,), total=NUM, labels=LABELS)
    reasons = {item.reason for item in select_foreground_aware(stacks[:1], request=request)}
    assert reasons == {"no object is known here", "through organ", "through tumour"}


def test_a_positive_slice_is_drawn_ten_times_as_often(tmp_path: Path) -> None:
    labels_ZYX = np.zeros((NUM, 6, 6), np.uint8)
    labels_ZYX[5:11, 3, 3] = 2
    stacks = make_stacks(tmp_path, labels_ZYX, num=300)
    share = share_chosen(stacks, select_positive_weighted, range(5, 11), 1)
    assert share == pytest.approx(60 / (60 + 54), abs=0.09)
    everything = share_chosen(stacks[:2], select_positive_weighted, range(5, 11), NUM)
    assert everything == pytest.approx(6 / NUM)


def test_between_annotated_slices_objects_are_interpolated(tmp_path: Path) -> None:
    labels_ZYX = np.full((NUM, 6, 6), 3, np.uint8)
    labels_ZYX[::10] = organ_with_tumour()[::10]
    stacks = make_stacks(tmp_path, labels_ZYX, num=150)
    share = share_chosen(stacks, select_positive_weighted, range(11, 40), 1)
    assert share == pytest.approx(290 / (290 + 31), abs=0.06)


@pytest.mark.parametrize("select", [select_foreground_aware, select_positive_weighted])
def test_without_any_label_the_error_says_what_to_do(tmp_path: Path, select: Selector) -> None:
    stacks = make_stacks(tmp_path, np.full((NUM, 6, 6), 3, np.uint8), num=1)
    request = SelectionRequest(counts=(2,), total=2, labels=LABELS)
    with pytest.raises(RequestError, match=r"case_0 has no annotated slice.* Give it a label"):
        select(stacks, request=request)
    with pytest.raises(RequestError, match="needs the dataset's classes"):
        select(stacks, request=SelectionRequest(counts=(2,), total=2))


@given(st.integers(1, 12), st.integers(0, 100))
def test_k_centres_are_at_most_twice_as_far_as_possible(count: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((12, 2))
    chosen = [row for row, _ in k_centre_greedy(points, count=count)]
    assert len(set(chosen)) == count
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    radius = distances[:, chosen].min(axis=1).max()
    if count == 1:
        assert radius <= 2 * distances.max(axis=1).min()
    if count == 2:
        best = min(
            np.minimum(distances[:, one], distances[:, other]).max()
            for one in range(12)
            for other in range(12)
        )
        assert radius <= 2 * best + 1e-9


def test_equal_slices_are_chosen_once_each() -> None:
    assert sorted(row for row, _ in k_centre_greedy(np.zeros((5, 3)), count=5)) == [0, 1, 2, 3, 4]


def test_small_pictures_keep_the_mean_of_areas_and_forget_scale_and_level() -> None:
    slices = np.random.default_rng(0).random((4, 2, 32, 48)).astype(np.float32)
    small = small_pictures(slices, side=16)
    assert small.shape == (4, 2, 16, 16)
    np.testing.assert_allclose(small.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(small.std(axis=(0, 2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(small_pictures(500 * slices - 90, side=16), small, atol=1e-3)
    enlarged = small_pictures(slices[:, :, :4, :4], side=8)
    np.testing.assert_allclose(enlarged[:, :, ::2, ::2], enlarged[:, :, 1::2, 1::2], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("shape", [(3, 9, 9), (7, 33, 50), (40, 100, 17)])
def test_features_of_a_scan_without_contrast_are_zero(
    shape: tuple[int, int, int], value: float, dtype: type
) -> None:
    slices = np.full(shape, value, dtype)[:, None]
    features = intensity_features(slices)
    assert features.shape == (shape[0], 288)
    assert not features.any()
    assert not small_pictures(slices, side=7).any()
    assert not pixel_points(slices).any()
    assert (ssim_of_all_pairs(slices) == 1).all()


@pytest.mark.parametrize("value", AWKWARD)
def test_a_scan_whose_voxels_differ_in_the_last_digit_has_no_contrast(value: float) -> None:
    slices = np.full((5, 1, 20, 20), value, np.float32)
    other = np.nextafter(slices, np.float32(np.inf))
    slices = np.where(np.random.default_rng(0).random(slices.shape) < 0.5, slices, other)
    assert not intensity_features(slices).any()
    assert not pixel_points(slices).any()
    assert (ssim_of_all_pairs(slices) == 1).all()
    assert (histogram_points(slices)[:, 0] == 400).all()


@pytest.mark.parametrize("num_slices", [3, 10, 700])
def test_equal_slices_have_no_features_that_tell_them_apart(num_slices: int) -> None:
    one = np.random.default_rng(0).normal(1000, 300, (1, 1, 24, 24)).astype(np.float32)
    slices = np.repeat(one, num_slices, axis=0)
    assert not intensity_features(slices).any()
    assert not pixel_points(slices[:50]).any()


def test_a_row_of_rounding_has_no_direction() -> None:
    rows = np.array([[3, 4], [3e-8, -1e-8], [0, 0]], np.float32)
    np.testing.assert_allclose(normalise_rows(rows), [[0.6, 0.8], [0, 0], [0, 0]], atol=1e-7)
