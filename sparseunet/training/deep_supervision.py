"""Targets and weights for the lower-resolution outputs of a network."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional


def level_weights(num_levels: int) -> tuple[float, ...]:
    """Return the weight of each output, highest resolution first; they sum to 1.

    The weight halves from level to level, and the lowest level has weight 0 (nnU-Net 2.8.1). A
    network with a single output gets weight 1, where nnU-Net divides 0 by 0.

    >>> level_weights(3)  # 1, 1/2, 0 divided by their sum
    (0.6666666666666666, 0.3333333333333333, 0.0)
    """
    weights = [0.5**level for level in range(num_levels)]
    if num_levels > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def targets_of_levels(
    labels_BZYX: Tensor,
    weight_BZYX: Tensor,
    *,
    strides: Sequence[Sequence[int]],
    num_values: int,
) -> list[tuple[Tensor, Tensor]]:
    """Shrink labels and weights by whole factors so that no annotated voxel is lost.

    A coarse voxel takes the label with the largest weight among the annotated voxels it covers (a
    tie goes to the label at its centre, if that is annotated), and the largest weight. So a patch
    with one annotated voxel has one at every level, wherever it lies; nnU-Net 2.8.1 picks every
    n-th voxel and loses most annotated slices.

    Args:
        labels_BZYX: int64 class indices (or B, Y, X).
        weight_BZYX: float32 weights; 0 is unannotated.
        strides: Per level the whole factor between it and the level before, for each spatial axis;
            the first level's is between it and the labels. Axes must be divisible.
        num_values: Labels are 0 ... num_values - 1.

    Returns:
        Labels (int64) and weights (float32) on the grid of each level.

    Example, one row of eight voxels, four of them annotated, shrunk by 2 and then again by 2:

        labels          1 1 | 0 2 | 0 0 | 0 3
        weight          1 1 | 1 0 | 0 0 | 0 1
        labels by 2      1     0  |  0     3
        weight by 2      1     1  |  0     1
        labels by 4         1     |     3
        weight by 4         1     |     1

    Label 2 is not annotated and never counts. In the last row label 1 has two votes and 0 has one.
    """
    levels = []
    # Votes are summed from the labels once and then from level to level, so that a coarse level
    # counts voxels of full resolution and not the winners of the level before.
    factor = (1,) * (labels_BZYX.ndim - 1)
    votes_BVZYX: Tensor | None = None
    level_labels, level_weight = labels_BZYX, weight_BZYX
    for stride in strides:
        if any(step > 1 for step in stride):
            factor = tuple(before * step for before, step in zip(factor, stride, strict=True))
            votes_BVZYX = (
                _count_votes(labels_BZYX, weight_BZYX, stride, num_values)
                if votes_BVZYX is None
                else _sum_blocks(votes_BVZYX, stride)
            )
            level_weight = _largest_in_blocks(level_weight, stride)
            level_labels = _label_with_most_votes(votes_BVZYX, labels_BZYX, weight_BZYX, factor)
        levels.append((level_labels, level_weight))
    return levels


def _count_votes(
    labels_BZYX: Tensor, weight_BZYX: Tensor, stride: Sequence[int], num_values: int
) -> Tensor:
    """Return the summed weight of each label in each block, value by value to save memory."""
    return torch.cat(
        [
            _sum_blocks(((labels_BZYX == value) * weight_BZYX).unsqueeze(1), stride)
            for value in range(num_values)
        ],
        dim=1,
    )


def _sum_blocks(values_BVZYX: Tensor, stride: Sequence[int]) -> Tensor:
    """Return the sum over each block of `stride` voxels."""
    average = {2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(stride)]
    summed: Tensor = average(values_BVZYX, tuple(stride), divisor_override=1)
    return summed


def _largest_in_blocks(weight_BZYX: Tensor, stride: Sequence[int]) -> Tensor:
    """Return the maximum over each block of `stride` voxels."""
    largest = {2: functional.max_pool2d, 3: functional.max_pool3d}[len(stride)]
    return largest(weight_BZYX.unsqueeze(1), tuple(stride)).squeeze(1)


def _label_with_most_votes(
    votes_BVZYX: Tensor, labels_BZYX: Tensor, weight_BZYX: Tensor, factor: tuple[int, ...]
) -> Tensor:
    """Return the label with the largest summed weight in each block, int64.

    A tie goes to the label of the voxel at position `factor // 2` of the block if that voxel is
    annotated, else to the smallest label.

    Args:
        votes_BVZYX: Summed weight of each label in each block.
        labels_BZYX: Labels at full resolution.
        weight_BZYX: Weights at full resolution.
        factor: Voxels of a block along each axis.
    """
    middle = (slice(None), *(slice(step // 2, None, step) for step in factor))
    # At most a ten-thousandth of the largest possible vote, so that it only decides ties.
    labels_middle, tie_break = labels_BZYX[middle], 1e-4 * prod(factor) * weight_BZYX[middle]
    best_label = torch.zeros_like(labels_middle)
    best_score = votes_BVZYX[:, 0] + (labels_middle == 0) * tie_break
    for value in range(1, votes_BVZYX.shape[1]):
        score = votes_BVZYX[:, value] + (labels_middle == value) * tie_break
        better = score > best_score
        best_score = torch.maximum(score, best_score)
        best_label.masked_fill_(better, value)
    return best_label
