"""Chains change patches as they say, nnU-Net's as often and as much as nnU-Net 2.8.1 does."""

from functools import partial

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import blur_dimension

from sparseunet.errors import RequestError
from sparseunet.training.augmentation import AUGMENTATIONS, load_augmentation
from sparseunet.training.augmentation.chains import (
    light_augmentation,
    nnunet_augmentation,
    no_augmentation,
    z20_augmentation,
    z25_augmentation,
)
from sparseunet.training.augmentation.intensities import (
    apply_bias_field,
    blur,
    change_contrast,
    change_gamma,
    scale_brightness,
)
from sparseunet.training.augmentation.movements import draw_elastic, rotate_and_zoom

DRAWS = 3000
ISOTROPIC, SLAB, SQUARE, LONG = (40, 56, 40), (10, 64, 48), (56, 40), (64, 40)


def _rng(*seed):
    return np.random.default_rng(seed)


def _movements(patch_size, *, make=nnunet_augmentation, mirror_axes=(0, 1, 2)):
    rng, chain = _rng(0), make(patch_size, mirror_axes)
    return [chain.move(rng) for _ in range(DRAWS)]


def _angles_deg(matrix):
    """Angles about the first, second and third axis, or one in 2D, and the zoom."""
    zoom = np.linalg.det(matrix) ** (1 / len(matrix))
    turn = matrix / zoom
    if len(matrix) == 2:
        return np.rad2deg([np.arctan2(turn[1, 0], turn[0, 0])]), zoom
    angles = (
        np.arctan2(turn[2, 1], turn[2, 2]),
        -np.arcsin(np.clip(turn[2, 0], -1, 1)),
        np.arctan2(turn[1, 0], turn[0, 0]),
    )
    return np.rad2deg(angles), zoom


@pytest.mark.parametrize(
    ("patch_size", "dimensions", "largest_deg"),
    [(ISOTROPIC, 3, 30), (SLAB, 2, 180), (SQUARE, 2, 180), (LONG, 2, 15)],
)
def test_patches_rotate_and_zoom_as_often_and_as_far_as_in_nnunet(
    patch_size, dimensions, largest_deg
):
    movements = _movements(patch_size)
    matrices = [movement.matrix for movement in movements if movement.matrix is not None]
    assert len(matrices) / DRAWS == pytest.approx(1 - 0.8 * 0.8, abs=0.03)
    assert {matrix.shape for matrix in matrices} == {(dimensions, dimensions)}
    angles, zooms = zip(*map(_angles_deg, matrices), strict=True)
    angles, zooms = np.array(angles), np.array(zooms)
    rotated = np.abs(angles).max(axis=1) > 1e-6
    zoomed = np.abs(zooms - 1) > 1e-9
    assert rotated.sum() / DRAWS == pytest.approx(0.2, abs=0.025)
    assert zoomed.sum() / DRAWS == pytest.approx(0.2, abs=0.025)
    reach = np.abs(angles[rotated]).max(axis=0)
    assert (reach <= largest_deg + 1e-6).all()
    assert (reach > 0.97 * largest_deg).all()
    assert np.abs(angles[rotated].mean(axis=0)).max() < 0.1 * largest_deg
    assert 0.7 <= zooms[zoomed].min() < 0.72
    assert 1.38 < zooms[zoomed].max() <= 1.4
    for matrix, angle, zoom in zip(matrices[:50], angles, zooms, strict=False):
        again = rotate_and_zoom(np.deg2rad(angle).tolist(), [zoom] * dimensions)
        assert np.allclose(matrix, again)  # isotropic, and no shear


def test_the_matrix_is_that_of_the_library():
    from batchgeneratorsv2.transforms.spatial.spatial import (
        create_affine_matrix_2d,
        create_affine_matrix_3d,
    )

    angles, zooms = [0.3, -0.5, 0.2], [1.1, 0.8, 1.3]
    assert np.allclose(rotate_and_zoom(angles, zooms), create_affine_matrix_3d(angles, zooms))
    expected = create_affine_matrix_2d(0.3, zooms[:2])
    assert np.allclose(rotate_and_zoom([0.3], zooms[:2]), expected)


