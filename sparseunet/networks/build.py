"""From a network plan to a network: the only place that knows what builds which architecture."""

from inspect import Parameter, signature
from typing import Any

from torch import nn

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.named_functions import is_path, load_function
from sparseunet.networks.users_network import watch_outputs
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

    A function of the user's, `package.module:function`, is called with the keywords
    `num_input_channels`, `num_outputs` and, as far as it takes them, `deep_supervision`,
    `dimensions`, `patch_size`, `features_per_stage`, `kernel_sizes`, `strides`, `encoder_depths`,
    `decoder_depths` and the plan's `arguments`; see `watch_outputs` for what it has to give.

    Raises:
        RequestError: The plan names an architecture that does not exist, or whose extra is not
            installed, or a function that cannot be imported or that gives no usable network.
    """
    if is_path(plan.architecture):
        return _users_network(
            plan,
            num_input_channels=num_input_channels,
            num_outputs=num_outputs,
            deep_supervision=deep_supervision,
        )
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


def _users_network(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Call a user's function with those of the known keywords that it takes.

    Raises:
        RequestError: The function takes no number of channels or outputs, or needs a keyword that
            is not known here.
    """
    build = load_function(plan.architecture, {}, what="architecture")
    must_be_taken = {"num_input_channels": num_input_channels, "num_outputs": num_outputs}
    given: dict[str, Any] = {
        "deep_supervision": deep_supervision,
        "dimensions": len(plan.strides[0]),
        "features_per_stage": plan.features_per_stage,
        "kernel_sizes": plan.kernel_sizes,
        "strides": plan.strides,
        "encoder_depths": plan.encoder_depths,
        "decoder_depths": plan.decoder_depths,
        **plan.arguments,
        **must_be_taken,
    }
    taken = signature(build).parameters
    takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in taken.values())
    problems = [
        f"does not take {name}" for name in must_be_taken if not takes_all | (name in taken)
    ]
    problems += [
        f"needs {name}, which is not known here"
        for name, each in taken.items()
        if each.default is Parameter.empty
        and each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        and name not in given
    ]
    if problems:
        raise RequestError(
            f"The architecture {plan.architecture} {' and '.join(problems)}; it is called with the "
            f"keywords {', '.join(given)}, those that it takes."
        )
    network = build(**{name: value for name, value in given.items() if takes_all or name in taken})
    return watch_outputs(network, plan, num_outputs=num_outputs)


def num_input_channels(configuration: Configuration, labels: LabelSchema) -> int:
    """Return how many channels the network of a configuration takes.

    Those of the image and, for the second stage of a cascade, one per foreground label value for
    what the previous stage predicted (nnU-Net 2.8.1; with regions too it is one per value).
    """
    extra = 0 if configuration.previous_stage is None else len(labels.foreground_values)
    return len(configuration.normalization) + extra
