"""Weights of another training as the start of a new one."""

from pathlib import Path

from torch import Tensor, nn

from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.networks.checkpoint import read_checkpoint

_HEADS = "decoder.heads."
_MOST_NAMED = 8


def load_pretrained_weights(network: nn.Module, path: Path) -> None:
    """Take over everything but the heads, which are the new classes' own (nnU-Net 2.8.1).

    Args:
        network: Changed in place; its heads keep their random start.
        path: A checkpoint of a training with the same network, whatever its classes were.

    Raises:
        RequestError: Tensors are missing, left over or of another shape; lists them.
        UnreadableFileError: The file is damaged or no checkpoint of sparseunet.
    """
    content = read_checkpoint(path).get("weights")
    if not isinstance(content, dict):
        raise UnreadableFileError(
            file=str(path),
            found="no weights of sparseunet in it",
            expected="checkpoint_final.pt or checkpoint_best.pt of a run",
            fix="name one of these, or the folder of a run",
        )
    given = {name: tensor for name, tensor in content.items() if not name.startswith(_HEADS)}
    own = {n: t for n, t in network.state_dict().items() if not n.startswith(_HEADS)}
    _require_same_channels(own, given, path)
    different = [
        f"  {name}: {_shape(given.get(name))} in the file, {_shape(own.get(name))} in the network"
        for name in [*own, *(name for name in given if name not in own)]
        if _shape(given.get(name)) != _shape(own.get(name))
    ]
    if different:
        more = len(different) - _MOST_NAMED
        rows = different[:_MOST_NAMED] + ([f"  and {more} more"] if more > 0 else [])
        raise RequestError(
            f"{path} does not fit the network; of {len(own)} tensors these differ:\n"
            + "\n".join(rows)
            + "\nTrain with the plans of the pretrained network: take them over when planning this "
            "dataset, then preprocess, and train with its base features.",
            setting="pretrained_weights",
        )
    network.load_state_dict(given, strict=False)


def _require_same_channels(own: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> None:
    first = next((name for name, tensor in own.items() if tensor.ndim >= 4), None)
    if first is None or first not in given or given[first].ndim != own[first].ndim:
        return
    here, there = own[first].shape[1], given[first].shape[1]
    if here != there and own[first].shape[0] == given[first].shape[0]:
        raise RequestError(
            f"{path} was trained on {there} input channels, this network takes {here}. Pretrained "
            f"weights need the same channels: choose a run on scans with {here}, or train from "
            "random weights.",
            setting="pretrained_weights",
        )


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "×".join(map(str, tensor.shape))
