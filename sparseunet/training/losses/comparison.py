"""What a loss is computed from: outputs of one resolution level and what is known about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

Total = Callable[[Tensor], Tensor]
"""Sums a vector over all processes that share a batch, gradients included."""

_NEVER = -1e4
"""Logit of a class that is part of the background: its probability is exactly 0. Minus infinity
would turn a product with 0 into no number."""


def only_here(sums: Tensor) -> Tensor:
    """Return the sums unchanged: the sum over a single process."""
    return sums


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """Outputs of a network and annotated voxels. For 2D networks the Z axis is missing."""

    logits_BKZYX: Tensor
    """Raw output, float32: one channel per class or per region."""
    labels_BZYX: Tensor
    """int64 label values; for classes the number of the channel. Anything where the weight is 0."""
    weight_BZYX: Tensor
    """Trust in each label, float32 in [0, 1]. 0 is unannotated."""
    annotated_BK: Tensor | None = None
    """bool, whether the class or region of a channel was looked for in the case; background always
    is. None: every one in every case."""
    in_region_BKZYX: Tensor | None = None
    """float32, 1 where a voxel is in the region of a channel (sigmoid per channel); None for
    exclusive classes (one softmax)."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each channel in the cross-entropy; None for 1 each."""
    batch_dice: bool = True
    """One Dice per channel over the whole batch instead of one per channel and sample."""
    enough_annotated: float = 0.0
    """Share of the voxels from which on the cross-entropy weighs as much as the Dice."""
    total: Total = only_here
    """Applied to every vector of sums before anything is divided by them."""


Loss = Callable[[Comparison], Tensor]
"""Returns a scalar, exactly 0 if nothing is annotated. Voxels of weight 0 change nothing."""


def merge_unannotated(
    logits_BKZYX: Tensor, labels_BZYX: Tensor, annotated_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """Let background stand for every class that was not looked for in a case.

    Where nobody looked for tumours, a voxel labelled background is background or tumour, so it is
    compared with the sum of both probabilities (marginal loss: Shi et al. 2021, Medical Image
    Analysis 70). As softmax is shared by all classes, that is the softmax after the logits of these
    classes and of background have become one, the logarithm of the sum of their exponentials.
    Cases in which every class was looked for come out as they went in, bit for bit.

    Args:
        logits_BKZYX: One channel per exclusive class, background first (or B, K, Y, X).
        labels_BZYX: int64 class indices.
        annotated_BK: bool; the first column is ignored.

    Returns:
        Logits in which the merged classes have probability 0, and labels in which they are
        background.
    """
    merged_BK = ~annotated_BK
    merged_BK[:, 0] = False
    space = (1,) * (logits_BKZYX.ndim - 2)
    merged_BK11 = merged_BK.view(*merged_BK.shape, *space)
    with_background_BK11 = merged_BK11.clone()
    with_background_BK11[:, 0] = True
    background_BZYX = torch.where(with_background_BK11, logits_BKZYX, -torch.inf).logsumexp(dim=1)
    kept_BKZYX = torch.where(merged_BK11[:, 1:], _NEVER, logits_BKZYX[:, 1:])
    samples_BZYX = torch.arange(len(labels_BZYX), device=labels_BZYX.device).view(-1, 1, *space[1:])
    is_merged_BZYX = merged_BK[samples_BZYX, labels_BZYX]
    return (
        torch.cat((background_BZYX.unsqueeze(1), kept_BKZYX), dim=1),
        labels_BZYX.masked_fill(is_merged_BZYX, 0),
    )


def region_targets(
    labels_BZYX: Tensor, regions: Sequence[Sequence[int]], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return 1 where a voxel's label belongs to a region, shape (B, regions, Z, Y, X).

    Args:
        labels_BZYX: int64 label values.
        regions: Label values of each region.
        dtype: Of the result.
    """
    highest = max(max(values) for values in regions)
    table = torch.zeros(len(regions), highest + 2, dtype=dtype)
    for row, values in zip(table, regions, strict=True):
        row[list(values)] = 1
    table = table.to(labels_BZYX.device)
    places_BZYX = labels_BZYX.clamp(max=highest + 1)
    return torch.stack([row[places_BZYX] for row in table], dim=1)


def weights_by_output(
    labels: LabelSchema, class_weights: Mapping[str, float]
) -> tuple[float, ...] | None:
    """Return the weight of each channel of the network, 1 where none is given; None if all are 1.

    Raises:
        RequestError: A name is no class or region of the dataset; lists those there are.
    """
    unknown = [name for name in class_weights if name not in labels.output_names]
    if unknown:
        raise RequestError(
            f"Class weights are given for {', '.join(unknown)}; the classes of the dataset are "
            f"{', '.join(labels.output_names)}."
        )
    if not class_weights:
        return None
    return tuple(class_weights.get(name, 1.0) for name in labels.output_names)
