"""The rules that made a plan, in words: one sentence per number, from what planning recorded."""

from collections.abc import Sequence
from math import prod

import numpy as np

from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.named_functions import is_path
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.reasons import NetworkReasons, PlanReasons

AXES = ("z", "y", "x")


def times(values: Sequence[float]) -> str:
    """Return sizes or spacings for a person, e.g. `20 x 256 x 224`."""
    return " x ".join(f"{value:.4g}" for value in values)


def spacing_sentence(reasons: PlanReasons) -> str:
    """Say where the target spacing comes from."""
    choice, num_cases = reasons.spacing, reasons.num_measured_cases
    start = f"Target spacing {times(choice.target_mm)} mm (z, y, x of the files): "
    if choice.rule == "given":
        return f"{start}given; the median of {num_cases} cases is {times(choice.median_mm)} mm."
    if choice.rule == "median":
        return f"{start}the median of {num_cases} cases."
    changed = int(np.argmax(choice.median_mm))
    sentence = (
        f"{start}the median of {num_cases} cases, except that {AXES[changed]}, 3 times coarser "
        "and 3 times shorter than the other axes, takes its 10th percentile, to lose less detail"
    )
    if choice.rule == "sharp_raised":
        sentence += ", raised to the spacing of the others"
    return f"{sentence} (the median is {choice.median_mm[changed]:.4g} mm)."


def transpose_sentence(plan: Plan) -> str:
    """Say how the axes are ordered."""
    order = ", ".join(AXES[axis] for axis in plan.transpose_forward)
    first = AXES[plan.transpose_forward[0]]
    return (
        f"Axes of the plan {order}: the one with the coarsest target spacing comes first, so 2D "
        f"networks see the planes across {first}."
    )


def normalization_sentences(
    plan: Plan, reasons: PlanReasons | None, fingerprint: Fingerprint | None, names: Sequence[str]
) -> list[str]:
    """Say per channel how it is normalised, and what stands behind the numbers."""
    configuration = next(iter(plan.configurations.values()))
    sentences = []
    for channel, (key, masked) in enumerate(
        zip(configuration.normalization, configuration.use_mask_for_norm, strict=True)
    ):
        name = names[channel] if channel < len(names) else "?"
        start = f"Channel {channel} ({name}), {key}: "
        sentences.append(start + _normalization(plan, reasons, fingerprint, channel, masked=masked))
    return sentences


def _normalization(
    plan: Plan,
    reasons: PlanReasons | None,
    fingerprint: Fingerprint | None,
    channel: int,
    *,
    masked: bool,
) -> str:
    """Return how a channel is normalised and why."""
    key = next(iter(plan.configurations.values())).normalization[channel]
    if key == "ct":
        numbers = plan.intensities[channel]
        return (
            f"its name is CT, so values are clipped to {numbers.percentile_00_5:.4g} to "
            f"{numbers.percentile_99_5:.4g} (0.5 and 99.5 percentiles), then "
            f"{numbers.mean:.4g} is subtracted and the rest divided by {numbers.std:.4g}; "
            f"{statistics_source(None if reasons is None else fingerprint)}."
        )
    if key == "zscore":
        left = "" if reasons is None else f" ({reasons.relative_size:.0%} of the image remains)"
        where = (
            f"inside its nonzero mask, because cropping to it takes away over a quarter{left}"
            if masked
            else f"over the whole image, because cropping takes away at most a quarter{left}"
        )
        return f"each image by its own mean and standard deviation {where}."
    if is_path(key):
        return f"by {key}, a function of yours."
    return "chosen by its name; no statistics are needed."


def statistics_source(fingerprint: Fingerprint | None) -> str:
    """Say which voxels intensity statistics come from; the end of a sentence."""
    if fingerprint is None:
        return "the statistics come with the plan"
    if fingerprint.intensity_source == "body":
        return (
            f"with only {fingerprint.num_foreground_voxels} annotated foreground voxels these are "
            "statistics of the nonzero voxels of the images (body)"
        )
    if not fingerprint.num_foreground_voxels:
        return "the fingerprint does not say how many voxels stand behind them"
    return (
        f"from {fingerprint.num_foreground_voxels:,} annotated foreground voxels of "
        f"{fingerprint.num_foreground_cases} cases"
    )


def memory_sentence(reasons: PlanReasons) -> str:
    """Say what memory is planned for."""
    rules = reasons.rules
    costs = " and ".join(
        f"{rules.max_cost[dimensions] / 1e6:.4g} million ({dimensions}D)" for dimensions in (2, 3)
    )
    return (
        f"Memory target {rules.gpu_memory_gb:g} GB: the feature maps of one sample may have "
        f"{costs} elements."
    )


def low_resolution_sentence(reasons: PlanReasons) -> str:
    """Say why there is a cascade, or not."""
    low = reasons.low_resolution
    if low is None:
        return "No 3D networks: the images have one slice."
    seen = f"a patch at full resolution has {low.covered:.0%} of the voxels of the median image"
    if low.outcome == "not_needed":
        return f"No 3d_lowres and no cascade: {seen}; they exist below 25 %."
    if low.outcome == "too_similar":
        return (
            f"No 3d_lowres and no cascade: {seen}, but on the grid where a patch has 25 % the "
            f"image has only {low.reduction:.2g} times fewer voxels; they exist from 2 times on."
        )
    return (
        f"3d_lowres and 3d_cascade_fullres exist: {seen}, less than 25 %, and on the grid where a "
        f"patch has 25 % the image has {low.reduction:.2g} times fewer voxels."
    )


