"""Selectors that look at one scan at a time."""

import hashlib
from collections.abc import Callable, Sequence

from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.errors import RequestError

ChooseInStack = Callable[[SliceStack, int, int], list[tuple[int, str]]]
"""(stack, count, seed) to `count` pairs of slice index and reason, the most important first."""


def choose_per_stack(
    stacks: Sequence[SliceStack], *, request: SelectionRequest, choose: ChooseInStack
) -> tuple[ChosenSlice, ...]:
    """Choose in every stack by itself, and take turns: first of all scans, then second of all, ...

    The seed of a stack depends on the request's seed and the name of the case, so that a scan gets
    the same slices whatever other scans there are.

    Raises:
        RequestError: No counts are given, or a stack has fewer slices than asked for.
    """
    if request.counts is None:
        raise RequestError(
            "This selector looks at one scan at a time and needs a number of slices per scan; only "
            "selectors of the whole dataset work without."
        )
    too_many = [
        f"{stack.case.name} ({count} of {stack.num_slices})"
        for stack, count in zip(stacks, request.counts, strict=True)
        if count > stack.num_slices
    ]
    if too_many:
        raise RequestError(f"More slices are asked for than there are: {', '.join(too_many)}.")
    chosen = [
        choose(stack, count, stack_seed(stack, request.seed)) if count else []
        for stack, count in zip(stacks, request.counts, strict=True)
    ]
    return tuple(
        ChosenSlice(stack=number, index=in_stack[turn][0], reason=in_stack[turn][1])
        for turn in range(max(request.counts, default=0))
        for number, in_stack in enumerate(chosen)
        if turn < len(in_stack)
    )


def stack_seed(stack: SliceStack, seed: int) -> int:
    """Return a seed for one stack that differs between cases and axes."""
    content = f"{seed}/{stack.case.name}/{stack.axis}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
