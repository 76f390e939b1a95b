"""Which rule gave each number of a plan, recorded where it fires and put into words elsewhere."""

from dataclasses import dataclass
from typing import Literal

from sparseunet.planning.planners import Planner
from sparseunet.planning.spacing import SpacingChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchChoice:
    """A batch size and what limited it."""

    batch_size: int
    rule: Literal["memory", "dataset", "minimum"]
    """`memory`: more does not fit; `dataset`: more would be too large a share of a small dataset;
    `minimum`: two samples, though one of the limits is lower."""
    fitting: int
    """Samples that fill the memory."""
    dataset_limit: int
    """Samples that make up the largest allowed share of the dataset's voxels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkReasons:
    """How the patch and the batch of one configuration came about."""

    first_patch: tuple[int, ...]
    """What planning started from, padded to what is pooled."""
    num_cuts: int
    """How often it was cut until it fitted in memory."""
    cost: int
    """Feature-map elements of one sample, summed over all convolutions."""
    max_cost: float
    """The largest cost that the memory target allows."""
    batch: BatchChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class LowResolutionReasons:
    """Why there is a cascade, or not."""

    outcome: Literal["made", "not_needed", "too_similar"]
    """`not_needed`: a patch at full resolution holds enough; `too_similar`: a grid on which it does
    is hardly coarser."""
    covered: float
    """Voxels of the full-resolution patch as a share of the median image's."""
    reduction: float
    """Times fewer voxels the median image has on the coarser grid; 1 if none was looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlabReasons:
    """How one configuration was adapted to sparse labels."""

    planned_patch: tuple[int, ...]
    planned_batch: int
    max_depth: int
    """Slices at which a patch is annotated densely enough."""
    axis: int
    """Axis of the plan that the annotated slices lie across."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeReasons:
    """How one configuration was fitted to a machine and a time."""

    minutes: float
    device: str
    precision: str
    iterations: int
    step_s: float
    """Measured seconds per step."""
    planned_patch: tuple[int, ...]
    planned_batch: int
    planned_features: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanReasons:
    """Why a plan is what it is."""

    rules: Planner
    """The planner's constants, with the memory asked for."""
    spacing: SpacingChoice
    relative_size: float
    """Median share of the image that its nonzero box takes."""
    num_measured_cases: int
    """Cases of the fingerprint."""
    num_cases: int
    """As `dataset.json` declares them: what the limit of the batch is computed with."""
    num_outputs: int
    low_resolution: LowResolutionReasons | None
    """None for 2D data."""
    networks: dict[str, NetworkReasons]
    """By configuration; the cascade's is that of `3d_fullres`."""
    left_out: tuple[str, ...] = ()
    """Configurations whose images are too small to be pooled."""
    slabs: dict[str, SlabReasons] | None = None
    """What sparse labels changed, by configuration; None if nobody asked."""
    times: dict[str, TimeReasons] | None = None
    """What a time budget changed, by configuration; None if nobody asked."""