@pytest.mark.parametrize("make", [nnunet_augmentation, light_augmentation, z25_augmentation])
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2), ()])
def test_each_axis_that_may_be_is_mirrored_in_half_of_the_patches(make, axes):
    movements = _movements(ISOTROPIC, make=make, mirror_axes=axes)
    for axis in range(3):
        share = np.mean([axis in movement.mirrored_axes for movement in movements])
        assert share == pytest.approx(0.5 if axis in axes else 0, abs=0.03)


def test_intensities_change_as_often_as_in_nnunet():
    chain = nnunet_augmentation((6, 6, 6), (0, 1, 2))
    (steps,) = chain.change_intensities.args
    assert [probability for probability, _ in steps] == [0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3]
    image, rng = _rng(1).standard_normal((1, 6, 6, 6)).astype(np.float32), _rng(2)
    same = [np.array_equal(chain.change_intensities(image.copy(), rng), image) for _ in range(1500)]
    # Blur and low resolution take every second channel only.
    expected = 0.9 * (1 - 0.2 / 2) * 0.85 * 0.85 * (1 - 0.25 / 2) * 0.9 * 0.7
    assert np.mean(same) == pytest.approx(expected, abs=0.04)


def test_even_images_show_how_often_and_how_strong_noise_and_brightness_are():
    chain, rng = nnunet_augmentation((8, 8), (0, 1)), _rng(3)
    images = [
        chain.change_intensities(np.full((1, 8, 8), 2, np.float32), rng) for _ in range(DRAWS)
    ]
    deviations = np.array([image.std() for image in images])
    noisy = deviations > 1e-6
    assert noisy.mean() == pytest.approx(0.1, abs=0.02)
    assert 0.03 < np.median(deviations[noisy]) < 0.055  # blur and low resolution take some away
    assert deviations.max() < 0.15
    factors = np.array([image.mean() / 2 for image in images])[~noisy]
    scaled = np.abs(factors - 1) > 1e-6
    assert scaled.mean() == pytest.approx(0.15, abs=0.02)
    assert 0.75 <= factors.min() < 0.77
    assert 1.23 < factors.max() <= 1.2501
    assert np.mean(factors[scaled] < 1) == pytest.approx(0.5, abs=0.08)


def _factor(seed, low, high):
    rng = _rng(seed)
    bounds = (low, 1) if rng.random() < 0.5 else (1, high)
    return float(rng.uniform(*bounds))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 12, 10), (1, 8, 12, 10)])
def test_our_contrast_gamma_and_blur_give_the_images_of_the_library(shape, seed):
    image = _rng(seed, 9).standard_normal(shape).astype(np.float32)

    def library(transform):
        return transform(image=torch.from_numpy(image.copy()))["image"].numpy()

    for inverted in (False, True):
        ours = change_gamma(image.copy(), _rng(seed), inverted=inverted)
        gamma = GammaTransform(
            gamma=_factor(seed, 0.7, 1.5),
            p_invert_image=float(inverted),
            synchronize_channels=False,
            p_per_channel=1,
            p_retain_stats=1,
        )
        assert np.allclose(ours, library(gamma), atol=1e-4)
        assert not np.allclose(ours, image, atol=1e-3)
    contrast = ContrastTransform(
        _factor(seed, 0.75, 1.25), preserve_range=True, synchronize_channels=False
    )
    ours = change_contrast(image.copy(), _rng(seed))
    assert np.allclose(ours, library(contrast), atol=1e-4)
    ours = scale_brightness(image.copy(), _rng(seed))
    assert np.allclose(ours, image * _factor(seed, 0.75, 1.25), atol=1e-5)

    rng, blurred = _rng(seed), torch.from_numpy(image)
    if rng.random() < 0.5:
        for axis in range(len(shape) - 1):
            blurred = blur_dimension(blurred, rng.uniform(0.5, 1), axis)
    assert np.allclose(blur(image.copy(), _rng(seed)), blurred.numpy(), atol=1e-4)


