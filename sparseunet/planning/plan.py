"""What planning decides: one `Plan` per dataset, one `Configuration` per network."""

from dataclasses import dataclass, field
from typing import Any

from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.planners import PlannerName
from sparseunet.planning.reasons import PlanReasons


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """All numbers that define a network, one entry per resolution stage, highest first.

    Attributes:
        architecture: Key into `sparseunet.networks.build.ARCHITECTURES`, e.g. `plain_unet`,
            `residual_unet`; or `package.module:function`.
        features_per_stage: Feature maps of each stage, highest resolution first.
        kernel_sizes: Of the convolutions of each stage, voxels per axis.
        strides: Strides of the first convolution of each stage; the first stage has stride
            1.
        encoder_depths: Convolutions (plain) or residual blocks per encoder stage.
        decoder_depths: Convolutions per decoder stage; one entry fewer than stages.
        arguments: What else defines a network that is none of nnU-Net's, e.g. `num_heads`,
            `encoder`: numbers, strings and lists of them.
    """

    architecture: str
    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    encoder_depths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to train on a dataset: `2d`, `3d_fullres`, ... Axes are the plan's, transposed.

    Attributes:
        name: `2d`, `3d_fullres`, `3d_lowres` or `3d_cascade_fullres`.
        data_identifier: Name of the preprocessed folder, e.g. `nnUNetPlans_3d_fullres`.
        batch_size: Patches per step.
        patch_size: Voxels along (z, y, x), or (y, x) for 2D.
        median_shape: Median shape of the cases on this grid; same length as `patch_size`.
        spacing_mm: Target spacing; same length as `patch_size`. 2D leaves the slice axis as
            it is.
        normalization: Per channel a key of
            `sparseunet.preprocessing.normalise.NORMALIZATIONS`: `zscore`, `ct`, `none`,
            `rescale_to_0_1`, `rgb_to_0_1`.
        use_mask_for_norm: Per channel: statistics from the image's own nonzero mask only,
            outside set to 0.
        network: What is trained.
        batch_dice: Whether one Dice is taken over the whole batch instead of one per patch.
        previous_stage: Configuration whose segmentations are refined; None for a network
            that works alone.
        next_stage: Configuration that refines the segmentations of this one; None without
            one.
    """

    name: str
    data_identifier: str
    batch_size: int
    patch_size: tuple[int, ...]
    median_shape: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    normalization: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
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
    """Everything derived from the fingerprint, ready for preprocessing and training.

    Attributes:
        dataset_name: `DatasetXXX_Name`.
        plans_name: Name of the plans file.
        planner: Name of the rules that made the plan.
        original_median_spacing_mm: After the transpose.
        original_median_shape: After the transpose.
        image_reader_writer: nnU-Net's name of the reader, carried through for exchange.
        transpose_forward: Axis of the file (z, y, x) that each axis of the network is.
        transpose_backward: The inverse of `transpose_forward`.
        intensities: One per channel.
        configurations: By name, in nnU-Net's order: `2d`, `3d_fullres`, ...
        reasons: Which rules fired; None for a plan that was read from a file. No part of
            what the plan is.
    """

    dataset_name: str
    plans_name: str
    planner: PlannerName
    original_median_spacing_mm: tuple[float, float, float]
    original_median_shape: tuple[int, int, int]
    image_reader_writer: str
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    intensities: tuple[IntensityProperties, ...]
    configurations: dict[str, Configuration]
    reasons: PlanReasons | None = field(default=None, compare=False, repr=False)
