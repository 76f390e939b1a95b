"""2D networks of segmentation-models-pytorch (extra `vision2d`). Single output each.

Z25 table 2 names SegFormer-B3 (Xie 2021) for DBC; P23 §3.3 overfits U-Net, DeepLabV3+ and MAnet
with encoders ResNet-152 (BraTS19) and ResNeXt-101 32x (FLARE21, MSD-Heart). Both papers start from
weights of photographs; here nothing is downloaded and every training starts from random weights.
"""

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from sparseunet.errors import RequestError
from sparseunet.planning.plan import NetworkPlan


def smp_network(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - they have one output
) -> nn.Module:
    """Return the decoder and encoder that `plan.arguments` name.

    SegFormer gets a single channel three times, as Z25 feeds it, so that its weights have the
    layout of those trained on photographs; the others have as many inputs as the image.
    """
    repeated = plan.arguments["decoder"] == "Segformer" and num_input_channels == 1
    network: nn.Module = getattr(_package(), plan.arguments["decoder"])(
        encoder_name=plan.arguments["encoder"],
        encoder_weights=None,
        in_channels=3 if repeated else num_input_channels,
        classes=num_outputs,
    )
    return _GreyToColour(network) if repeated else network


class _GreyToColour(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B1YX: Tensor) -> Tensor:
        logits: Tensor = self.network(image_B1YX.expand(-1, 3, -1, -1))
        return logits


def _package() -> Any:
    try:
        return import_module("segmentation_models_pytorch")
    except (ImportError, RuntimeError) as error:  # torchvision without its operators: RuntimeError
        raise RequestError(
            f"segmentation_models_pytorch cannot be imported ({error}); install it, and a "
            "torchvision that fits torch, with pip install 'sparseunet[vision2d]'."
        ) from None
