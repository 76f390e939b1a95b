"""Slices that lie rather where labels or predictions already show objects."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.annotation.selection.staggered import in_order_of_priority, systematic_sample
from sparseunet.data.io import read_annotation
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

_SHARES = (4 / 6, 1 / 6, 1 / 6)
"""How often a slice is drawn anywhere, by the voxels of a class, by those at its border."""
POSITIVE_WEIGHT = 10.0
"""How much likelier than a slice without any object one that holds some is drawn."""


def select_foreground_aware(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Take slices anywhere (share 4/6), through objects (1/6) or their borders (1/6).

    nnActive's foreground-aware random baseline (`random-label2`, "66 % random"), which centres 3D
    patches where here a slice is laid: of the voxels of a class, or of its border (those that lack
    one of six neighbours), all weigh the same, and so do all classes of the scan. A slice is
    therefore likelier the more such voxels it holds, and small classes get as many as large ones.
    In place of a draw, slices lie at equal steps of the running sum of these weights, shifted from
    scan to scan as `select_staggered` shifts them, so that scans complement each other here, too.

    Uses the label files of the cases, which may be complete, partial, or predictions put in their
    place. Between annotated slices the numbers are interpolated linearly.

    Raises:
        RequestError: A case has no annotated slice, or the request holds no classes.
    """
    choose = partial(_choose_foreground_aware, _require_labels(request), request.seed)
    return choose_per_stack(stacks, request=request, choose=choose, reads_images=True)


def select_positive_weighted(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Draw without replacement, with more weight where there is an object.

    Z25 table 4 (ATLAS: "weighted sampling"), which leaves the weight open; here it is
    `POSITIVE_WEIGHT` times that of a slice without. Labels are used as in
    `select_foreground_aware`.

    Raises:
        RequestError: A case has no annotated slice, or the request holds no classes.
    """
    choose = partial(_choose_positive_weighted, _require_labels(request))
    return choose_per_stack(stacks, request=request, choose=choose, reads_images=True)


def _require_labels(request: SelectionRequest) -> LabelSchema:
    if request.labels is None:
        raise RequestError(
            "This selector draws slices by the objects in them and needs the dataset's classes."
        )
    return request.labels


def _choose_foreground_aware(
    labels: LabelSchema, seed: int, stack: SliceStack, count: int, _: int
) -> list[tuple[int, str]]:
    inside_CK, border_CK = (_in_proportion(one) for one in _count_voxels(stack, labels))
    anywhere_K = np.full(stack.num_slices, 1 / stack.num_slices)
    weights = (anywhere_K, inside_CK.sum(axis=0), border_CK.sum(axis=0))
    weight_K = np.sum([share * one for share, one in zip(_SHARES, weights, strict=True)], axis=0)
    slices = systematic_sample(weight_K, count=count, number=stack.number, seed=seed)
    in_order = in_order_of_priority(slices, number=stack.number, seed=seed)
    names = list(labels.foreground)

    def reason(index: int) -> str:
        if not inside_CK[:, index].any():
            return "no object is known here"
        return f"through {names[int(inside_CK[:, index].argmax())]}"

    return [(index, reason(index)) for index in in_order]


def _in_proportion(counts_CK: np.ndarray) -> np.ndarray:
    """Return the share of each slice in its class, less where there are more classes: 1 in sum.

    Zeros where no voxel is known of any class.
    """
    sums_C = counts_CK.sum(axis=1, keepdims=True)
    shares_CK = np.divide(counts_CK, sums_C, out=np.zeros_like(counts_CK), where=sums_C > 0)
    return np.asarray(shares_CK / max(1, np.count_nonzero(sums_C)))


def _choose_positive_weighted(
    labels: LabelSchema, stack: SliceStack, count: int, seed: int
) -> list[tuple[int, str]]:
    positive_K = _read_shares(stack, labels).max(axis=1) > 0
    weight_K = np.where(positive_K, POSITIVE_WEIGHT, 1.0)
    # The smallest of exponential times with these rates comes first: draws without replacement.
    order = np.argsort(np.random.default_rng(seed).exponential(size=stack.num_slices) / weight_K)
    reasons = ("drawn among slices without objects", "holds an object, drawn among such")
    return [(int(index), reasons[int(positive_K[index])]) for index in order[:count]]


def _count_voxels(stack: SliceStack, labels: LabelSchema) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of every class, and those at its border, per slice, both (classes, K)."""
    if stack.case.label is None:
        raise _no_labels(stack)
    annotation, _ = read_annotation(stack.case.label, labels)
    labels_KYX = np.moveaxis(annotation.labels_ZYX, stack.axis, 0)
    known_KYX = np.moveaxis(annotation.annotated_ZYX, stack.axis, 0)
    inside, border = [], []
    for values in labels.foreground.values():
        inside_KYX = np.isin(labels_KYX, values) & known_KYX
        core_KYX = ndimage.binary_erosion(inside_KYX | ~known_KYX, border_value=1)
        inside.append(inside_KYX.sum(axis=(1, 2)))
        border.append((inside_KYX & ~core_KYX).sum(axis=(1, 2)))
    known_K = np.asarray(known_KYX.any(axis=(1, 2)))
    return (
        _fill_gaps(np.array(inside, float), known_K, stack),
        _fill_gaps(np.array(border, float), known_K, stack),
    )


def _read_shares(stack: SliceStack, labels: LabelSchema) -> np.ndarray:
    """Return the share of every class in every slice, (K, classes), gaps interpolated."""
    share_KC = stack.read_foreground(labels)
    if share_KC is None:
        raise _no_labels(stack)
    return _fill_gaps(share_KC.T, ~np.isnan(share_KC.sum(axis=1)), stack).T


def _fill_gaps(values_CK: np.ndarray, known_K: np.ndarray, stack: SliceStack) -> np.ndarray:
    """Interpolate along the slices where they are not known."""
    if not known_K.any():
        raise _no_labels(stack)
    known, everywhere = np.flatnonzero(known_K), np.arange(len(known_K))
    return np.stack([np.interp(everywhere, known, values_K[known]) for values_K in values_CK])


def _no_labels(stack: SliceStack) -> RequestError:
    return RequestError(
        f"{stack.case.name} has no annotated slice, and this selector prefers slices in which "
        "objects are known. Give it a label file (a rough one or a prediction will do), or "
        "choose a selector that needs none, such as staggered or random."
    )
