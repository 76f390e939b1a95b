"""Selectors that cluster slices: what is compared, and how slices are drawn from clusters."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import alexnet_weights
from scipy import ndimage
from skimage.metrics import structural_similarity

from sparseunet.annotation.selection.clusters import (
    draw_from_clusters,
    histogram_points,
    pixel_points,
)
from sparseunet.annotation.selection.perceptual import find_weights, perceptual_distances
from sparseunet.annotation.selection.ssim import ssim_of_all_pairs
from sparseunet.errors import RequestError


def smooth_slices(shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (800 * ndimage.gaussian_filter(noise, (1, 0, 2, 2)) - 300).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 1, 30, 25), (5, 2, 17, 40), (3, 1, 9, 6), (2, 1, 3, 3)])
def test_similarity_of_all_pairs_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    slices = smooth_slices(shape)
    low = slices.min(axis=(0, 2, 3), keepdims=True)
    scaled = ((slices - low) / (slices.max(axis=(0, 2, 3), keepdims=True) - low)).astype(float)
    smallest = min(shape[2:])
    window = min(7, smallest - (smallest + 1) % 2)
    expected = [
        [
            structural_similarity(one, other, data_range=1, win_size=window, channel_axis=0)
            for one in scaled
        ]
        for other in scaled
    ]
    np.testing.assert_allclose(ssim_of_all_pairs(slices), expected, atol=2e-6)


def test_slices_without_any_contrast_are_alike() -> None:
    slices = np.zeros((4, 1, 12, 12), np.float32)
    assert np.array_equal(ssim_of_all_pairs(slices), np.ones((4, 4)))


def test_points_of_pixels_keep_the_distances_between_slices() -> None:
    slices = smooth_slices((9, 1, 20, 30))
    points = pixel_points(slices)
    flat = slices.reshape(9, -1) / slices.std()
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    found = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert points.shape[1] < 9
    np.testing.assert_allclose(found, distances, rtol=1e-3, atol=1e-2)


def test_histograms_count_every_pixel_of_a_slice_in_255_bins() -> None:
    slices = smooth_slices((5, 2, 8, 10))
    points = histogram_points(slices)
    assert points.shape == (5, 2 * 255)
    assert np.array_equal(points.reshape(5, 2, 255).sum(axis=2), np.full((5, 2), 80))
    expected = np.histogram(slices[3, 1], bins=255, range=(slices[:, 1].min(), slices[:, 1].max()))
    assert np.abs(points[3, 255:].cumsum() - expected[0].cumsum()).max() <= 1  # float32 borders


def test_every_cluster_gives_the_same_number() -> None:
    points = np.repeat(np.arange(15.0), 6)[:, None] * 100 + np.tile(np.arange(6.0), 15)[:, None]
    drawn = draw_from_clusters(points, count=30, seed=3)
    true_cluster = [point // 6 for point, _ in drawn]
    assert sorted(true_cluster) == sorted([*range(15)] * 2)
    assert sorted(true_cluster[:15]) == [*range(15)], "the first round visits every cluster"


def test_a_cluster_that_is_too_small_hands_its_rest_to_the_most_similar_one() -> None:
    # Fifteen clusters on a line; the second has one member and lies nearest to the first.
    sizes = [9, 1] + [4] * 13
    places = [0.0, 10.0] + [1000.0 * number for number in range(1, 14)]
    points = np.concatenate(
        [place + 0.01 * np.arange(size) for place, size in zip(places, sizes, strict=True)]
    )[:, None]
    owner = np.repeat(np.arange(15), sizes)
    drawn = draw_from_clusters(points, count=45, seed=0)
    counts = np.bincount([owner[point] for point, _ in drawn], minlength=15)
    assert counts.tolist() == [5, 1] + [3] * 13


def test_fewer_slices_than_clusters_take_one_of_each_of_fewer_clusters() -> None:
    points = np.repeat([0.0, 50.0, 90.0], 7)[:, None] + np.tile(np.arange(7.0), 3)[:, None] * 0.1
    drawn = draw_from_clusters(points, count=3, seed=1)
    assert sorted(point // 7 for point, _ in drawn) == [0, 1, 2]


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000), st.data())
def test_any_number_of_any_points_is_drawn_once(
    num: int, distinct: int, seed: int, data: st.DataObject
) -> None:
    points = np.random.default_rng(seed).integers(0, distinct, (num, 2)).astype(float)
    count = data.draw(st.integers(1, num))
    drawn = [point for point, _ in draw_from_clusters(points, count=count, seed=seed)]
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(range(num))


def test_perceptual_distances_are_those_of_single_pairs(tmp_path: Path) -> None:
    import torch

    from sparseunet.networks.alexnet import load_perceptual_features

    weights = alexnet_weights(tmp_path / "alexnet-random.pth")
    slices = smooth_slices((4, 1, 70, 64))
    found = perceptual_distances(slices, weights=weights)
    network = load_perceptual_features(weights)
    scaled = torch.from_numpy((slices - slices.min()) / (slices.max() - slices.min()))
    maps = network(scaled)
    expected = sum(
        (stage[:, None] - stage[None]).square().sum(dim=2).mean(dim=(2, 3)) for stage in maps
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    heads = {}
    for stage, channels in enumerate((64, 192, 384, 256, 256)):
        heads[f"lin{stage}.model.1.weight"] = torch.rand(1, channels, 1, 1)
    torch.save(heads, tmp_path / "alex.pth")
    expected = sum(
        ((stage[:, None] - stage[None]).square() * head[0]).sum(dim=2).mean(dim=(2, 3))
        for stage, head in zip(maps, heads.values(), strict=True)
    )
    weighted = perceptual_distances(slices, weights=weights)
    np.testing.assert_allclose(weighted, expected, rtol=1e-4, atol=1e-5)


def test_missing_or_wrong_weights_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    import torch

    with pytest.raises(RequestError, match="never downloaded; none was named"):
        find_weights(None)
    with pytest.raises(RequestError, match=r"gone\.pth is not a file"):
        find_weights(tmp_path / "gone.pth")
    slices, path = smooth_slices((2, 1, 64, 64)), tmp_path / "wrong.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(RequestError, match="cannot be read as weights"):
        perceptual_distances(slices, weights=path)
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(
        RequestError, match=r"features\.3\.weight missing instead of \(192, 64, 5, 5"
    ):
        perceptual_distances(slices, weights=path)
