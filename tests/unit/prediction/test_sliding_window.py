"""Patches cover the scan, and blending them changes nothing that does not depend on the patch."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.prediction.memory import MemoryLimit
from sparseunet.prediction.sliding_window import Tiling, sliding_window, tile_starts, tile_weights

CPU = torch.device("cpu")
PATCHES = [(8, 12, 6), (12, 6)]


def sliding_window_logits(network, image, *, num_outputs, device=CPU, memory=None, **tiling):
    """The whole scan at once."""
    planes = sliding_window(
        network,
        image,
        tiling=Tiling(**tiling),
        num_outputs=num_outputs,
        device=device,
        memory=memory,
    )
    return torch.cat(list(planes), dim=1)


def _scan(shape=(11, 17, 6), channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


def _smooth(patches):
    """Mean over the neighbours of every voxel: looks the same from both sides of every axis."""
    pool = torch.nn.functional.avg_pool3d if patches.dim() == 5 else torch.nn.functional.avg_pool2d
    return pool(patches, 3, stride=1, padding=1)


@pytest.mark.parametrize(
    ("size", "patch", "step", "expected"),
    [
        (40, 40, 0.5, (0,)),
        (41, 40, 0.5, (0, 1)),
        (128, 64, 0.5, (0, 32, 64)),
        (100, 64, 0.5, (0, 18, 36)),
        (90, 40, 0.5, (0, 17, 33, 50)),
        (100, 40, 1.0, (0, 30, 60)),
        (11, 6, 0.5, (0, 2, 5)),
    ],
)
def test_patches_start_where_nnunets_do(size, patch, step, expected):
    assert tile_starts(size, patch, step=step) == expected


@given(
    patch=st.integers(1, 60), more=st.integers(0, 200), step=st.floats(0.05, 1.0, exclude_min=False)
)
def test_patches_cover_an_axis_end_to_end_with_the_overlap_that_was_asked_for(patch, more, step):
    size = patch + more
    starts = tile_starts(size, patch, step=step)
    assert starts[0] == 0
    assert starts[-1] == size - patch
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(gap <= max(1, np.ceil(step * patch)) for gap in gaps)
    assert all(gap >= 0 for gap in gaps)


@given(patch=st.integers(1, 60), more=st.integers(0, 200), step=st.floats(0.1, 1.0))
def test_weights_of_every_voxel_are_positive_and_sum_to_one(patch, more, step):
    starts = tile_starts(patch + more, patch, step=step)
    total = np.zeros(patch + more)
    for start, weights in zip(starts, tile_weights(patch + more, patch, starts), strict=True):
        assert (weights > 0).all()
        total[start : start + patch] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_overlapping_patches_are_weighed_by_a_gaussian_of_an_eighth_of_the_patch():
    first, second = tile_weights(48, 32, (0, 16))
    voxel = 20  # 4 from the centre of the first patch, 12 from the centre of the second
    expected = np.exp(-0.5 * (4 / 4) ** 2) / np.exp(-0.5 * (12 / 4) ** 2)
    assert first[voxel] / second[voxel - 16] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("shape", [(11, 17, 6), (3, 40, 5), (8, 12, 6), (1, 1, 1)])
def test_a_constant_network_gives_its_constant_everywhere(patch_size, shape):
    constants = torch.tensor([3.0, -0.25, 1e4])

    def network(patches):
        size = (len(patches), 3, *patches.shape[2:])
        return constants.reshape(1, 3, *(1,) * (patches.dim() - 2)).expand(size)

    logits = sliding_window_logits(
        network, _scan(shape), patch_size=patch_size, num_outputs=3, mirror_axes=(0, 1), device=CPU
    )
    assert logits.shape == (3, *shape)
    expected = constants.reshape(3, 1, 1, 1).expand(logits.shape)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("mirror_axes", [(), (0,), (0, 1)])
@pytest.mark.parametrize("tile_batch_size", [1, 3, 64])
def test_an_identity_network_reproduces_the_scan(patch_size, mirror_axes, tile_batch_size):
    image = _scan()
    logits = sliding_window_logits(
        torch.clone,
        image,
        patch_size=patch_size,
        num_outputs=2,
        mirror_axes=mirror_axes,
        device=CPU,
        batch_size=tile_batch_size,
    )
    torch.testing.assert_close(logits, torch.from_numpy(image), rtol=1e-5, atol=1e-6)


def test_a_scan_of_one_patch_is_returned_exactly_as_the_network_says():
    image = _scan((7, 9, 6))
    logits = sliding_window_logits(
        torch.tanh, image, patch_size=(8, 12, 6), num_outputs=2, device=CPU
    )
    assert torch.equal(logits, torch.tanh(torch.from_numpy(image)))


@pytest.mark.parametrize("step", [0.25, 0.5, 1.0])
def test_tiling_changes_nothing_for_a_network_without_neighbourhood(step):
    image = _scan((13, 25, 9))

    def network(patches):
        return torch.stack((patches[:, 0] * patches[:, 1], patches.sum(1).sin()), dim=1)

    whole = network(torch.from_numpy(image)[None])[0]
    tiled = sliding_window_logits(
        network, image, patch_size=(8, 12, 6), num_outputs=2, step=step, device=CPU
    )
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_mirroring_changes_nothing_for_a_network_that_does_not_know_left_from_right(patch_size):
    def predict(mirror_axes):
        return sliding_window_logits(
            _smooth,
            _scan(),
            patch_size=patch_size,
            num_outputs=2,
            mirror_axes=mirror_axes,
            device=CPU,
        )

    every_axis = tuple(range(len(patch_size)))
    torch.testing.assert_close(predict(()), predict(every_axis), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_passes_are_mirrored_back_before_the_mean(axis):
    ramp = torch.arange(8.0).reshape([8 if other == axis else 1 for other in range(3)])

    def network(patches):
        return ramp.expand(patches[:, :1].shape)

    def predict(mirror_axes):
        return sliding_window_logits(
            network,
            np.zeros((1, 8, 8, 8), np.float32),
            patch_size=(8, 8, 8),
            num_outputs=1,
            mirror_axes=mirror_axes,
            device=CPU,
        )

    assert torch.equal(predict(())[0], ramp.expand(8, 8, 8))
    others = tuple(other for other in range(3) if other != axis)
    assert torch.equal(predict(others)[0], ramp.expand(8, 8, 8))
    assert torch.equal(predict((axis,))[0], torch.full((8, 8, 8), 3.5))


def test_the_batch_size_changes_no_bit():
    answers = [
        sliding_window_logits(
            torch.tanh,
            _scan(),
            patch_size=(8, 12, 6),
            num_outputs=2,
            mirror_axes=(0, 1, 2),
            device=CPU,
            batch_size=tile_batch_size,
        )
        for tile_batch_size in (1, 5, 100)
    ]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_a_2d_patch_sees_every_slice_and_slices_are_batched():
    seen = []

    def network(patches):
        seen.append(tuple(patches.shape))
        return patches

    sliding_window_logits(
        network,
        _scan((10, 12, 6)),
        patch_size=(12, 6),
        num_outputs=2,
        device=CPU,
        batch_size=4,
    )
    assert seen == [(4, 2, 12, 6), (4, 2, 12, 6), (2, 2, 12, 6)]


def test_a_small_scan_is_padded_with_zeros_on_both_sides():
    seen = []

    def network(patches):
        seen.append(patches.clone())
        return patches

    image = np.ones((1, 3, 4, 6), np.float32)
    sliding_window_logits(network, image, patch_size=(6, 8, 6), num_outputs=1, device=CPU)
    expected = torch.zeros(1, 1, 6, 8, 6)
    expected[:, :, 1:4, 2:6] = 1
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("shape", [(31, 17, 6), (3, 40, 5), (8, 12, 6)])
@pytest.mark.parametrize("tile_batch_size", [1, 7])
def test_logits_in_a_file_are_those_in_memory_bit_for_bit(
    patch_size, shape, tile_batch_size, tmp_path
):
    def predict(memory):
        return sliding_window_logits(
            torch.tanh,
            _scan(shape),
            patch_size=patch_size,
            num_outputs=2,
            mirror_axes=(0, 1),
            device=CPU,
            batch_size=tile_batch_size,
            memory=memory,
        )

    in_file = predict(MemoryLimit(max_bytes=1, folder=tmp_path))
    assert torch.equal(predict(None), in_file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("patch_size", PATCHES)
def test_planes_are_handed_on_before_the_end_of_the_scan_is_predicted(patch_size):
    num_calls, seen = [0], []

    def network(patches):
        num_calls[0] += 1
        return patches

    for planes in sliding_window(
        network,
        _scan((64, 12, 6)),
        tiling=Tiling(patch_size=patch_size),
        num_outputs=2,
        device=CPU,
    ):
        seen += [num_calls[0]] * planes.shape[1]
    assert len(seen) == 64
    assert seen[0] < num_calls[0] / 4
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step"),
        ({"step": 1.5}, "step"),
        ({"step": float("nan")}, "step"),
        ({"mirror_axes": (3,)}, "from 0 to 2"),
        ({"patch_size": (4,)}, "2 or 3"),
        ({"patch_size": (4, 0, 4)}, "positive"),
        ({"batch_size": 0}, "at least one"),
        ({"num_outputs": 5}, "channels"),
    ],
)
def test_arguments_out_of_range_are_refused_with_the_range(arguments, message):
    usual = {"patch_size": (8, 12, 6), "num_outputs": 2, "device": CPU}
    with pytest.raises(ValueError, match=message):
        sliding_window_logits(torch.clone, _scan(), **(usual | arguments))


def test_an_axis_shorter_than_the_patch_has_no_tiles():
    with pytest.raises(ValueError, match="pad the axis first"):
        tile_starts(5, 6, step=0.5)
