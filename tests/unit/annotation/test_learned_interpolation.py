"""Learned propagation: what holds for any network, and what training must bring."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from phantoms import blobs, intensities, sphere
from scipy import ndimage

from sparseunet.annotation.interpolation import (
    load_interpolator,
    propagation_scans,
    propagation_training,
)
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.learned import propagate, spread
from sparseunet.annotation.interpolation.propagation_scans import stack_of
from sparseunet.annotation.interpolation.propagation_training import (
    PropagationConfig,
    train_propagation,
)
from sparseunet.annotation.interpolation.shape import interpolate_spline
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_image, write_image
from sparseunet.data.load import load_dataset
from sparseunet.data.synthetic import make_dataset
from sparseunet.errors import RequestError
from sparseunet.networks.propagation import PropagationNetwork

SMALL = PropagationConfig(num_iterations=3, num_slices=3, crop=16, width=4)
QUICK = 1e-3
"""Seconds of training: one iteration."""


def untrained(*, sharpness: float = 10.0, locality: float = 2.0) -> PropagationNetwork:
    """Return a network with random weights; only its normalisation has seen a texture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PropagationNetwork(num_channels=1, width=8, stride=2)
    with torch.no_grad():
        for _ in range(30):
            network(torch.from_numpy(stack_of(scan(texture((4, 48, 48))), 0)))
        network.log_sharpness.fill_(math.log(sharpness))
        network.log_locality.fill_(math.log(locality))
    return network.eval()


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, 1.0, mode="wrap").astype(np.float32)


