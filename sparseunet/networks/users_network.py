"""What a network that a user's function built must be, and must give."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sparseunet.errors import RequestError
from sparseunet.planning.plan import NetworkPlan


def watch_outputs(network: object, plan: NetworkPlan, *, num_outputs: int) -> nn.Module:
    """Return the network, which from now on refuses to give what nothing can be done with.

    It maps images (B, C, Z, Y, X) or (B, C, Y, X) to logits (B, K, ...) of the same size. While it
    learns it may give a list of them, highest resolution first, level n being as much smaller as
    the plan's strides of stages 0 to n say; at other times only the first of a list is used.

    Raises:
        RequestError: It is no torch module, or has weights or buffers that checkpoints do not hold.
    """
    if not isinstance(network, nn.Module):
        raise RequestError(
            f"The architecture {plan.architecture} gave a {type(network).__name__}; expected a "
            "torch.nn.Module."
        )
    wrong = [name for name, tensor in network.state_dict().items() if not _can_be_kept(tensor)]
    if wrong:
        raise RequestError(
            f"Checkpoints hold floating point numbers, and {', '.join(wrong)} of "
            f"{plan.architecture} are others; register such buffers with persistent=False."
        )
    network.register_forward_hook(
        partial(_check, architecture=plan.architecture, strides=plan.strides, channels=num_outputs)
    )
    return network


def _can_be_kept(tensor: Tensor) -> bool:
    is_count = tensor.dtype == torch.int64 and tensor.ndim == 0
    return tensor.dtype.is_floating_point or is_count


def _check(
    network: nn.Module,
    images: tuple[Tensor],
    outputs: object,
    *,
    architecture: str,
    strides: Sequence[Sequence[int]],
    channels: int,
) -> object:
    """Return the outputs, of which there is one when nothing is learned."""
    image_BCZYX = images[0]
    levels = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    if not network.training:
        levels, outputs = levels[:1], levels[0] if levels else None
    size = tuple(image_BCZYX.shape[2:])
    if not 1 <= len(levels) <= len(strides):
        raise RequestError(
            f"The network {architecture} gave {len(levels)} outputs; expected 1 to {len(strides)}."
        )
    for level, (logits, stride) in enumerate(zip(levels, strides, strict=False)):
        size = tuple(edge // step for edge, step in zip(size, stride, strict=True))
        expected = (image_BCZYX.shape[0], channels, *size)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RequestError(
                f"Output {level} of the network {architecture} is {found} for images of the shape "
                f"{tuple(image_BCZYX.shape)}; expected logits of the shape {expected}."
            )
    return outputs
