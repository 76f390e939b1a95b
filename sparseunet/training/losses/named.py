"""The losses over annotated voxels; dense labels are the case in which all weights are 1.

Every voxel has a weight, trust[source] · confidence. A voxel of weight 0 is not annotated: it
changes neither the value nor the gradient (Çiçek 2016; Z20 eq. 2; Z25 §2.2). A batch without
annotation gives exactly 0 with zero gradient.

All are put together from two parts. The first is a weighted mean over voxels,

    Σ weight · class weight · f(cross-entropy)  /  Σ weight · class weight

where f makes it cross-entropy, focal or top-k, and the cross-entropy is that of a softmax for
classes and the mean of one sigmoid per region for regions. The second is minus the soft Dice.

Where both stand side by side and few voxels of a batch are annotated, the first is made lighter by
`_weight_beside_dice`: a network that sees one annotated slice of forty otherwise learns for a third
of a training that all is background (documentation/experiments.md, "Which slices").
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sparseunet.training.losses.comparison import Comparison

_SMOOTH = 1e-5
_HARDEST = 10
"""One voxel in so many is the share that top-k keeps: 10 %."""


def dice_cross_entropy(comparison: Comparison) -> Tensor:
    """Return cross-entropy minus soft Dice (nnU-Net 2.8.1's default loss)."""
    return _weight_beside_dice(comparison) * cross_entropy(comparison) + dice(comparison)


def dice_focal(comparison: Comparison) -> Tensor:
    """Return focal loss minus soft Dice (Z25 table 2, ATLAS in 3D)."""
    return _weight_beside_dice(comparison) * focal(comparison) + dice(comparison)


def dice_top_k(comparison: Comparison) -> Tensor:
    """Return cross-entropy of the hardest voxels minus soft Dice of all (nnU-Net 2.8.1)."""
    return _weight_beside_dice(comparison) * top_k(comparison) + dice(comparison)


def cross_entropy(comparison: Comparison) -> Tensor:
    """Return the mean cross-entropy: of the softmax for classes, per sigmoid for regions."""
    return _ratio(*_voxel_losses(comparison), comparison)


def focal(comparison: Comparison) -> Tensor:
    """Return the mean of (1 - p)² · cross-entropy, p the probability of the truth (Lin 2017)."""
    return _ratio(*_voxel_losses(comparison, _focus), comparison)


def top_k(comparison: Comparison) -> Tensor:
    """Return the mean cross-entropy of the hardest 10 % of annotated voxels, at least of one.

    Hardest are those with the largest cross-entropy times trust, so that doubtful labels are not
    the first to be learnt. Processes that share a batch choose each among their own voxels.
    """
    loss_BZYX, weight_BZYX = _voxel_losses(comparison)
    counts_BZYX = weight_BZYX > 0
    hardness_BZYX = loss_BZYX.detach() * comparison.weight_BZYX
    hardness_BZYX = hardness_BZYX / torch.where(counts_BZYX, weight_BZYX, 1.0)
    number = max(1, int(torch.count_nonzero(counts_BZYX)) // _HARDEST)
    places = hardness_BZYX.flatten().topk(number, sorted=False).indices
    return _ratio(loss_BZYX.flatten()[places], weight_BZYX.flatten()[places], comparison)


def dice(comparison: Comparison) -> Tensor:
    """Return minus the mean soft Dice, for classes without background.

    Left out of the mean are samples without annotation, and classes in samples in which they were
    not looked for; over a whole batch such a sample's voxels do not enter the sums of that class.
    """
    probability_BKZYX, target_BKZYX, counted_BK = _scored_channels(comparison)
    space = tuple(range(2, probability_BKZYX.ndim))
    weight_B1ZYX = comparison.weight_BZYX.unsqueeze(1)
    weighted_BKZYX = probability_BKZYX * weight_B1ZYX
    intersection_BK = (weighted_BKZYX * target_BKZYX).sum(space)
    total_BK = weighted_BKZYX.sum(space) + (target_BKZYX * weight_B1ZYX).sum(space)
    if comparison.batch_dice:
        sums_3K = torch.stack((intersection_BK, total_BK, torch.ones_like(total_BK)))
        intersection_K, total_K, num_samples_K = comparison.total((sums_3K * counted_BK).sum(1))
        dice_K = (2 * intersection_K + _SMOOTH) / (total_K + _SMOOTH)
        counted_K = (num_samples_K > 0).to(dice_K.dtype)
        return -(dice_K * counted_K).sum() / counted_K.sum().clamp_min(1)
    dice_BK = (2 * intersection_BK + _SMOOTH) / (total_BK + _SMOOTH)
    sums_2 = torch.stack(((dice_BK * counted_BK).sum(), counted_BK.sum()))
    dice_sum, num_counted = comparison.total(sums_2)
    return -dice_sum / num_counted.clamp_min(1)


def _unchanged(cross_entropy_BZYX: Tensor) -> Tensor:
    return cross_entropy_BZYX


def _focus(cross_entropy_BZYX: Tensor) -> Tensor:
    # The probability of the truth is exp(-cross-entropy), whatever made it.
    return torch.expm1(-cross_entropy_BZYX) ** 2 * cross_entropy_BZYX


def _voxel_losses(
    comparison: Comparison, change: Callable[[Tensor], Tensor] = _unchanged
) -> tuple[Tensor, Tensor]:
    """Return what each voxel adds to the loss, and to what it is divided by: (B, Z, Y, X) both."""
    logits_BKZYX, weight_BZYX = comparison.logits_BKZYX, comparison.weight_BZYX
    if comparison.in_region_BKZYX is None:
        labels_BZYX = comparison.labels_BZYX
        loss_BZYX = change(functional.cross_entropy(logits_BKZYX, labels_BZYX, reduction="none"))
        if comparison.class_weights is not None:
            class_weights_K = logits_BKZYX.new_tensor(comparison.class_weights)
            weight_BZYX = weight_BZYX * class_weights_K[labels_BZYX]
        return loss_BZYX * weight_BZYX, weight_BZYX
    loss_BKZYX = change(
        functional.binary_cross_entropy_with_logits(
            logits_BKZYX, comparison.in_region_BKZYX, reduction="none"
        )
    )
    share_BK = _shares(comparison)
    if share_BK is None:
        return loss_BKZYX.mean(dim=1) * weight_BZYX, weight_BZYX
    space = (1,) * (logits_BKZYX.ndim - 2)
    share_BK11 = share_BK.view(*share_BK.shape, *space)
    loss_BZYX = (loss_BKZYX * share_BK11).mean(dim=1) * weight_BZYX
    return loss_BZYX, weight_BZYX * share_BK11.mean(dim=1)


def _shares(comparison: Comparison) -> Tensor | None:
    """Return how much each region counts in the cross-entropy of each sample; None for 1 each."""
    logits_BKZYX, annotated_BK = comparison.logits_BKZYX, comparison.annotated_BK
    if comparison.class_weights is None:
        return None if annotated_BK is None else annotated_BK.to(logits_BKZYX.dtype)
    share_BK = logits_BKZYX.new_tensor(comparison.class_weights).expand(len(logits_BKZYX), -1)
    return share_BK if annotated_BK is None else share_BK * annotated_BK


def _scored_channels(comparison: Comparison) -> tuple[Tensor, Tensor, Tensor]:
    """Return probability and target (B, K, Z, Y, X) and which samples count for which channel."""
    logits_BKZYX, weight_BZYX = comparison.logits_BKZYX, comparison.weight_BZYX
    if comparison.in_region_BKZYX is not None:
        first = 0
        probability_BKZYX = logits_BKZYX.sigmoid()
        target_BKZYX = comparison.in_region_BKZYX
    else:
        first = 1
        probability_BKZYX = logits_BKZYX.softmax(dim=1)
        target_BKZYX = torch.zeros_like(logits_BKZYX)
        target_BKZYX.scatter_(1, comparison.labels_BZYX.unsqueeze(1), 1.0)
    has_annotation_B = weight_BZYX.flatten(1).amax(dim=1) > 0
    counted_BK = has_annotation_B.unsqueeze(1).expand(logits_BKZYX.shape[:2])
    if comparison.annotated_BK is not None:
        counted_BK = counted_BK & comparison.annotated_BK
    counted_BK = counted_BK[:, first:].to(logits_BKZYX.dtype)
    return probability_BKZYX[:, first:], target_BKZYX[:, first:], counted_BK


def _weight_beside_dice(comparison: Comparison) -> Tensor:
    """Return the weight of a mean over annotated voxels beside the Dice of the same voxels.

    It is 1 if the batch is annotated to `enough_annotated` or more, as every dense batch is, and
    falls in proportion to the annotated share below. Example: 2.5 % of the voxels are annotated and
    a quarter is enough; the cross-entropy weighs a tenth.
    """
    weight_BZYX = comparison.weight_BZYX
    num_voxels = weight_BZYX.new_tensor(float(weight_BZYX.numel()))
    annotated, voxels = comparison.total(torch.stack((weight_BZYX.sum(), num_voxels)))
    enough = comparison.enough_annotated * voxels
    return torch.where(annotated < enough, annotated / enough, torch.ones_like(annotated))


def _ratio(losses: Tensor, weights: Tensor, comparison: Comparison) -> Tensor:
    loss, weight = comparison.total(torch.stack((losses.sum(), weights.sum())))
    # Dividing by 1 where nothing is annotated keeps the value at 0 instead of 0/0.
    return loss / torch.where(weight > 0, weight, torch.ones_like(weight))
