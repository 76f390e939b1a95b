"""Augmentation never makes an unannotated voxel look annotated."""

import numpy as np
import pytest
import torch

from sparseunet.training.augmentation import AUGMENTATIONS, nnunet_augmentation, seed_everything


def _patch(size, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, *size, generator=generator)
    labels = torch.randint(0, 3, size, generator=generator).float()
    weight = torch.zeros(size)
    weight[size[0] // 2] = 0.25
    labels[weight == 0] = 0
    return image, torch.stack([labels, weight, torch.ones(size)])


@pytest.mark.parametrize("patch_size", [(16, 20, 24), (5, 32, 32), (32, 32), (48, 24)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_patches_come_out_at_the_size_of_the_network(patch_size, name):
    augmentation = AUGMENTATIONS[name](patch_size, (0, 1, 2))
    for seed in range(8):
        seed_everything(seed)
        image, target = augmentation.apply(*_patch(augmentation.loader_patch_size, seed=seed))
        assert image.shape == (2, *patch_size)
        assert target.shape == (3, *patch_size)
        assert torch.isfinite(image).all()


@pytest.mark.parametrize("patch_size", [(16, 20, 24), (5, 32, 32)])
def test_weights_and_labels_keep_their_values(patch_size):
    augmentation = nnunet_augmentation(patch_size, (0, 1, 2))
    for seed in range(30):
        seed_everything(seed)
        _, target = augmentation.apply(*_patch(augmentation.loader_patch_size, seed=seed))
        assert set(target[1].unique().tolist()) <= {0.0, 0.25}
        assert set(target[0].unique().tolist()) <= {0.0, 1.0, 2.0}
        assert (target[0][target[1] == 0] == 0).all()


def test_labels_move_with_the_image():
    size = (12, 24, 24)
    augmentation = nnunet_augmentation(size, (0, 1, 2))
    loader_size = augmentation.loader_patch_size
    labels = torch.zeros(loader_size)
    labels[:, : loader_size[1] // 2] = 1
    target = torch.stack([labels, torch.ones(loader_size), torch.ones(loader_size)])
    agreements = []
    for seed in range(20):
        seed_everything(seed)
        image, moved = augmentation.apply(10 * labels.unsqueeze(0), target)
        inside = moved[1] > 0
        midpoint = (image[0][inside].max() + image[0][inside].min()) / 2
        agreements.append(((image[0] > midpoint) == (moved[0] > 0.5))[inside].float().mean())
    assert np.median(agreements) > 0.97


def test_the_same_seed_gives_the_same_patch():
    augmentation = nnunet_augmentation((8, 16, 16), (0, 1, 2))
    results = []
    for _ in range(2):
        seed_everything(7)
        results.append(augmentation.apply(*_patch(augmentation.loader_patch_size)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
