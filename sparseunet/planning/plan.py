"""What planning decides: one `Plan` per dataset, one `Configuration` per network."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sparseunet.fingerprint.fingerprint import IntensityProperties

if TYPE_CHECKING:
    from sparseunet.planning.reasons import PlanReasons


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """All numbers that define a network, one entry per resolution stage, highest first."""

    architecture: str
    """Key into `sparseunet.networks.build.ARCHITECTURES`, e.g. `plain_unet`, `residual_unet`."""
    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    """Strides of the first convolution of each stage; the first stage has stride 1."""
    encoder_depths: tuple[int, ...]
    """Convolutions (plain) or residual blocks per encoder stage."""
    decoder_depths: tuple[int, ...]
    """Convolutions per decoder stage; one entry fewer than stages."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """What else defines a network that is none of nnU-Net's, e.g. `num_heads`, `encoder`: numbers,
    strings and lists of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to train on a dataset: `2d`, `3d_fullres`, ... Axes are the plan's, transposed."""

    name: str
    data_identifier: str
    """Name of the preprocessed folder, e.g. `nnUNetPlans_3d_fullres`."""
    batch_size: int
    patch_size: tuple[int, ...]
    """Voxels along (z, y, x), or (y, x) for 2D."""
    median_shape: tuple[float, ...]
    """Median shape of the cases on this grid; same length as `patch_size`."""
    spacing_mm: tuple[float, ...]
    """Target spacing; same length as `patch_size`. 2D leaves the slice axis as it is."""
    normalization: tuple[str, ...]
    """Per channel a key of `sparseunet.preprocessing.normalise.NORMALIZATIONS`:
    `zscore`, `ct`, `none`, `rescale_to_0_1`, `rgb_to_0_1`."""
    use_mask_for_norm: tuple[bool, ...]
    """Per channel: statistics from the image's own nonzero mask only, outside set to 0."""
    network: NetworkPlan
    batch_dice: bool
    previous_stage: str | None = None
    next_stage: str | None = None

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.patch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything derived from the fingerprint, ready for preprocessing and training."""

    dataset_name: str
    plans_name: str
    planner: Literal["default", "ResEncM", "ResEncL", "ResEncXL"]
    original_median_spacing_mm: tuple[float, float, float]
    """After the transpose."""
    original_median_shape: tuple[int, int, int]
    """After the transpose."""
    image_reader_writer: str
    """nnU-Net's name of the reader, carried through for exchange."""
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    intensities: tuple[IntensityProperties, ...]
    """One per channel."""
    configurations: dict[str, Configuration]
    """By name, in nnU-Net's order: `2d`, `3d_fullres`, ..."""
    reasons: "PlanReasons | None" = field(default=None, compare=False, repr=False)
    """Which rules fired; None for a plan that was read from a file. No part of what the plan is."""
