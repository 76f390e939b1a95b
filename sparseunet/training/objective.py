"""The loss of all resolution levels together, and the counts behind the pseudo Dice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseunet.data.labels import LabelSchema
from sparseunet.training.deep_supervision import level_weights, targets_of_levels
from sparseunet.training.losses.comparison import (
    Comparison,
    Loss,
    Total,
    merge_unannotated,
    only_here,
    region_targets,
)
from sparseunet.training.losses.named import dice_cross_entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """How outputs of a network are compared with labels."""

    labels: LabelSchema
    strides: tuple[tuple[int, ...], ...]
    """Strides of the network's stages: they say how the outputs' grids relate."""
    batch_dice: bool
    compare: Loss = dice_cross_entropy
    """The loss of one level."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each output channel in the cross-entropy; None for 1 each."""
    enough_annotated: float = 0.0
    """Share of a batch's voxels from which on the cross-entropy weighs as much as the Dice."""
    total: Total = only_here
    """Sums a vector over all processes that share a batch. Every sum that something is divided by,
    and every count, goes through it, in the same order in every process."""

    def loss(
        self,
        outputs: Tensor | Sequence[Tensor],
        labels_BZYX: Tensor,
        weight_BZYX: Tensor,
        annotated_BK: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted sum of the loss at every level.

        Args:
            outputs: Logits (B, K, Z, Y, X), highest resolution first; or the highest only.
            labels_BZYX: int64 label values at full resolution.
            weight_BZYX: float32; 0 is unannotated.
            annotated_BK: bool, whether the class of each channel was annotated in the case. None:
                all classes in all cases.
        """
        levels = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        shares = [share for share in level_weights(len(levels)) if share > 0]
        targets = targets_of_levels(
            labels_BZYX,
            weight_BZYX,
            strides=self.strides[: len(shares)],
            num_values=max(self.labels.values) + 1,
        )
        total = levels[0].new_zeros((), dtype=torch.float32)
        for logits, share, (labels, weight) in zip(levels, shares, targets, strict=False):
            comparison = self._comparison(logits.float(), labels, weight, annotated_BK)
            total = total + share * self.compare(comparison)
        return total

    @torch.no_grad()
    def counts(
        self,
        outputs: Tensor | Sequence[Tensor],
        labels_BZYX: Tensor,
        weight_BZYX: Tensor,
        annotated_BK: Tensor | None = None,
    ) -> Tensor:
        """Return (classes, 3) counts of true positive, false positive, false negative voxels.

        A case counts for the classes that were annotated in it.
        """
        logits_BKZYX = outputs if isinstance(outputs, Tensor) else outputs[0]
        foreground = tuple(self.labels.foreground.values())
        valid = (weight_BZYX > 0).unsqueeze(1)
        if annotated_BK is not None:
            class_annotated_BK = annotated_BK
            if not self.labels.has_regions:
                class_annotated_BK = annotated_BK[:, [value for (value,) in foreground]]
            space = (1,) * (logits_BKZYX.ndim - 2)
            valid = valid & class_annotated_BK.view(*class_annotated_BK.shape, *space)
        if self.labels.has_regions:
            predicted = logits_BKZYX > 0
            target = region_targets(labels_BZYX, foreground, dtype=torch.bool)
        else:
            # torch finds a maximum's place many times faster together with its value.
            winner_BZYX = logits_BKZYX.max(dim=1).indices
            predicted = torch.stack([winner_BZYX == value for (value,) in foreground], dim=1)
            target = torch.stack([labels_BZYX == value for (value,) in foreground], dim=1)
        summed = (0, *range(2, logits_BKZYX.ndim))
        hit = predicted & target & valid
        counts = torch.stack(
            [
                torch.count_nonzero(hit, summed),
                torch.count_nonzero(predicted & valid, summed),
                torch.count_nonzero(target & valid, summed),
            ],
            dim=1,
        )
        counts[:, 1:] -= counts[:, :1]
        return self.total(counts).cpu()

    def annotated_voxels(self, weight_BZYX: Tensor) -> int:
        """Return how many voxels of a batch are annotated."""
        return int(self.total(torch.count_nonzero(weight_BZYX)))

    def pseudo_dice(self, counts: Tensor | None) -> dict[str, float | None]:
        """Return Dice per class from pooled counts; None for a class that never occurred."""
        scores: dict[str, float | None] = dict.fromkeys(self.labels.foreground)
        rows = [] if counts is None else counts.tolist()
        for name, (hit, false, missed) in zip(self.labels.foreground, rows, strict=False):
            total = 2 * hit + false + missed
            scores[name] = 2 * hit / total if total else None
        return scores

    def _comparison(
        self, logits: Tensor, labels: Tensor, weight: Tensor, annotated_BK: Tensor | None
    ) -> Comparison:
        in_region = None
        if self.labels.has_regions:
            in_region = region_targets(labels, tuple(self.labels.regions.values()))
        elif annotated_BK is not None:
            logits, labels = merge_unannotated(logits, labels, annotated_BK)
        return Comparison(
            logits_BKZYX=logits,
            labels_BZYX=labels,
            weight_BZYX=weight,
            annotated_BK=annotated_BK,
            in_region_BKZYX=in_region,
            class_weights=self.class_weights,
            batch_dice=self.batch_dice,
            enough_annotated=self.enough_annotated,
            total=self.total,
        )