def test_channels_of_one_value_stay_finite():
    for step in (change_gamma, partial(change_gamma, inverted=True), change_contrast, blur):
        changed = step(np.full((2, 6, 6), 3, np.float32), _rng(0))
        assert np.allclose(changed, 3, atol=1e-4)


@pytest.mark.parametrize("patch_size", [ISOTROPIC, SLAB, SQUARE])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_intensities_keep_shape_and_type_and_stay_finite(patch_size, name):
    chain, rng = load_augmentation(name)(patch_size, (0, 1, 2)), _rng(5)
    for _ in range(6):
        image = rng.standard_normal((2, *patch_size), dtype=np.float32)
        changed = chain.change_intensities(image, rng)
        assert changed.shape == (2, *patch_size)
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_decides_everything_and_the_global_random_states_stay(name):
    chain = load_augmentation(name)((16, 20), (0, 1))
    image = _rng(1).standard_normal((1, 16, 20)).astype(np.float32)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    results = []
    for _ in range(2):
        rng = _rng(7)
        results.append([chain.change_intensities(image.copy(), rng) for _ in range(30)])
    assert np.array_equal(*results)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_z20_turns_by_quarters_and_mirrors_in_plane_only():
    movements = _movements(ISOTROPIC, make=z20_augmentation)
    turns = np.bincount([movement.quarter_turns for movement in movements]) / DRAWS
    assert turns == pytest.approx([0.25] * 4, abs=0.03)
    assert {axis for movement in movements for axis in movement.mirrored_axes} == {1, 2}
    assert all(movement.matrix is None and movement.displacement is None for movement in movements)


def test_z25_moves_and_deforms_as_documented():
    movements = _movements((24, 28, 24), make=z25_augmentation)[:600]
    matrices = [movement.matrix for movement in movements if movement.matrix is not None]
    assert len(matrices) / 600 == pytest.approx(0.5, abs=0.07)
    assert all(0.9**3 - 1e-6 <= np.linalg.det(matrix) <= 1.1**3 + 1e-6 for matrix in matrices)
    deformed = [
        movement.displacement for movement in movements if movement.displacement is not None
    ]
    assert len(deformed) / 600 == pytest.approx(0.25, abs=0.06)
    assert {field.shape for field in deformed} == {(3, 24, 28, 24)}


@pytest.mark.parametrize("size", [(24, 40, 30), (48, 64), (5, 30, 30)])
def test_elastic_deformation_is_smooth_and_never_folds(size):
    for seed in range(5):
        field = draw_elastic(size, _rng(seed), control_voxels=12, strength=0.25)
        assert field.shape == (len(size), *size)
        assert np.abs(field).max() > 0.3
        for axis in range(len(size)):
            assert np.diff(field[axis], axis=axis).min() > -1


def test_the_bias_field_is_smooth_and_spares_the_darkest_voxel():
    image = np.ones((1, 20, 24, 22), np.float32)
    image[0, 3, 4, 5] = 0
    changed = apply_bias_field(image.copy(), _rng(4), strength=0.5)
    assert changed[0, 3, 4, 5] == 0
    field = changed[image > 0]
    assert field.std() > 0.02
    assert field.min() > 0
    rough = apply_bias_field(np.where(image > 0, image, 1), _rng(4), strength=0.5)
    assert rough.std() == 0  # nothing lies above the darkest voxel


def test_nothing_happens_without_augmentation():
    chain, rng = no_augmentation(ISOTROPIC, (0, 1, 2)), _rng(0)
    movement = chain.move(rng)
    assert (movement.matrix, movement.displacement, movement.mirrored_axes) == (None, None, ())
    assert rng.random() == _rng(0).random()


def test_chains_are_known_by_name_or_by_the_path_of_a_function():
    assert load_augmentation("nnunet") is nnunet_augmentation
    path = "sparseunet.training.augmentation.chains:z20_augmentation"
    assert load_augmentation(path) is z20_augmentation
    with pytest.raises(RequestError, match="no augmentation 'strong'; choose from nnunet, light"):
        load_augmentation("strong")
