"""Changes of a configuration that a person asks for."""

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
