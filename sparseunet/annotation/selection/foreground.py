"""Random draws that prefer slices where labels or predictions already show objects."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

_SHARE_OF_OBJECTS = _SHARE_OF_ENDS = 1 / 6
POSITIVE_WEIGHT = 10.0
"""How much likelier than a slice without any object one that holds some is drawn."""


def select_foreground_aware(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Draw 4/6 of the slices anywhere, 1/6 among those with an object and 1/6 where objects end.

    nnActive's improved random baseline (`random-label2`, "66 % random"), which draws 3D patches;
    for slices its "border" becomes the two slices on both sides of every end of a class along the
    axis. The class is drawn first, so a small one gets as many slices as a large one. Shares of a
    slice are rounded at random, so they are met over many scans. A group that has run out is
    filled up from anywhere.

    Uses the label files of the cases, which may be complete, partial, or predictions put in their
    place. Between annotated slices the share of a class is interpolated linearly.

    Raises:
        RequestError: A case has no annotated slice, or the request holds no classes.
    """
    choose = partial(_choose_foreground_aware, _require_labels(request))
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
    labels: LabelSchema, stack: SliceStack, count: int, seed: int
) -> list[tuple[int, str]]:
    random = np.random.default_rng(seed)
    present_KC = _read_shares(stack, labels) > 0
    names = list(labels.foreground)
    groups = [
        [np.flatnonzero(present_K) for present_K in present_KC.T],
        [_ends(present_K) for present_K in present_KC.T],
    ]
    reasons = ["holds {}, drawn among such", "at an end of {}, drawn among such"]
    wanted = [
        min(count, int(count * share + random.random()))
        for share in (_SHARE_OF_OBJECTS, _SHARE_OF_ENDS)
    ]
    chosen: dict[int, str] = {}
    for slices_of_class, reason, number in zip(groups, reasons, wanted, strict=True):
        for _ in range(min(number, count - len(chosen))):
            left = [np.setdiff1d(slices, list(chosen)) for slices in slices_of_class]
            classes = [class_ for class_, slices in enumerate(left) if len(slices)]
            if not classes:
                break
            class_ = int(random.choice(classes))
            chosen[int(random.choice(left[class_]))] = reason.format(names[class_])
    for index in random.permutation(stack.num_slices):
        if len(chosen) < count:
            chosen.setdefault(int(index), "drawn at random")
    # Plans are given up half-way: the beginning must look like the whole.
    order = random.permutation(count)
    pairs = list(chosen.items())
    return [pairs[place] for place in order]


def _choose_positive_weighted(
    labels: LabelSchema, stack: SliceStack, count: int, seed: int
) -> list[tuple[int, str]]:
    positive_K = _read_shares(stack, labels).max(axis=1) > 0
    weight_K = np.where(positive_K, POSITIVE_WEIGHT, 1.0)
    # The smallest of exponential times with these rates comes first: draws without replacement.
    order = np.argsort(np.random.default_rng(seed).exponential(size=stack.num_slices) / weight_K)
    reasons = ("drawn among slices without objects", "holds an object, drawn among such")
    return [(int(index), reasons[int(positive_K[index])]) for index in order[:count]]


def _read_shares(stack: SliceStack, labels: LabelSchema) -> np.ndarray:
    """Return the share of every class in every slice, (K, classes), gaps interpolated."""
    share_KC = stack.read_foreground(labels)
    if share_KC is None or np.isnan(share_KC).all():
        raise RequestError(
            f"{stack.case.name} has no annotated slice, and this selector prefers slices in which "
            "objects are known. Give it a label file (a rough one or a prediction will do), or "
            "choose a selector that needs none, such as fixed or random."
        )
    known = np.flatnonzero(~np.isnan(share_KC).any(axis=1))
    everywhere = np.arange(len(share_KC))
    return np.stack([np.interp(everywhere, known, share_K[known]) for share_K in share_KC.T], 1)


def _ends(present_K: np.ndarray) -> np.ndarray:
    """Return the slices next to a change between absent and present, on both sides of it."""
    before = np.flatnonzero(present_K[1:] != present_K[:-1])
    return np.union1d(before, before + 1)
