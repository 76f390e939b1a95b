"""Selectors that look at one scan at a time."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.errors import RequestError, SparseUNetError
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes

ChooseInStack = Callable[[SliceStack, int, int], list[tuple[int, str]]]
"""(stack, count, seed) to `count` pairs of slice index and reason, the most important first."""


def choose_per_stack(
    stacks: Sequence[SliceStack],
    *,
    request: SelectionRequest,
    choose: ChooseInStack,
    reads_images: bool = False,
) -> tuple[ChosenSlice, ...]:
    """Choose in every stack by itself, and take turns: first of all scans, then second of all, ...

    The seed of a stack depends on the request's seed and the name of the case, so that a scan gets
    the same slices whatever other scans there are.

    Args:
        stacks: The scans.
        request: With counts.
        choose: Called for every stack that gets slices.
        reads_images: Choosing takes long enough for progress and `request.num_workers` processes;
            `choose` must be picklable then.

    Raises:
        RequestError: No counts are given, or a stack has fewer slices than asked for.
    """
    counts = require_counts(stacks, request)
    jobs = [
        (stack, count, stack_seed(stack, request.seed))
        for stack, count in zip(stacks, counts, strict=True)
    ]
    work = partial(_choose_in, choose)
    if not reads_images:
        return take_turns([work(job) for job in jobs])
    results = map_in_processes(work, jobs, num_workers=request.num_workers)
    chosen = []
    for stack, found in zip(
        stacks, track(results, total=len(jobs), label="Choosing slices"), strict=True
    ):
        if isinstance(found, WorkerDiedError):
            raise SparseUNetError(f"Slices of {stack.case.name} were not chosen: a worker {found}.")
        chosen.append(found)
    return take_turns(chosen)


def require_counts(stacks: Sequence[SliceStack], request: SelectionRequest) -> tuple[int, ...]:
    """Return the number of slices per stack.

    Raises:
        RequestError: No counts are given, or a stack has fewer slices than asked for.
    """
    if request.counts is None:
        raise RequestError(
            "This selector looks at one scan at a time and needs a number of slices per scan; only "
            "selectors of the whole dataset work without."
        )
    require_enough_slices(stacks, request.counts)
    return request.counts


def require_enough_slices(stacks: Sequence[SliceStack], counts: Sequence[int]) -> None:
    """Check that no stack has fewer slices than asked for.

    Raises:
        RequestError: Names all stacks that have.
    """
    too_many = [
        f"{stack.case.name} ({count} of {stack.num_slices})"
        for stack, count in zip(stacks, counts, strict=True)
        if count > stack.num_slices
    ]
    if too_many:
        raise RequestError(f"More slices are asked for than there are: {', '.join(too_many)}.")


def take_turns(chosen: Sequence[Sequence[tuple[int, str]]]) -> tuple[ChosenSlice, ...]:
    """Put the choices of all stacks in one order: first of all stacks, then second of all, ..."""
    return tuple(
        ChosenSlice(stack=number, index=in_stack[turn][0], reason=in_stack[turn][1])
        for turn in range(max(map(len, chosen), default=0))
        for number, in_stack in enumerate(chosen)
        if turn < len(in_stack)
    )


def stack_seed(stack: SliceStack, seed: int) -> int:
    """Return a seed for one stack that differs between cases and axes."""
    content = f"{seed}/{stack.case.name}/{stack.axis}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _choose_in(choose: ChooseInStack, job: tuple[SliceStack, int, int]) -> list[tuple[int, str]]:
    stack, count, seed = job
    return choose(stack, count, seed) if count else []
