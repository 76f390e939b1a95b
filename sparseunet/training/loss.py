"""The loss over annotated voxels only; dense labels are the case in which all weights are 1.

Every function takes class indices with a weight per voxel, trust[source] · confidence. A voxel of
weight 0 is not annotated: it changes neither the value nor the gradient (Çiçek 2016; Z20 eq. 2;
Z25 §2.2). A batch without annotation gives exactly 0 with zero gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_SMOOTH = 1e-5


def dice_cross_entropy(
    logits_BKZYX: Tensor, labels_BZYX: Tensor, weight_BZYX: Tensor, *, batch_dice: bool
) -> Tensor:
    """Return cross-entropy minus soft Dice over annotated voxels (nnU-Net 2.8.1's default loss).

    Args:
        logits_BKZYX: Raw output, one channel per class, float32. 2D outputs (B, K, Y, X) work too.
        labels_BZYX: Class index per voxel, int64. Anything valid where the weight is 0.
        weight_BZYX: Trust in each label, float32 in [0, 1].
        batch_dice: One Dice per class over the whole batch instead of one per class and sample.

    Returns:
        Scalar. Exactly 0 if nothing in the batch is annotated.
    """
    cross_entropy_BZYX = functional.cross_entropy(logits_BKZYX, labels_BZYX, reduction="none")
    cross_entropy = _weighted_mean(cross_entropy_BZYX, weight_BZYX)
    target_BKZYX = torch.zeros_like(logits_BKZYX).scatter_(1, labels_BZYX.unsqueeze(1), 1.0)
    probability_BKZYX = logits_BKZYX.softmax(dim=1)
    dice = soft_dice(
        probability_BKZYX[:, 1:], target_BKZYX[:, 1:], weight_BZYX, batch_dice=batch_dice
    )
    return cross_entropy - dice


def dice_binary_cross_entropy(
    logits_BKZYX: Tensor, target_BKZYX: Tensor, weight_BZYX: Tensor, *, batch_dice: bool
) -> Tensor:
    """Return binary cross-entropy minus soft Dice for overlapping regions (sigmoid per region).

    Args:
        logits_BKZYX: Raw output, one channel per region, float32.
        target_BKZYX: 1 where the voxel is in the region, else 0, float32.
        weight_BZYX: Trust in each label, float32 in [0, 1].
        batch_dice: One Dice per region over the whole batch.

    Returns:
        Scalar. Exactly 0 if nothing in the batch is annotated.
    """
    cross_entropy_BKZYX = functional.binary_cross_entropy_with_logits(
        logits_BKZYX, target_BKZYX, reduction="none"
    )
    cross_entropy = _weighted_mean(cross_entropy_BKZYX.mean(dim=1), weight_BZYX)
    dice = soft_dice(logits_BKZYX.sigmoid(), target_BKZYX, weight_BZYX, batch_dice=batch_dice)
    return cross_entropy - dice


def soft_dice(
    probability_BKZYX: Tensor, target_BKZYX: Tensor, weight_BZYX: Tensor, *, batch_dice: bool
) -> Tensor:
    """Return the mean soft Dice of the given channels over annotated voxels.

    Samples without annotation are left out of the mean; without any annotation the result is 0.
    """
    space = tuple(range(2, probability_BKZYX.ndim))
    weight_B1ZYX = weight_BZYX.unsqueeze(1)
    weighted_BKZYX = probability_BKZYX * weight_B1ZYX
    intersection_BK = (weighted_BKZYX * target_BKZYX).sum(space)
    total_BK = weighted_BKZYX.sum(space) + (target_BKZYX * weight_B1ZYX).sum(space)
    annotated_B = weight_BZYX.flatten(1).amax(dim=1) > 0
    if batch_dice:
        intersection_BK, total_BK = (
            intersection_BK.sum(0, keepdim=True),
            total_BK.sum(0, keepdim=True),
        )
        annotated_B = annotated_B.any().unsqueeze(0)
    dice_BK = (2 * intersection_BK + _SMOOTH) / (total_BK + _SMOOTH)
    counted_B1 = annotated_B.to(dice_BK.dtype).unsqueeze(1)
    return (dice_BK * counted_B1).sum() / (counted_B1.sum().clamp_min(1) * dice_BK.shape[1])


def region_targets(
    labels_BZYX: Tensor, regions: Sequence[Sequence[int]], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return 1 where a voxel's label belongs to a region, shape (B, regions, Z, Y, X)."""
    return torch.stack(
        [torch.isin(labels_BZYX, labels_BZYX.new_tensor(values)) for values in regions], dim=1
    ).to(dtype)


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum()
    # Dividing by 1 where nothing is annotated keeps the value at 0 instead of 0/0.
    return (values * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))
