"""The chains by name. Each function takes the patch size and the axes that may be mirrored."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from sparseunet.training.augmentation import Augmentation, Movement
from sparseunet.training.augmentation.intensities import (
    apply_bias_field,
    apply_steps,
    blur,
    change_contrast,
    change_gamma,
    library_low_resolution,
    library_noise,
    scale_brightness,
    unchanged_intensities,
)
from sparseunet.training.augmentation.movements import (
    draw_axes,
    draw_elastic,
    draw_nnunet_movement,
    rotate_and_zoom,
)
from sparseunet.training.cascade import disturb_labels, unchanged


def no_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return patches as they are."""
    del patch_size, mirror_axes
    return Augmentation(
        move=_stay, change_intensities=unchanged_intensities, disturb_previous_stage=unchanged
    )


def nnunet_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return nnU-Net 2.8.1's default chain: space, noise, blur, contrast, gamma, mirror.

    Strongly anisotropic 3D patches (more than 3 to 1) rotate and zoom in plane only, by any angle;
    others by up to 30° about each axis. 2D patches rotate by any angle, elongated ones (more than
    1.5 to 1) by up to 15°.
    """
    slab = _is_slab(patch_size)
    if len(patch_size) == 3:
        angle_rad = np.pi if slab else np.deg2rad(30)
    else:
        angle_rad = np.deg2rad(15) if max(patch_size) / min(patch_size) > 1.5 else np.pi
    steps = (
        (0.1, library_noise()),
        (0.2, blur),
        (0.15, scale_brightness),
        (0.15, change_contrast),
        (0.25, library_low_resolution(in_plane=slab)),
        (0.1, partial(change_gamma, inverted=True)),
        (0.3, change_gamma),
    )
    return Augmentation(
        move=partial(
            draw_nnunet_movement,
            len(_moving_sizes(patch_size)),
            float(angle_rad),
            _axes_of(patch_size, mirror_axes),
        ),
        change_intensities=partial(apply_steps, steps),
        disturb_previous_stage=disturb_labels,
    )


def light_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return mirroring, brightness, contrast and gamma as in nnU-Net's chain, nothing else.

    Nothing is interpolated: the cheapest chain, for slow processors.
    """
    steps = (
        (0.15, scale_brightness),
        (0.15, change_contrast),
        (0.1, partial(change_gamma, inverted=True)),
        (0.3, change_gamma),
    )
    return Augmentation(
        move=partial(_mirror, _axes_of(patch_size, mirror_axes)),
        change_intensities=partial(apply_steps, steps),
        disturb_previous_stage=disturb_labels,
    )


def z25_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return what Z25 names: bias field, elastic deformation, affine maps, flips.

    The paper gives no numbers; these are ours. Affine, probability 0.5: up to 10° about each axis,
    zoom 0.9 to 1.1 along each axis. Elastic, 0.25: control points at least 12 voxels apart, shifted
    by up to a quarter of that. Bias field, 0.25: coefficients up to 0.5. Flips, 0.5 per axis.
    Strongly anisotropic 3D patches move in plane only.
    """
    return Augmentation(
        move=partial(
            _draw_z25_movement, _moving_sizes(patch_size), _axes_of(patch_size, mirror_axes)
        ),
        change_intensities=_change_z25_intensities,
        disturb_previous_stage=disturb_labels,
    )


def z20_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return what Z20 trains with: flips in the axial plane and turns by 90° in it.

    Voxels are moved, never interpolated.
    """
    in_plane = {len(patch_size) - 2, len(patch_size) - 1}
    axes = tuple(axis for axis in mirror_axes if axis in in_plane)
    return Augmentation(
        move=partial(_draw_z20_movement, axes),
        change_intensities=unchanged_intensities,
        disturb_previous_stage=disturb_labels,
    )


def _is_slab(patch_size: Sequence[int]) -> bool:
    return len(patch_size) == 3 and max(patch_size) / patch_size[0] > 3


def _moving_sizes(patch_size: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of the axes that rotate."""
    return tuple(patch_size[1:] if _is_slab(patch_size) else patch_size)


def _axes_of(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in mirror_axes if axis < len(patch_size))


def _stay(rng: np.random.Generator) -> Movement:
    del rng
    return Movement()


def _mirror(axes: tuple[int, ...], rng: np.random.Generator) -> Movement:
    return Movement(mirrored_axes=draw_axes(axes, rng))


def _draw_z25_movement(
    sizes: tuple[int, ...], mirror_axes: tuple[int, ...], rng: np.random.Generator
) -> Movement:
    matrix = displacement = None
    moved, deformed = rng.random(2) < (0.5, 0.25)
    if moved:
        angles = rng.uniform(-np.deg2rad(10), np.deg2rad(10), 3 if len(sizes) == 3 else 1)
        matrix = rotate_and_zoom(angles.tolist(), rng.uniform(0.9, 1.1, len(sizes)).tolist())
    if deformed:
        displacement = draw_elastic(sizes, rng, control_voxels=12, strength=0.25)
    return Movement(
        matrix=matrix, displacement=displacement, mirrored_axes=draw_axes(mirror_axes, rng)
    )


def _change_z25_intensities(image_CZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.25:
        return apply_bias_field(image_CZYX, rng, strength=0.5)
    return image_CZYX


def _draw_z20_movement(mirror_axes: tuple[int, ...], rng: np.random.Generator) -> Movement:
    turns = int(rng.integers(4))
    return Movement(quarter_turns=turns, mirrored_axes=draw_axes(mirror_axes, rng))