def scan(voxels_ZYX: np.ndarray, spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Image:
    z, y, x = voxels_ZYX.shape
    return Image(
        voxels_CZYX=voxels_ZYX[None], geometry=Geometry(shape=(z, y, x), spacing_mm=spacing_mm)
    )


def sparse(labels_ZYX: np.ndarray, keep: list[int], axis: int = 0) -> Annotation:
    dense = Annotation.from_label_map(labels_ZYX, ignore=None)
    return hide_slices(dense, keep=keep, axis=axis)


def request(axis: int = 0, **options: object) -> InterpolationRequest:
    return InterpolationRequest(axis=axis, **options)  # type: ignore[arg-type]


def test_the_queue_visits_each_slice_once_and_fills_a_gap_from_both_ends() -> None:
    visits: list[tuple[int, int]] = []

    def carry_mask(mask: str, here: int, there: int) -> str:
        visits.append((here, there))
        return mask

    reached = spread(
        {2: "a", 8: "b"},
        new=range(12),
        steps=(-1, 1),
        carry_mask=carry_mask,
        holds_object=bool,
    )
    assert sorted(there for _, there in visits) == [0, 1, 3, 4, 5, 6, 7, 9, 10, 11]
    assert all(abs(here - there) == 1 for here, there in visits)
    assert {index for index, mask in reached.items() if mask == "a"} == {0, 1, 3, 4, 5}


def test_the_queue_stops_where_the_object_ends_and_leaves_the_rest_to_background() -> None:
    reached = spread(
        {0: 3, 9: 0},
        new=range(1, 9),
        steps=(-1, 1),
        carry_mask=lambda mask, _here, _there: mask - 1,
        holds_object=lambda mask: mask > 0,
    )
    assert reached == {1: 2, 2: 1, 3: 0}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_identical_slices_hand_their_mask_on_unchanged(axis: int) -> None:
    plane, disc = texture((40, 36)), sphere((40, 36), radius_mm=9).astype(np.uint8)
    disc[20:, :] *= 2
    voxels, labels = (np.moveaxis(np.stack([one] * 9), 0, axis) for one in (plane, disc))
    given = sparse(labels, [0, 8], axis)
    network = untrained(sharpness=1e4)
    filled = propagate(scan(voxels), given, network=network, request=request(axis))
    np.testing.assert_array_equal(filled.labels_ZYX, labels)
    assert set(np.unique(filled.source_ZYX)) == {Source.MANUAL, Source.INTERPOLATED}


def test_masks_move_with_what_the_scan_shows() -> None:
    shifts = range(0, 14, 2)
    plane, disc = texture((48, 64)), sphere((48, 64), center=(24, 24), radius_mm=8).astype(np.uint8)
    voxels = np.stack([np.roll(plane, shift, 1) for shift in shifts])
    labels = np.stack([np.roll(disc, shift, 1) for shift in shifts])
    given = sparse(labels, [0, 6])
    sharp = untrained(sharpness=1e4, locality=1e-3)
    moved = propagate(scan(voxels), given, network=sharp, request=request()).labels_ZYX
    stuck = untrained(sharpness=0.01, locality=1000)
    unmoved = propagate(scan(voxels), given, network=stuck, request=request()).labels_ZYX
    np.testing.assert_array_equal(moved, labels)
    assert dice(unmoved[3], labels[3]) < 0.7


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("blended", [False, True])
def test_what_is_annotated_stays_and_classes_come_from_the_ends(
    axis: int, *, blended: bool
) -> None:
    labels_ZYX = blobs((17, 26, 22), seed=1, num_classes=3)
    voxels_ZYX = intensities(labels_ZYX, seed=2)
    ends = np.moveaxis(labels_ZYX, axis, 0)
    ends[8:][ends[8:] == 3] = 0
    given = sparse(labels_ZYX, [2, 7, 11, 15], axis)
    given.labels_ZYX[5, 9, 13], given.source_ZYX[5, 9, 13] = 3, Source.MANUAL
    image = scan(voxels_ZYX, (2.0, 1.0, 1.5))
    prior = interpolate_spline(image, given, request=request(axis)) if blended else None
    filled = propagate(image, given, network=untrained(), request=request(axis), prior=prior)
    there = given.annotated_ZYX
    np.testing.assert_array_equal(filled.labels_ZYX[there], given.labels_ZYX[there])
    np.testing.assert_array_equal(filled.source_ZYX[there], given.source_ZYX[there])
    assert (filled.source_ZYX[~there] == Source.INTERPOLATED).all()
    assert filled.confidence_ZYX is not None
    assert (filled.confidence_ZYX[there] == 1).all()
    assert 0 <= filled.confidence_ZYX.min() <= filled.confidence_ZYX.max() <= 1
    slices, free = np.moveaxis(filled.labels_ZYX, axis, 0), np.moveaxis(~there, axis, 0)
    for low, high in ((2, 7), (7, 11), (11, 15)):
        between = slices[low + 1 : high][free[low + 1 : high]]
        assert set(np.unique(between)) <= {0, *np.unique(ends[[low, high]])}


def test_an_image_turned_upside_down_gives_the_result_upside_down() -> None:
    labels_ZYX = blobs((13, 24, 24), seed=3)
    image, given = scan(intensities(labels_ZYX, seed=0)), sparse(labels_ZYX, [1, 6, 11])
    turned = sparse(labels_ZYX[::-1], [1, 6, 11])
    network = untrained()
    one = propagate(image, given, network=network, request=request())
    other = propagate(
        scan(image.voxels_CZYX[0, ::-1].copy()), turned, network=network, request=request()
    )
    assert np.mean(one.labels_ZYX != other.labels_ZYX[::-1]) < 1e-3  # float sums in another order


def test_spacing_scaled_by_ten_changes_nothing() -> None:
    labels_ZYX = blobs((9, 24, 20), seed=4)
    voxels_ZYX, given = intensities(labels_ZYX, seed=0), sparse(labels_ZYX, [0, 4, 8])
    near, far = (
        propagate(scan(voxels_ZYX, spacing), given, network=untrained(), request=request())
        for spacing in ((3.0, 1.0, 1.5), (30.0, 10.0, 15.0))
    )
    assert np.mean(near.labels_ZYX != far.labels_ZYX) < 1e-3  # float rounding of distances


def test_an_object_ends_before_a_slice_that_was_reviewed_as_empty() -> None:
    labels_ZYX = np.zeros((11, 24, 24), np.uint8)
    labels_ZYX[:3, 8:16, 8:16] = 1
    given = sparse(labels_ZYX, [0, 10])
    image = scan(np.full(labels_ZYX.shape, 1.0, np.float32))
    filled = propagate(image, given, network=untrained(), request=request()).labels_ZYX
    areas = filled.sum(axis=(1, 2))
    assert areas[1] > 0
    assert not areas[8:].any()
    assert (np.diff(areas.astype(int)) <= 0).all()


def test_without_any_object_everything_becomes_background() -> None:
    given = sparse(np.zeros((7, 12, 12), np.uint8), [3])
    filled = propagate(scan(texture((7, 12, 12))), given, network=untrained(), request=request())
    assert filled.is_dense
    assert not filled.labels_ZYX.any()


def test_scaling_depends_on_no_label_and_survives_constant_channels() -> None:
    stack = stack_of(scan(np.full((3, 4, 5), 7, np.float32)), 1)
    assert stack.shape == (4, 1, 3, 5)
    assert np.isfinite(stack).all()


def test_training_lowers_the_error_of_reconstruction() -> None:
    balls = [sphere((12, 24, 24), center=(6, 12, place), radius_mm=8) for place in (9, 12, 15)]
    stacks = [stack_of(scan(intensities(ball.astype(np.uint8), seed=0)), 0) for ball in balls]
    config = PropagationConfig(num_iterations=40, num_slices=4, crop=24, width=4, carried_share=0)
    _, losses = train_propagation(stacks, radii=[(4, 4)] * 3, config=config, seed=0, device="cpu")
    assert len(losses) == 40
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    stacks = [stack_of(scan(texture((6, 20, 20))), 0)]

    def weights(seed: int) -> bytes:
        network, _ = train_propagation(
            stacks, radii=[(3, 3)], config=SMALL, seed=seed, device="cpu"
        )
        return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())

    assert weights(1) == weights(1) != weights(2)


