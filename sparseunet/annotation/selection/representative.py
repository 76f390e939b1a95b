"""Representative slices by learned features: within scans (Z20, Z25) and over a dataset (Z25)."""

from collections.abc import Sequence

import numpy as np

from sparseunet.annotation.selection.coverage import greedy_coverage
from sparseunet.annotation.selection.learned_features import EncoderRecipe, learn_features
from sparseunet.annotation.selection.per_stack import (
    require_counts,
    require_enough_slices,
    take_turns,
)
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.errors import RequestError

THREE_PLANES = EncoderRecipe(encoder="autoencoder", axes=(0, 1, 2), num_epochs=20)
MASKED = EncoderRecipe(encoder="masked_autoencoder", axes=None, num_epochs=80)


def select_representative(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose the slices of every scan that represent its others best (RA, Z20).

    An auto-encoder learns from slices of the three planes of all scans; its features are compared
    by cosine, and slices are chosen by greedy maximum coverage within their stack, the order of
    choice being the order of priority. What differs from Z20 is the encoder: three convolutions
    trained from scratch on pictures of 64 × 64 pixels instead of VGG-19 with ImageNet's weights on
    128 × 128 or 256 × 256.
    """
    return _select_within(stacks, request, THREE_PLANES)


def select_mae(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose as `select_representative` does, with features of a masked auto-encoder (UAL, Z25).

    It is trained on slices across each stack's axis. Z25 states neither its size nor its training.
    """
    return _select_within(stacks, request, MASKED)


def select_over_dataset(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose the slices of all scans that represent all slices of all scans best.

    What Z25's limitations name as the untried better way: features and coverage as in
    `select_mae`, but over the whole dataset, so scans that resemble others may get no slice. With
    `request.counts` every scan gets its number, and which slices it gives depends on the others.

    Raises:
        RequestError: More slices are asked for than there are.
    """
    sizes = [stack.num_slices for stack in stacks]
    if request.counts is not None:
        require_enough_slices(stacks, request.counts)
    elif request.total > sum(sizes):
        raise RequestError(
            f"More slices are asked for than there are: {request.total} of {sum(sizes)}."
        )
    if not request.total:
        return ()
    features_ND = np.concatenate(learn_features(stacks, request=request, recipe=MASKED))
    stack_N = np.repeat(np.arange(len(stacks)), sizes).tolist()
    first = np.cumsum([0, *sizes])
    chosen = greedy_coverage(
        features_ND, count=request.total, groups=stack_N, counts=request.counts
    )
    return tuple(
        ChosenSlice(
            stack=stack_N[row],
            index=int(row - first[stack_N[row]]),
            reason=f"with those before resembles the slices of all scans by {covered:.3f}",
        )
        for row, covered in chosen
    )


def _select_within(
    stacks: Sequence[SliceStack], request: SelectionRequest, recipe: EncoderRecipe
) -> tuple[ChosenSlice, ...]:
    counts = require_counts(stacks, request)
    if not request.total:
        return ()
    features = learn_features(stacks, request=request, recipe=recipe)
    return take_turns(
        [
            [
                (row, f"with those before resembles the slices of its scan by {covered:.3f}")
                for row, covered in greedy_coverage(features_KD, count=count)
            ]
            for features_KD, count in zip(features, counts, strict=True)
        ]
    )
