"""Changes of a configuration that a person asks for or that a machine needs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sparseunet.errors import RequestError
from sparseunet.planning.plan import Configuration
from sparseunet.planning.topology import choose_topology

_FEATURES_CAP = {2: 512, 3: 320}
_MIN_TRAINABLE_EDGE = 32
_MIN_TRAINABLE_SHARE = 0.5
"""To save time an axis is cut neither below this many voxels nor below this share of what was
planned: halves are the smallest patches that are known to train well (`experiments.md`)."""


def with_base_features(configuration: Configuration, base_features: int) -> Configuration:
    """Return the configuration with `base_features` at full resolution, doubling per stage.

    Raises:
        RequestError: Fewer than one feature.
    """
    if base_features < 1:
        raise RequestError(f"Base features must be at least 1, found {base_features}.")
    cap = max(base_features, _FEATURES_CAP[configuration.dimensions])
    stages = range(len(configuration.network.strides))
    features = tuple(min(base_features * 2**stage, cap) for stage in stages)
    return replace(
        configuration, network=replace(configuration.network, features_per_stage=features)
    )


def with_batch_size(configuration: Configuration, batch_size: int) -> Configuration:
    """Return the configuration with another batch size.

    Raises:
        RequestError: Fewer than one patch.
    """
    if batch_size < 1:
        raise RequestError(f"The batch size must be at least 1, found {batch_size}.")
    return replace(configuration, batch_size=batch_size)


def with_patch_size(configuration: Configuration, patch_size: Sequence[int]) -> Configuration:
    """Return the configuration with another patch; the network stays as planned.

    Raises:
        RequestError: Another number of axes than the plan's patch, or an axis that the network
            cannot halve as often as it does; names the multiple that is needed.
    """
    strides = configuration.network.strides
    multiples = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
    if len(patch_size) != len(multiples) or any(
        size < 1 or size % multiple for size, multiple in zip(patch_size, multiples, strict=False)
    ):
        raise RequestError(
            f"The patch {tuple(patch_size)} does not fit {configuration.name}; expected "
            f"{len(multiples)} sizes that are multiples of {multiples}, e.g. the planned "
            f"{configuration.patch_size}."
        )
    return replace(configuration, patch_size=tuple(patch_size))


def with_planned_patch(configuration: Configuration, patch_size: Sequence[int]) -> Configuration:
    """Return the configuration with another patch and the network that the planner has for it.

    Strides and kernels follow the rules of planning for the patch, which is padded to what is
    pooled; features, convolutions per stage, grid and batch stay. (`with_patch_size` in contrast
    keeps the network.)

    Raises:
        RequestError: Another number of axes than the plan's patch, or too small to be pooled.
    """
    network = configuration.network
    topology = choose_topology(configuration.spacing_mm, patch_size)
    stages = len(topology.strides)
    if len(patch_size) != configuration.dimensions or stages < 2:
        raise RequestError(
            f"The patch {tuple(patch_size)} does not fit {configuration.name}; expected "
            f"{configuration.dimensions} sizes, one of at least 12 voxels or two of at least 8."
        )
    planned = replace(
        configuration,
        patch_size=topology.patch_size,
        network=replace(
            network,
            strides=topology.strides,
            kernel_sizes=topology.kernel_sizes,
            encoder_depths=_per_stage(network.encoder_depths, stages),
            decoder_depths=_per_stage(network.decoder_depths, stages - 1),
        ),
    )
    return with_base_features(planned, network.features_per_stage[0])


def smaller_patches(configuration: Configuration) -> Iterator[Configuration]:
    """Yield the configuration on ever smaller patches, each with the planner's network for it.

    Each step shortens the axis that covers the largest part of the median image by what its pooling
    needs, as planning does to fit memory (nnU-Net 2.8.1). No axis is cut below half its size in
    `configuration`, nor below 32 voxels; the sequence ends when nothing is left to cut.
    """
    lowest = [
        max(_MIN_TRAINABLE_EDGE, _MIN_TRAINABLE_SHARE * edge) for edge in configuration.patch_size
    ]
    while True:
        patch, shape = configuration.patch_size, configuration.median_shape
        divisors = [math.prod(axis) for axis in zip(*configuration.network.strides, strict=True)]
        open_axes = [
            axis for axis, divisor in enumerate(divisors) if patch[axis] - divisor >= lowest[axis]
        ]
        if not open_axes:
            return
        axis = max(
            open_axes, key=lambda candidate: (patch[candidate] / shape[candidate], candidate)
        )
        smaller = list(patch)
        smaller[axis] -= divisors[axis]
        configuration = with_planned_patch(configuration, smaller)
        if configuration.patch_size == patch:  # padded back to where it was
            return
        yield configuration


def _per_stage(depths: tuple[int, ...], stages: int) -> tuple[int, ...]:
    return (depths + depths[-1:] * stages)[:stages]
