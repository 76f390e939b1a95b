"""Changes of a configuration that a person asks for or that a machine needs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sparseunet.errors import RequestError
from sparseunet.named_functions import path_of
from sparseunet.planning.architectures import design_network, find_architecture
from sparseunet.planning.plan import Configuration
from sparseunet.planning.topology import choose_topology

_MIN_TRAINABLE_EDGE = 32
_MIN_TRAINABLE_SHARE = 0.5
"""To save time an axis is cut neither below this many voxels nor below this share of what was
planned: halves are the smallest patches that are known to train well (`experiments.md`)."""


def with_architecture(
    configuration: Configuration, architecture: str | Callable[..., Any]
) -> Configuration:
    """Return the configuration with another network, in the size that it has by default.

    Networks that do not pool as planned get the planned patch padded to what they can take.

    Args:
        configuration: Of the plan.
        architecture: A name, or a function that builds a network (see `build_network`).

    Raises:
        RequestError: There is no such network, or not for this number of dimensions.
    """
    name = path_of(architecture, what="architecture")
    if name == configuration.network.architecture:
        return configuration
    network = design_network(name, configuration.network)
    padded = tuple(
        -(-size // multiple) * multiple
        for size, multiple in zip(
            configuration.patch_size, _multiples(network.strides), strict=True
        )
    )
    return with_patch_size(replace(configuration, network=network), padded)


def with_base_features(configuration: Configuration, base_features: int) -> Configuration:
    """Return the configuration with `base_features` at full resolution, and the others to match.

    In the U-Nets features double per stage up to 320 (2D: 512); other networks keep the ratios of
    their stages.

    Raises:
        RequestError: Fewer than one feature, or the widths of the network are fixed.
    """
    if base_features < 1:
        raise RequestError(f"Base features must be at least 1, found {base_features}.")
    network = configuration.network
    rule = find_architecture(network.architecture).features
    if rule is None:
        raise RequestError(
            f"The widths of {network.architecture} are fixed; leave the base features out.",
            setting="base_features",
        )
    features = rule(base_features, len(network.strides), configuration.dimensions)
    return replace(configuration, network=replace(network, features_per_stage=features))


def has_fixed_width(configuration: Configuration) -> bool:
    """Whether `with_base_features` cannot change the network."""
    return find_architecture(configuration.network.architecture).features is None


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
    network = configuration.network
    multiples = _multiples(network.strides)
    if len(patch_size) != len(multiples) or any(
        size < 1 or size % multiple for size, multiple in zip(patch_size, multiples, strict=False)
    ):
        raise RequestError(
            f"The patch {tuple(patch_size)} does not fit {network.architecture} in "
            f"{configuration.name}; expected {len(multiples)} sizes that are multiples of "
            f"{multiples}, e.g. {configuration.patch_size}."
        )
    if "patch_size" in network.arguments:
        arguments = {**network.arguments, "patch_size": list(patch_size)}
        network = replace(network, arguments=arguments)
    return replace(configuration, patch_size=tuple(patch_size), network=network)


def with_planned_patch(configuration: Configuration, patch_size: Sequence[int]) -> Configuration:
    """Return the configuration with another patch and the network that the planner has for it.

    Strides and kernels follow the rules of planning for the patch, which is padded to what is
    pooled; features, convolutions per stage, grid and batch stay. (`with_patch_size` in contrast
    keeps the network.) A network that pools in its own way stays as it is.

    Raises:
        RequestError: Another number of axes than the plan's patch, or too small to be pooled.
    """
    network = configuration.network
    architecture = find_architecture(network.architecture)
    if architecture.strides is not None:
        return with_patch_size(configuration, patch_size)
    topology = choose_topology(configuration.spacing_mm, patch_size)
    stages = len(topology.strides)
    if len(patch_size) != configuration.dimensions or stages < 2:
        raise RequestError(
            f"The patch {tuple(patch_size)} does not fit {configuration.name}; expected "
            f"{configuration.dimensions} sizes, one of at least 12 voxels or two of at least 8."
        )
    kernel_sizes = topology.kernel_sizes
    if not architecture.planned_kernels:
        kernel_sizes = ((3,) * configuration.dimensions,) * stages
    planned = replace(
        configuration,
        patch_size=topology.patch_size,
        network=replace(
            network,
            strides=topology.strides,
            kernel_sizes=kernel_sizes,
            encoder_depths=_per_stage(network.encoder_depths, stages),
            decoder_depths=_per_stage(network.decoder_depths, stages - 1),
        ),
    )
    widened = with_base_features(planned, network.features_per_stage[0])
    return with_patch_size(widened, topology.patch_size)


def require_trainable(configuration: Configuration) -> None:
    """Check that normalisation has something to normalise at the lowest resolution.

    Raises:
        RequestError: The network takes a mean and a deviation over a single value there; says
            which patch or batch is enough.
    """
    network, batch_size = configuration.network, configuration.batch_size
    norm = find_architecture(network.architecture).norm
    multiples = _multiples(network.strides)
    voxels = math.prod(configuration.patch_size) // math.prod(multiples)
    values = {"batch": voxels * batch_size, "instance": voxels, "pooled": batch_size}
    if norm is not None and values[norm] < 2:
        larger = (*configuration.patch_size[:-1], configuration.patch_size[-1] + multiples[-1])
        enough = {
            "batch": f"a batch of 2, or the patch {larger}",
            "instance": f"the patch {larger}",
            "pooled": "a batch of 2",
        }[norm]
        raise RequestError(
            f"{network.architecture} cannot be trained with a batch of {batch_size} and the patch "
            f"{configuration.patch_size}: at its lowest resolution a single value is left to be "
            f"normalised. Give at least {enough}."
        )


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
        divisors = _multiples(configuration.network.strides)
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


def _multiples(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def _per_stage(depths: tuple[int, ...], stages: int) -> tuple[int, ...]:
    return (depths + depths[-1:] * stages)[:stages]
