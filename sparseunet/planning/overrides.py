"""Changes of a configuration that a person asks for."""

import math
from collections.abc import Sequence
from dataclasses import replace

from sparseunet.errors import RequestError
from sparseunet.planning.plan import Configuration

_FEATURES_CAP = {2: 512, 3: 320}


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
