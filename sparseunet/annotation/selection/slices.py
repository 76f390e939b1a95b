"""What selectors see: scans cut into slices; and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sparseunet.data.dataset import Case
from sparseunet.data.io import read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.data.provenance import manual_only, read_case_annotation


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceStack:
    """One scan cut into slices across an axis. Read when asked for, so many stacks cost nothing."""

    case: Case
    axis: int
    """0, 1 or 2 of the file's (z, y, x)."""
    num_slices: int
    spacing_mm: tuple[float, float, float]
    """Distance of slices, then the size of a pixel along the two axes that are left, in order."""
    number: int = 0
    """Of the scan in its dataset, from 0: what tells its slices from those of other scans where
    scans are to complement each other."""

    def read(self) -> np.ndarray:
        """Return the intensities as float32, shape (slices K, channels, height, width)."""
        voxels_CZYX = read_image(self.case.images).voxels_CZYX
        return np.ascontiguousarray(np.moveaxis(voxels_CZYX, self.axis + 1, 0))

    def read_foreground(self, labels: LabelSchema) -> np.ndarray | None:
        """Return the share of annotated foreground per class and slice.

        Args:
            labels: The dataset's classes.

        Returns:
            float32, shape (slices K, classes in the order of `labels.foreground`): voxels of the
            class, of all voxels of the slice. NaN for slices that are not annotated. None for a
            case without a label file.
        """
        if self.case.label is None:
            return None
        annotation = manual_only(read_case_annotation(self.case, labels)[0])
        labels_KYX = np.moveaxis(annotation.labels_ZYX, self.axis, 0)
        annotated_K = np.moveaxis(annotation.annotated_ZYX, self.axis, 0).any(axis=(1, 2))
        share_KC = np.stack(
            [
                np.isin(labels_KYX, values).mean(axis=(1, 2))
                for values in labels.foreground.values()
            ],
            axis=1,
        ).astype(np.float32)
        share_KC[~annotated_K] = np.nan
        return share_KC


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenSlice:
    """One slice to annotate."""

    stack: int
    """Position in the sequence of stacks that was asked about."""
    index: int
    """Position along the stack's axis, as in the file."""
    reason: str
    """Why, in a few words for a person, e.g. `covers 12 % more of the slices of all scans`."""
    for_comparison: bool = False
    """Whether chance chose it, so that what other slices teach can be compared with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionRequest:
    """How many slices to choose, and what choosing may cost and use."""

    counts: tuple[int, ...] | None
    """Slices per stack. None: `total` slices wherever they are worth most, which only selectors of
    the whole dataset can do."""
    total: int
    """Slices over all stacks; the sum of `counts` if those are given."""
    seed: int = 0
    labels: LabelSchema | None = None
    """The dataset's classes, for selectors that look at labels that are there already."""
    time_budget_s: float | None = None
    """How long features may be trained; None for the selector's own default."""
    device: str = "cpu"
    """Where features are trained: cpu, cuda or mps."""
    cache: Path | None = None
    """Folder that keeps features by content hash; None keeps nothing."""
    weights: Path | None = None
    """File with pretrained weights, for selectors that need some; nothing is ever downloaded."""
    num_workers: int = 1


class Selector(Protocol):
    """Chooses slices of some scans from their images."""

    def __call__(
        self, stacks: Sequence[SliceStack], /, *, request: SelectionRequest
    ) -> tuple[ChosenSlice, ...]:
        """Return exactly `request.total` different slices, the most important first.

        With `request.counts`, stack i gets exactly `counts[i]` slices. The same request gives the
        same slices.

        Raises:
            RequestError: The request cannot be met: more slices than there are, labels or weights
                are needed that are not there, or the selector does not work without `counts`.
        """