def test_the_time_budget_takes_the_place_of_the_number_of_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count(step=0.1)  # a clock on which every look takes a tenth of a second
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(propagation_training, "time", clock)
    stacks = [stack_of(scan(texture((6, 20, 20))), 0)]
    _, losses = train_propagation(
        stacks, radii=[(3, 3)], config=SMALL, seed=0, device="cpu", time_budget_s=2.0
    )
    assert len(losses) == 20 != SMALL.num_iterations


@pytest.mark.parametrize("method", ["learned", "combined"])
def test_what_was_trained_is_kept_and_used_again(tmp_path: Path, method: str) -> None:
    labels_ZYX = blobs((7, 20, 20), seed=5)
    image, given = scan(intensities(labels_ZYX, seed=0)), sparse(labels_ZYX, [0, 3, 6])
    asked = request(time_budget_s=QUICK, cache=tmp_path)
    first = load_interpolator(method)(image, given, request=asked)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    second = load_interpolator(method)(image, given, request=asked)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [written]
    np.testing.assert_array_equal(first.labels_ZYX, second.labels_ZYX)
    brighter = scan(image.voxels_CZYX[0] + 1)
    load_interpolator(method)(brighter, given, request=asked)
    assert len(list(tmp_path.iterdir())) == 2


def test_one_network_is_trained_on_the_scans_of_a_dataset_for_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_Synthetic"
    make_dataset(folder, num_training=3, num_test=0)
    dataset = load_dataset(folder)
    asked = request(scans=dataset.cases, time_budget_s=QUICK, cache=tmp_path / "cache")
    for seed in (0, 1):
        labels_ZYX = blobs((7, 20, 20), seed=seed)
        image, given = scan(intensities(labels_ZYX, seed=0)), sparse(labels_ZYX, [0, 6])
        assert load_interpolator("learned")(image, given, request=asked).is_dense
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_scans_of_one_slice_are_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_Synthetic"
    make_dataset(folder, num_training=2, num_test=0)
    for path in (folder / "imagesTr").iterdir():
        volume = read_image([path])
        plane = replace(volume.geometry, shape=(1, *volume.geometry.shape[1:]))
        write_image(path, volume.voxels_CZYX[0, :1], plane)
    cases = load_dataset(folder).cases
    labels_ZYX = blobs((7, 20, 20), seed=5)
    image, given = scan(intensities(labels_ZYX, seed=0)), sparse(labels_ZYX, [0, 6])
    with pytest.raises(RequestError, match="two slices across axis 0"):
        load_interpolator("learned")(image, given, request=request(scans=cases))


def test_dense_labels_and_labels_without_a_complete_slice_stay_as_they_are_untrained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(propagation_scans, "train_propagation")  # it must not be called
    labels_ZYX = blobs((7, 20, 20), seed=5)
    image = scan(intensities(labels_ZYX, seed=0))
    for given in (sparse(labels_ZYX, list(range(7))), sparse(labels_ZYX, [])):
        assert load_interpolator("learned")(image, given, request=request()) is given


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.sum((one > 0) & (other > 0)) / (np.sum(one > 0) + np.sum(other > 0)))
