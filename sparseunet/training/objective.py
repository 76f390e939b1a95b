"""The loss of all resolution levels together, and the counts behind the pseudo Dice."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from sparseunet.data.labels import LabelSchema
from sparseunet.training.deep_supervision import downsample_targets, level_weights
from sparseunet.training.loss import dice_binary_cross_entropy, dice_cross_entropy, region_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """How outputs of a network are compared with labels."""

    labels: LabelSchema
    strides: tuple[tuple[int, ...], ...]
    """Strides of the network's stages: they say how the outputs' grids relate."""
    batch_dice: bool

    def loss(
        self, outputs: Tensor | Sequence[Tensor], labels_BZYX: Tensor, weight_BZYX: Tensor
    ) -> Tensor:
        """Return the weighted sum of the loss at every level.

        Args:
            outputs: Logits (B, K, Z, Y, X), highest resolution first; or the highest only.
            labels_BZYX: int64 label values at full resolution.
            weight_BZYX: float32; 0 is unannotated.
        """
        levels = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        factors = accumulate(self.strides, _multiply)
        total = levels[0].new_zeros((), dtype=torch.float32)
        for logits, factor, level_weight in zip(
            levels, factors, level_weights(len(levels)), strict=False
        ):
            if level_weight > 0:
                labels, weight = downsample_targets(
                    labels_BZYX,
                    weight_BZYX,
                    factor=factor,
                    num_values=max(self.labels.values) + 1,
                )
                total = total + level_weight * self._level_loss(logits.float(), labels, weight)
        return total

    @torch.no_grad()
    def counts(
        self, outputs: Tensor | Sequence[Tensor], labels_BZYX: Tensor, weight_BZYX: Tensor
    ) -> Tensor:
        """Return (classes, 3) counts of true positive, false positive, false negative voxels."""
        logits_BKZYX = outputs if isinstance(outputs, Tensor) else outputs[0]
        annotated_BZYX = weight_BZYX > 0
        if self.labels.has_regions:
            predicted = logits_BKZYX > 0
        else:
            winner_BZYX = logits_BKZYX.argmax(dim=1)
            predicted = torch.stack(
                [winner_BZYX == value for (value,) in self.labels.foreground.values()], dim=1
            )
        target = region_targets(
            labels_BZYX, tuple(self.labels.foreground.values()), dtype=torch.bool
        )
        space = (0, *range(2, logits_BKZYX.ndim))
        valid = annotated_BZYX.unsqueeze(1)
        return torch.stack(
            [
                (valid & predicted & target).sum(space),
                (valid & predicted & ~target).sum(space),
                (valid & ~predicted & target).sum(space),
            ],
            dim=1,
        ).cpu()

    def pseudo_dice(self, counts: Tensor | None) -> dict[str, float | None]:
        """Return Dice per class from pooled counts; None for a class that never occurred."""
        scores: dict[str, float | None] = dict.fromkeys(self.labels.foreground)
        rows = [] if counts is None else counts.tolist()
        for name, (hit, false, missed) in zip(self.labels.foreground, rows, strict=False):
            total = 2 * hit + false + missed
            scores[name] = 2 * hit / total if total else None
        return scores

    def _level_loss(self, logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        if self.labels.has_regions:
            target = region_targets(labels, tuple(self.labels.regions.values()))
            return dice_binary_cross_entropy(logits, target, weight, batch_dice=self.batch_dice)
        return dice_cross_entropy(logits, labels, weight, batch_dice=self.batch_dice)


def _multiply(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one * other for one, other in zip(left, right, strict=True))
