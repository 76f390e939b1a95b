"""The weights of a network in a file: ours by their own names, nnU-Net's by nnU-Net's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseunet.errors import UnreadableFileError
from sparseunet.networks.checkpoint import read_checkpoint

_RENAMED = (
    (r"encoder\.stem\.", r"encoder.stem.convs.0."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.first\.", r"encoder.stages.\1.blocks.\2.conv1."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.second\.", r"encoder.stages.\1.blocks.\2.conv2."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.shortcut\.", r"encoder.stages.\1.blocks.\2.skip."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.", r"encoder.stages.\1.0.convs.\2."),
    (r"decoder\.stages\.(\d+)\.(\d+)\.", r"decoder.stages.\1.convs.\2."),
    (r"decoder\.transposed\.", r"decoder.transpconvs."),
    (r"decoder\.heads\.", r"decoder.seg_layers."),
)
"""How a name of ours starts, and how the same weight's name starts in nnU-Net 2.8.1."""
_POSITION_IN_BLOCK = {"conv": "0", "norm": "1"}


def nnunet_names(name: str) -> tuple[str, ...]:
    """Return every name that a weight of a `UNet` has in a state dict of nnU-Net 2.8.1.

    nnU-Net registers the parts of a block twice, and the encoder once more within the decoder, so a
    weight has one, two or four names. The first is the one that says what it is.

    Raises:
        ValueError: No weight of a `UNet` is called so.
    """
    for start, theirs in _RENAMED:
        match = re.match(start, name)
        if match:
            own = match.expand(theirs) + name[match.end() :]
            break
    else:
        raise ValueError(f"No weight of a U-Net is called {name!r}.")
    names = [own]
    block, part, kind = own.rsplit(".", 2)
    if part in _POSITION_IN_BLOCK:
        names.append(f"{block}.all_modules.{_POSITION_IN_BLOCK[part]}.{kind}")
    if own.startswith("encoder."):
        names += [f"decoder.{alias}" for alias in names]
    return tuple(names)


def weights_to_nnunet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict that nnU-Net 2.8.1 loads; tensors are shared, not copied."""
    return {alias: tensor for name, tensor in weights.items() for alias in nnunet_names(name)}


def read_weights(path: Path, *, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Read the weights of one network, whoever wrote them.

    Nothing larger than the file is ever taken into memory.

    Args:
        path: `.pt` of this package or `.pth` of nnU-Net 2.
        shapes: What the network has, by our names.

    Returns:
        Exactly the tensors that `shapes` names, float32; the counts of batch norm are int64.

    Raises:
        UnreadableFileError: The file is damaged, holds code, or its weights do not fit.
    """
    content = read_checkpoint(path, in_place=True)
    theirs = path.suffix == ".pth"
    found = content.get("network_weights" if theirs else "weights")
    if not isinstance(found, dict):
        raise _wrong_file(path, "no weights in it")
    names = {name: nnunet_names(name) if theirs else (name,) for name in shapes}
    problems = _problems(found, shapes, names)
    if not problems and sum(found[own].nbytes for own, *_ in names.values()) > path.stat().st_size:
        problems.append("the same numbers under several names")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise _wrong_file(path, "; ".join(problems[:3]) + more)
    return {name: _own(found[aliases[0]]) for name, aliases in names.items()}


def _problems(
    found: Mapping[str, Any],
    shapes: Mapping[str, torch.Size],
    names: Mapping[str, tuple[str, ...]],
) -> list[str]:
    problems = []
    known = {alias for aliases in names.values() for alias in aliases}
    for name, shape in shapes.items():
        first, *aliases = names[name]
        problem = _problem(found.get(first), shape)
        if problem:
            problems.append(f"{first} {problem}, expected shape {tuple(shape)}")
            continue
        if not found[first].isfinite().all():
            problems.append(f"{first} holds NaN or infinity")
            continue
        for alias in aliases:
            other = found.get(alias)
            if other is not None and (_problem(other, shape) or not _equal(found[first], other)):
                problems.append(f"{alias} differs from {first}, which is the same weight")
    return problems + [f"{name!s:.100} is unknown" for name in found if name not in known]


def _problem(tensor: object, shape: torch.Size) -> str:
    """Return what is wrong with a tensor, or nothing."""
    if tensor is None:
        return "is missing"
    if (
        not isinstance(tensor, Tensor)
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or (
            tensor.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
            and not _is_count(tensor)
        )
    ):
        return "is no tensor of floating point numbers"
    if tensor.shape != shape:
        return f"has shape {tuple(tensor.shape)}"
    if tensor.untyped_storage().nbytes() < tensor.nbytes:  # a view that repeats its numbers
        return "does not lie whole in the file"
    return ""


def _is_count(tensor: Tensor) -> bool:
    """Whether it may be the number of batches that a batch norm has seen."""
    return tensor.dtype == torch.int64 and tensor.ndim == 0


def _own(tensor: Tensor) -> Tensor:
    dtype = tensor.dtype if _is_count(tensor) else torch.float32
    return tensor.to(dtype, memory_format=torch.contiguous_format, copy=True)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)


def _wrong_file(path: Path, reason: str) -> UnreadableFileError:
    return UnreadableFileError(
        file=str(path),
        found=f"weights that do not fit the network of the plan ({reason})",
        expected="the weights of the network that the model's plan describes",
        fix="restore the file or train again",
    )
