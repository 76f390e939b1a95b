"""Slices at random, all equally likely (Z25 §2.3 "uniform random", P23 §3.1 "random")."""

from collections.abc import Sequence

import numpy as np

from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack


def select_random(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Draw slices of every stack uniformly, without replacement.

    More slices with the same seed begin with the same ones, so a plan can grow.
    """
    return choose_per_stack(stacks, request=request, choose=_choose)


def _choose(stack: SliceStack, count: int, seed: int) -> list[tuple[int, str]]:
    order = np.random.default_rng(seed).permutation(stack.num_slices)
    return [(int(index), "drawn at random") for index in order[:count]]
