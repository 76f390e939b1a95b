"""Targets and weights for the lower-resolution outputs of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def level_weights(num_levels: int) -> tuple[float, ...]:
    """Return the weight of each output, highest resolution first; they sum to 1.

    Halves from level to level, the lowest output counts nothing (nnU-Net 2.8.1). A network with a
    single output gets weight 1, where nnU-Net divides 0 by 0.
    """
    weights = [0.5**level for level in range(num_levels)]
    if num_levels > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def downsample_targets(
    labels_BZYX: Tensor, weight_BZYX: Tensor, *, factor: Sequence[int], num_values: int
) -> tuple[Tensor, Tensor]:
    """Shrink labels and weights by whole factors so that no annotated voxel is lost.

    A coarse voxel takes the label with the largest weight among the annotated voxels it covers (a
    tie goes to the label at its centre, if that is annotated), and the largest weight. So a patch
    with one annotated voxel has one at every level, wherever it lies; nnU-Net 2.8.1 picks every
    n-th voxel and loses most annotated slices.

    Args:
        labels_BZYX: int64 class indices (or B, Y, X).
        weight_BZYX: float32 weights; 0 is unannotated.
        factor: Whole factor per spatial axis; axes must be divisible by it.
        num_values: Labels are 0 ... num_values - 1.

    Returns:
        Labels (int64) and weights (float32) of the coarse grid.
    """
    factor = tuple(factor)
    if all(step == 1 for step in factor):
        return labels_BZYX, weight_BZYX
    average, maximum = {
        2: (functional.avg_pool2d, functional.max_pool2d),
        3: (functional.avg_pool3d, functional.max_pool3d),
    }[len(factor)]
    middle = (slice(None), *(slice(step // 2, None, step) for step in factor))
    labels_middle, weight_middle = labels_BZYX[middle], weight_BZYX[middle]
    best_score = torch.full(labels_middle.shape, -1.0, device=weight_BZYX.device)
    best_label = torch.zeros_like(labels_middle)
    for value in range(num_values):
        votes = torch.where(labels_BZYX == value, weight_BZYX, 0.0)
        score = average(votes.unsqueeze(1), factor).squeeze(1)
        score = score + 1e-4 * weight_middle * (labels_middle == value)
        better = score > best_score
        best_score = torch.where(better, score, best_score)
        best_label = torch.where(better, value, best_label)
    return best_label, maximum(weight_BZYX.unsqueeze(1), factor).squeeze(1)
