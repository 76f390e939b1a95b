"""From a network plan to a network: the only place that knows which architectures there are."""

from collections.abc import Callable
from functools import partial

from torch import nn

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.blocks import initialise
from sparseunet.networks.unet import UNet
from sparseunet.planning.plan import Configuration, NetworkPlan

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "plain_unet": partial(UNet, residual=False),
    "residual_unet": partial(UNet, residual=True),
}


def build_network(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Build and initialise the network of a plan, with torch's current random state.

    The network maps images (B, C, Z, Y, X) or (B, C, Y, X) to logits (B, K, ...); with deep
    supervision and in training mode to a list of logits, highest resolution first.

    Raises:
        RequestError: The plan names an architecture that does not exist.
    """
    if plan.architecture not in ARCHITECTURES:
        raise RequestError(
            f"The plan names the architecture {plan.architecture!r}; there are: "
            f"{', '.join(ARCHITECTURES)}."
        )
    network = ARCHITECTURES[plan.architecture](
        plan,
        num_input_channels=num_input_channels,
        num_outputs=num_outputs,
        deep_supervision=deep_supervision,
    )
    network.apply(initialise)
    return network


def num_input_channels(configuration: Configuration, labels: LabelSchema) -> int:
    """Return how many channels the network of a configuration takes.

    Those of the image and, for the second stage of a cascade, one per foreground label value for
    what the previous stage predicted (nnU-Net 2.8.1; with regions too it is one per value).
    """
    extra = 0 if configuration.previous_stage is None else len(labels.foreground_values)
    return len(configuration.normalization) + extra
