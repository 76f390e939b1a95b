"""Random changes of training patches: nnU-Net 2.8.1's chain, built from batchgeneratorsv2.

Labels and weights travel as a two-channel float32 "segmentation" and are always sampled from the
nearest voxel, so that a weight of 0 (unannotated) never mixes with its neighbours and no label
moves further than half a voxel. What a transform brings in from outside the patch has weight 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseunet.training.cascade import disturb_labels, unchanged

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(image_CZYX, target_CZYX), both of the loader's patch size, to the same of the
network's patch size. The channels of the target are label, weight, inside and, in a cascade, label
of the previous stage; where asked for, the last ones are missing."""

_LARGEST_ZOOM_ROOM = 0.85
"""The loader's patch leaves room for this zoom (nnU-Net 2.8.1's value)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How patches are changed, and how large a patch must be read for that."""

    loader_patch_size: tuple[int, ...]
    """Patch to read, so that rotated and zoomed patches have few empty corners."""
    apply: Augment
    disturb_previous_stage: Callable[[np.ndarray, np.random.Generator], np.ndarray] = unchanged
    """Changes what the previous stage of a cascade predicted, on the network's patch."""


def no_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return patches as they are."""
    del mirror_axes
    return Augmentation(
        loader_patch_size=tuple(patch_size),
        apply=lambda image_CZYX, target_CZYX: (image_CZYX, target_CZYX),
    )


def nnunet_augmentation(patch_size: Sequence[int], mirror_axes: Sequence[int]) -> Augmentation:
    """Return nnU-Net 2.8.1's default chain: space, noise, blur, contrast, gamma, mirror.

    Strongly anisotropic 3D patches (more than 3 to 1) rotate and zoom in plane only.
    """
    size = tuple(patch_size)
    slab = len(size) == 3 and max(size) / size[0] > 3
    rotation, rotated_size = _rotation_room(size[1:] if slab else size, in_plane=slab)
    loader_size = (size[0], *rotated_size) if slab else rotated_size
    spatial = _spatial(size[1:] if slab else size, rotation)
    others = _intensity_chain(slab=slab)
    mirror = _mirror(tuple(axis for axis in mirror_axes if axis < len(size)))

    def apply(image_CZYX: Tensor, target_CZYX: Tensor) -> tuple[Tensor, Tensor]:
        patch = {"image": image_CZYX, "segmentation": target_CZYX}
        patch = _in_plane(spatial, patch) if slab else spatial(**patch)
        patch = mirror(**others(**patch))
        return patch["image"], patch["segmentation"]

    return Augmentation(
        loader_patch_size=loader_size, apply=apply, disturb_previous_stage=disturb_labels
    )


AUGMENTATIONS: dict[str, Callable[[Sequence[int], Sequence[int]], Augmentation]] = {
    "nnunet": nnunet_augmentation,
    "none": no_augmentation,
}


def _rotation_room(size: tuple[int, ...], *, in_plane: bool) -> tuple[float, tuple[int, ...]]:
    """Return the largest rotation and the patch that holds every rotated, zoomed patch."""
    if len(size) == 3:
        angle = np.deg2rad(30)
    else:
        elongated = max(size) / min(size) > 1.5 and not in_plane
        angle = np.deg2rad(15) if elongated else np.pi
    reach = min(angle, np.pi / 2)
    room = np.array(size, float)
    for first in range(len(size)):
        for second in range(len(size)):
            if first != second:
                steps = np.linspace(0, reach, 91)
                extent = np.cos(steps) * size[first] + np.sin(steps) * size[second]
                room[first] = max(room[first], extent.max())
    return float(angle), tuple(int(np.ceil(extent / _LARGEST_ZOOM_ROOM)) for extent in room)


def _spatial(size: tuple[int, ...], angle: float) -> Callable[..., dict[str, Tensor]]:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    return SpatialTransform(
        size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=0.2,
        rotation=(-angle, angle),
        p_scaling=0.2,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest",
        border_mode_seg="zeros",
    )


def _in_plane(
    spatial: Callable[..., dict[str, Tensor]], patch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Apply a 2D transform to all slices of a 3D patch alike, by taking slices for channels."""
    flat = {name: array.flatten(0, 1) for name, array in patch.items()}
    depths = {name: array.shape[:2] for name, array in patch.items()}
    return {name: array.unflatten(0, depths[name]) for name, array in spatial(**flat).items()}


def _intensity_chain(*, slab: bool) -> Callable[..., dict[str, Tensor]]:
    from batchgeneratorsv2.transforms.intensity.brightness import (
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import (
        SimulateLowResolutionTransform,
    )
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    def gamma(*, inverted: bool) -> GammaTransform:
        return GammaTransform(
            gamma=BGContrast((0.7, 1.5)),
            p_invert_image=float(inverted),
            synchronize_channels=False,
            p_per_channel=1,
            p_retain_stats=1,
        )

    chain = [
        (0.1, GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True)),
        (
            0.2,
            GaussianBlurTransform(
                (0.5, 1.0), synchronize_channels=False, synchronize_axes=False, p_per_channel=0.5
            ),
        ),
        (
            0.15,
            MultiplicativeBrightnessTransform(
                BGContrast((0.75, 1.25)), synchronize_channels=False, p_per_channel=1
            ),
        ),
        (
            0.15,
            ContrastTransform(
                BGContrast((0.75, 1.25)),
                preserve_range=True,
                synchronize_channels=False,
                p_per_channel=1,
            ),
        ),
        (
            0.25,
            SimulateLowResolutionTransform(
                scale=(0.5, 1),
                synchronize_channels=False,
                synchronize_axes=True,
                ignore_axes=(0,) if slab else (),
                p_per_channel=0.5,
            ),
        ),
        (0.1, gamma(inverted=True)),
        (0.3, gamma(inverted=False)),
    ]
    return ComposeTransforms([RandomTransform(step, probability) for probability, step in chain])


def _mirror(axes: tuple[int, ...]) -> Callable[..., dict[str, Tensor]]:
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

    return MirrorTransform(allowed_axes=axes)


def seed_everything(seed: int) -> None:
    """Set the global random states that batchgeneratorsv2 draws from."""
    # The library has no generator argument; workers seed it anew before every patch.
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
