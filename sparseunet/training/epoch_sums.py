"""Sums over the batches of one epoch: losses, counts and times."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True, slots=True)
class EpochSums:
    """Sums over the batches of one epoch. Batches without annotation only add to the times."""

    losses: list[float] = field(default_factory=list)
    annotated_voxels: int = 0
    counts: Tensor | None = None
    """(classes, 3): true positive, false positive, false negative voxels."""
    skipped_steps: int = 0
    """Steps in float16 whose loss overflowed; the scaler does nothing then and scales less."""
    duration_s: float = 0.0
    waited_s: float = 0.0
    """Part of the duration that was spent waiting for batches."""

    def add(self, loss: float, counts: Tensor, *, annotated_voxels: int) -> None:
        """Add the result of one step; a step without annotated voxels changes nothing.

        Args:
            loss: Loss of the batch; if it is not finite the step counts as skipped.
            counts: (classes, 3): true positive, false positive, false negative voxels.
            annotated_voxels: Annotated voxels of the batch.
        """
        if not annotated_voxels:
            return
        self.annotated_voxels += annotated_voxels
        self.counts = counts if self.counts is None else self.counts + counts
        if math.isfinite(loss):
            self.losses.append(loss)
        else:
            self.skipped_steps += 1

    @property
    def mean_loss(self) -> float | None:
        """Mean loss of a batch; None while no batch had a finite loss."""
        return sum(self.losses) / len(self.losses) if self.losses else None

    @property
    def class_voxels(self) -> list[int]:
        """Annotated voxels of every foreground class; empty without any batch."""
        if self.counts is None:
            return []
        return [int(voxels) for voxels in (self.counts[:, 0] + self.counts[:, 2]).tolist()]

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as numbers and tensors, which a checkpoint may hold."""
        return {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "annotated_voxels": self.annotated_voxels,
            "counts": self.counts,
            "skipped_steps": self.skipped_steps,
            "duration_s": self.duration_s,
            "waited_s": self.waited_s,
        }

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "EpochSums":
        """Rebuild the sums from the result of `to_plain`."""
        return cls(**(content | {"losses": content["losses"].tolist()}))
