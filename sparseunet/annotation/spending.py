"""What a person may choose about how a budget of annotation is spent."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparseunet.annotation.cost import ASSUMED_COST, CostModel

Axis = int | Literal["auto", "all", "alternate"]
"""Across which axis slices lie: 0, 1, 2 for z, y, x; `auto`: that of the largest spacing; `all`;
`alternate`: another from scan to scan, of those whose pixels are at most twice as long as wide."""
AXES: tuple[Axis, ...] = (0, 1, 2, "auto", "all", "alternate")


def parse_axis(text: str) -> Axis:
    """Return the axis that a word on the command line means."""
    return next(axis for axis in AXES if str(axis) == text)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendingOptions:
    """How the budget is spent, beside which selector chooses slices.

    Attributes:
        num_volumes: Scans to annotate: a number, `auto` (as many as get their minimum), or
            `selector` (slices go wherever the selector finds them worth most; `auto` means that for
            the selector `dataset`).
        volume_choice: Which, if not all, and in which order: `even` (scans whose staggered slices
            complement each other), `random`, or `farthest` (unlike each other in voxel size, extent
            and intensities).
        dimensions: Of the network to be trained; 3D needs a tenth of the slices of each scan, 2D
            one slice.
        cost: Prices in minutes.
        time_budget_s: How long selectors may train features; by default each selector's own time.
        device: Where features are trained, and where the network of an earlier round predicts: cpu,
            cuda or mps.
        cache: Folder that keeps features.
        weights: File of pretrained weights, for selectors that need some; nothing is downloaded.
        num_workers: Threads.
    """

    num_volumes: int | Literal["auto", "selector"] = "auto"
    volume_choice: str = "even"
    dimensions: int = field(default=3, metadata={"choices": (2, 3)})
    cost: CostModel = ASSUMED_COST
    time_budget_s: float | None = None
    device: str = "cpu"
    cache: Path | None = None
    weights: Path | None = None
    num_workers: int = 1
