"""Losses once more, in double precision and voxel by voxel, as the formulas stand in papers.

from loss_formulas import expected_loss
"""

import numpy as np

SMOOTH = 1e-5


def expected_loss(
    name, logits, labels, weight, *, regions=None, batch_dice, class_weights=None, annotated=None
):
    """Return the loss of one level.

    Args:
        name: Key of LOSSES.
        logits: (B, K, ...) numbers.
        labels: (B, ...) label values.
        weight: (B, ...) weights.
        regions: Label values of each channel, or None for classes.
        batch_dice: Whether Dice is one number for the batch.
        class_weights: One per channel, or None.
        annotated: (B, K) booleans, or None for all.
    """
    logits = np.asarray(logits, np.float64)
    labels, weight = np.asarray(labels), np.asarray(weight, np.float64)
    num_samples, num_channels = logits.shape[:2]
    class_weights = np.ones(num_channels) if class_weights is None else np.asarray(class_weights)
    if annotated is None:
        annotated = np.ones((num_samples, num_channels), bool)
    voxels, scores = [], []
    for sample in range(num_samples):
        flat = logits[sample].reshape(num_channels, -1).T
        one = _classes if regions is None else _regions
        pairs, probability, target = one(
            flat, labels[sample].ravel(), regions, annotated[sample], class_weights
        )
        voxels += [
            (w * share, _shape(cross_entropy, name), w)
            for row, w in zip(pairs, weight[sample].ravel(), strict=True)
            for share, cross_entropy in row
            if w * share > 0
        ]
        scores.append((probability, target, weight[sample].ravel()))
    first = 1 if regions is None else 0
    value = 0.0
    if name != "dice":
        assert regions is None or "topk" not in name, "hardest over regions is not written here"
        value += _mean(name, voxels)
    if "dice" in name:
        value -= _dice(scores, annotated, first, batch_dice=batch_dice)
    return value


def _classes(flat, labels, regions, annotated, class_weights):
    """Return per voxel its (weight, cross-entropy), and probabilities and targets of channels."""
    del regions
    shifted = np.exp(flat - flat.max(axis=1, keepdims=True))
    probability = shifted / shifted.sum(axis=1, keepdims=True)
    seen = [channel for channel in range(1, flat.shape[1]) if annotated[channel]]
    pairs = []
    for row, label in zip(probability, labels, strict=True):
        if label in seen:
            pairs.append([(class_weights[label], -np.log(row[label]))])
        else:
            rest = 1 - sum(row[channel] for channel in seen)
            pairs.append([(class_weights[0], -np.log(rest))])
    return pairs, probability, labels[:, None] == np.arange(flat.shape[1])


def _regions(flat, labels, regions, annotated, class_weights):
    probability = 1 / (1 + np.exp(-flat))
    target = np.stack([np.isin(labels, values) for values in regions], axis=1)
    truth = np.where(target, probability, 1 - probability)
    shares = class_weights * annotated
    pairs = [[(share, -np.log(p)) for share, p in zip(shares, row, strict=True)] for row in truth]
    return pairs, probability, target


def _shape(cross_entropy, name):
    return (1 - np.exp(-cross_entropy)) ** 2 * cross_entropy if "focal" in name else cross_entropy


def _mean(name, voxels):
    if "topk" in name:
        voxels = sorted(voxels, key=lambda one: one[1] * one[2], reverse=True)
        voxels = voxels[: max(1, len(voxels) // 10)]
    total = sum(weight for weight, _, _ in voxels)
    return sum(weight * loss for weight, loss, _ in voxels) / total if total else 0.0


def _dice(scores, annotated, first, *, batch_dice):
    counted = []
    for channel in range(first, annotated.shape[1]):
        sums = [
            (
                2 * (w * p[:, channel] * t[:, channel]).sum(),
                (w * p[:, channel]).sum() + (w * t[:, channel]).sum(),
            )
            for (p, t, w), is_annotated in zip(scores, annotated[:, channel], strict=True)
            if is_annotated and w.any()
        ]
        if batch_dice and sums:
            sums = [tuple(np.sum(sums, axis=0))]
        counted += [(twice + SMOOTH) / (total + SMOOTH) for twice, total in sums]
    return sum(counted) / len(counted) if counted else 0.0