def grid_sentence(configuration: Configuration, plan: Plan) -> str:
    """Say what grid a configuration works on."""
    where = (
        f"{times(configuration.spacing_mm)} mm, median shape {times(configuration.median_shape)}"
    )
    if configuration.name == "3d_lowres" and "3d_fullres" in plan.configurations:
        full = plan.configurations["3d_fullres"]
        coarser = configuration.spacing_mm[-1] / full.spacing_mm[-1]
        return f"Grid {where}: {coarser:.2g} times coarser in plane than 3d_fullres."
    if configuration.dimensions == 2:
        return f"Grid {where}: the target spacing in plane; slices stay as they are."
    return f"Grid {where}: the target spacing."


def patch_sentence(configuration: Configuration, plan: Plan) -> str:
    """Say why the patch is as large as it is."""
    patch, reasons = configuration.patch_size, plan.reasons
    seen = f"it {covered(configuration)}"
    start = f"Patch {times(patch)}: "
    name = configuration.name
    if reasons is not None and reasons.times and name in reasons.times:
        time = reasons.times[name]
        if time.planned_patch != patch:
            return (
                f"{start}cut from {times(time.planned_patch)}, so that the narrowest network gets "
                f"enough steps in {time.minutes:g} minutes; {seen}."
            )
    if reasons is not None and reasons.slabs and name in reasons.slabs:
        slab = reasons.slabs[name]
        return (
            f"{start}cut from {times(slab.planned_patch)}, because in a patch of at most "
            f"{slab.max_depth} slices a tenth is annotated on average; {seen}."
        )
    network = None if reasons is None else reasons.networks.get(name)
    if network is None:
        return f"{start}{seen}."
    if network.num_cuts:
        return (
            f"{start}cut {network.num_cuts} times from {times(network.first_patch)}, until its "
            f"{network.cost / 1e6:.4g} million feature-map elements fit in memory; {seen}."
        )
    return f"{start}the first one tried fits in memory; {seen}."


def covered(configuration: Configuration) -> str:
    """Say how much of the median image a patch holds; the end of a sentence."""
    edges = zip(configuration.patch_size, configuration.median_shape, strict=True)
    share = prod(min(1.0, edge / size) for edge, size in edges)
    thing = "slice" if configuration.dimensions == 2 else "image"
    return (
        f"holds a whole median {thing}"
        if share >= 1
        else f"holds {share:.0%} of the median {thing}"
    )


def batch_sentence(configuration: Configuration, plan: Plan) -> str:
    """Say why the batch is as large as it is."""
    reasons, name = plan.reasons, configuration.name
    start = f"Batch {configuration.batch_size}: "
    if reasons is not None and reasons.times and name in reasons.times:
        time = reasons.times[name]
        return (
            f"{start}what this machine ({time.device}) trains for {time.iterations} steps of "
            f"{time.step_s:.3g} s in {time.minutes:g} minutes (planned {time.planned_batch})."
        )
    if reasons is not None and reasons.slabs and name in reasons.slabs:
        slab = reasons.slabs[name]
        return (
            f"{start}as many of the shallower patches as the planner's limits allow (planned "
            f"{slab.planned_batch})."
        )
    network = None if reasons is None else reasons.networks.get(name)
    return start + ("as the plan says." if network is None else _batch_rule(network, plan))


def _batch_rule(network: NetworkReasons, plan: Plan) -> str:
    batch = network.batch
    assert plan.reasons is not None
    share = plan.reasons.rules.max_dataset_share
    if batch.rule == "memory":
        return "that many fill the memory."
    limit = f"{share:.0%} of the voxels of all {plan.reasons.num_cases} cases"
    if batch.rule == "dataset":
        return f"more would exceed {limit}; memory would hold {batch.fitting}."
    return (
        f"the smallest there is; {limit} would be {batch.dataset_limit} patches, memory would hold "
        f"{batch.fitting}."
    )


def network_sentence(configuration: Configuration, plan: Plan) -> str:
    """Say how deep and wide the network is and why."""
    network = configuration.network
    pools = [prod(steps) for steps in zip(*network.strides, strict=True)]
    edges = [edge // pool for edge, pool in zip(configuration.patch_size, pools, strict=True)]
    features = f"{network.features_per_stage[0]} to {network.features_per_stage[-1]} features"
    time = None
    if plan.reasons is not None and plan.reasons.times:
        time = plan.reasons.times.get(configuration.name)
    if time is not None:
        features += f" (planned from {time.planned_features}; the time decides)"
    flat = sum(1 in kernel for kernel in network.kernel_sizes)
    kernels = (
        f"; in {flat} of them the kernel is 1 along an axis still twice as coarse as the finest"
        if flat
        else ""
    )
    return (
        f"{len(network.strides)} stages of {features}: each axis is halved while it has 8 voxels "
        f"and is not twice as coarse as the finest, by {times(pools)} in all, which leaves "
        f"{times(edges)} voxels{kernels}."
    )


def batch_dice_sentence(configuration: Configuration) -> str:
    """Say what the Dice of a batch is computed over in training on dense labels."""
    rule = "2D and 3d_fullres beside a 3d_lowres pool it, other networks do not"
    state = "over the whole batch" if configuration.batch_dice else "per patch"
    return f"Dice loss {state} with dense labels ({rule}); with sparse labels over the whole batch."
