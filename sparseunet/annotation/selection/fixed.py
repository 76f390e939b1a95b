"""Every n-th slice (Z25 §2.3 "fixed interval", P23 §3.1 "Keep_n", Z20 "equal interval").

The papers leave open where the first slice lies and what becomes of a remainder. Taking 0, n, 2n
and so on puts one slice on the very end, mostly air, leaves up to n − 1 slices uncovered at the
other, and gives ⌈D / n⌉ slices where Z20 counts ⌊D / n⌋. Here the number is given and exact, and
both ends are half an interval away.
"""

from collections.abc import Sequence

from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack


def select_fixed(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose slices at equal intervals in every stack; see `fixed_interval_slices`.

    The order of priority visits the middle first and then fills the largest gaps, so that a plan
    that is given up half-way is still spread out.
    """
    return choose_per_stack(stacks, request=request, choose=_choose)


def fixed_interval_slices(num_slices: int, *, count: int) -> tuple[int, ...]:
    """Choose `count` slices at equal intervals, half an interval from both ends.

    Slice i is floor((i + 1/2) · num_slices / count), so the choice depends on nothing but the two
    numbers. Sorted, without repetition; empty when `count` is 0.

    Raises:
        ValueError: `count` is negative or larger than `num_slices`.
    """
    if not 0 <= count <= num_slices:
        raise ValueError(f"Cannot choose {count} of {num_slices} slices.")
    return tuple((2 * i + 1) * num_slices // (2 * count) for i in range(count))


def spread_first(indices: Sequence[int]) -> tuple[int, ...]:
    """Return the same indices, the middle one first, then always the one farthest from all before.

    Of several equally far ones the smallest comes first.
    """
    left = sorted(indices)
    if not left:
        return ()
    ordered = [left.pop((len(left) - 1) // 2)]
    while left:
        distances = [min(abs(index - other) for other in ordered) for index in left]
        ordered.append(left.pop(distances.index(max(distances))))
    return tuple(ordered)


def _choose(stack: SliceStack, count: int, _: int) -> list[tuple[int, str]]:
    chosen = spread_first(fixed_interval_slices(stack.num_slices, count=count))
    return [(index, f"one of {count} at equal intervals") for index in chosen]
