"""From a network plan to a network: the only place that knows what builds which architecture."""

from torch import nn

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.named_functions import load_function
from sparseunet.planning.architectures import require_extra
from sparseunet.planning.plan import Configuration, NetworkPlan

_ZOO = "sparseunet.networks.zoo"
_SMP = f"{_ZOO}.from_smp:smp_network"
ARCHITECTURES: dict[str, str] = {
    "plain_unet": "sparseunet.networks.unet:plain_unet",
    "residual_unet": "sparseunet.networks.unet:residual_unet",
    "segresnet": f"{_ZOO}.from_monai:segresnet",
    "unetr": f"{_ZOO}.from_monai:unetr",
    "attention_unet": f"{_ZOO}.from_monai:attention_unet",
    "densevoxnet": f"{_ZOO}.densevoxnet:densevoxnet",
    "inception_unet": f"{_ZOO}.inception_unet:inception_unet",
    "cam_wnet": f"{_ZOO}.cam_wnet:cam_wnet",
    "segformer_b3": _SMP,
    "unet_resnet152": _SMP,
    "deeplabv3plus": _SMP,
    "manet": _SMP,
    "unet_resnext101": _SMP,
    "deeplabv3plus_resnext101": _SMP,
    "manet_resnext101": _SMP,
}
"""Name to the function that builds it, imported when it is asked for; its sizes and limits are in
`sparseunet.planning.architectures.KNOWN`."""


def build_network(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Build and initialise the network of a plan, with torch's current random state.

    The network maps images (B, C, Z, Y, X) or (B, C, Y, X) to logits (B, K, ...). In training mode
    with deep supervision a network with several outputs returns a list, highest resolution first,
    level n being as much smaller as the strides of stages 0 to n say; one with a single output
    returns it.

    Raises:
        RequestError: The plan names an architecture that does not exist, or whose extra is not
            installed.
    """
    if plan.architecture not in ARCHITECTURES:
        raise RequestError(
            f"The plan names the architecture {plan.architecture!r}; there are: "
            f"{', '.join(ARCHITECTURES)}."
        )
    require_extra(plan.architecture)
    build = load_function(plan.architecture, ARCHITECTURES, what="architecture")
    network: nn.Module = build(
        plan,
        num_input_channels=num_input_channels,
        num_outputs=num_outputs,
        deep_supervision=deep_supervision,
    )
    return network


def num_input_channels(configuration: Configuration, labels: LabelSchema) -> int:
    """Return how many channels the network of a configuration takes.

    Those of the image and, for the second stage of a cascade, one per foreground label value for
    what the previous stage predicted (nnU-Net 2.8.1; with regions too it is one per value).
    """
    extra = 0 if configuration.previous_stage is None else len(labels.foreground_values)
    return len(configuration.normalization) + extra
