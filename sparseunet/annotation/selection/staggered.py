"""Equal intervals whose grid is shifted from scan to scan, so that scans complement each other.

With `fixed` every scan is annotated at the same relative places: one slice per scan shows the
network the middle of every body and never an end. Here the grid of scan number i starts at the term
u_i = frac(1/2 + i · 0.6180...) of the golden-ratio sequence. Its first terms, at any length, are
spread evenly over [0, 1) (Kuipers and Niederreiter 1974, ch. 2: the discrepancy of n terms is at
most of the order of log(n) / n), and so are the terms after any number of terms.

All fractions are whole numbers of 2⁻⁶⁴, so that places are the same on every machine.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from sparseunet.annotation.selection.per_stack import require_counts, take_turns
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack

_ONE = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
"""(√5 − 1) / 2 in units of 2⁻⁶⁴."""
_SILVER = 0x6A09E667F3BCC908
"""√2 − 1. Another step for which scan comes next: with the golden one it would be the neighbour."""
_OF_SEED = 0xBB67AE8584CAA73B
"""√3 − 1. How far the start of all sequences moves from seed to seed."""


def select_staggered(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose slices at equal intervals, shifted by `SliceStack.number`; no image is read.

    The slices of a scan depend on its number, depth and count and on the seed alone. The order of
    priority takes turns: first of all scans, then second of all; each turn by itself is spread over
    the scans' length, too, so that a plan that is given up anywhere is still even.

    Raises:
        RequestError: No counts are given, or a stack has fewer slices than asked for.
    """
    counts = require_counts(stacks, request)
    return take_turns(
        [
            _choose(stack, count, request.seed) if count else []
            for stack, count in zip(stacks, counts, strict=True)
        ]
    )


def staggered_slices(num_slices: int, *, count: int, number: int, seed: int = 0) -> tuple[int, ...]:
    """Choose `count` slices at equal intervals, shifted as far as the number of the scan says.

    Slice j is floor((j + u) · num_slices / count) with u = `shift(number, seed)`. Sorted, without
    repetition; empty when `count` is 0. Scan 0 of seed 0 has u = 1/2, which is what `fixed` does.

    >>> [staggered_slices(36, count=2, number=number) for number in range(4)]
    [(9, 27), (2, 20), (13, 31), (6, 24)]

    Raises:
        ValueError: `count` is negative or larger than `num_slices`.
    """
    if not 0 <= count <= num_slices:
        raise ValueError(f"Cannot choose {count} of {num_slices} slices.")
    start = _term(_GOLDEN, number, seed)
    return tuple((j * _ONE + start) * num_slices // (count * _ONE) for j in range(count))


def shift(number: int, seed: int = 0) -> float:
    """Return the shift of scan `number` in [0, 1), as a share of the interval between slices."""
    return _term(_GOLDEN, number, seed) / _ONE


def number_scans(names: Iterable[str]) -> dict[str, int]:
    """Return the number of every scan: its place in the order of names, with numbers as numbers.

    Scans whose names come after those there are, as `patient_12` after `patient_9`, leave the
    numbers of the others as they are.
    """
    in_order = sorted(names, key=lambda name: (_natural(name), name))
    return {name: number for number, name in enumerate(in_order)}


def visit_evenly(numbers: Sequence[int], *, seed: int) -> tuple[int, ...]:
    """Return the order in which to take scans, so that any first n of them have even shifts.

    The order walks over [0, 1) in steps of √2 − 1 and always takes the scan that is not taken yet
    whose shift is nearest, around the ends, of equally near ones the lower. So the first n scans
    are spread over the order of names, too, and more scans contain those of fewer.

    Args:
        numbers: Of the scans that may be taken, all different.
        seed: Moves the start.

    Returns:
        Positions in `numbers`, each once; empty if there are none.
    """
    shifts = [_term(_GOLDEN, number, seed) for number in numbers]
    # Python's sort is stable, and no two numbers below 2⁶⁴ have the same shift.
    left = sorted(range(len(numbers)), key=shifts.__getitem__)
    starts = np.array([shifts[place] for place in left], np.uint64)
    taken = []
    for turn in range(len(numbers)):
        target = np.uint64(_term(_SILVER, turn, seed))
        # Differences wrap around: a distance is the smaller of the two ways.
        distances = np.minimum(starts - target, target - starts)
        nearest = int(np.argmin(distances))
        taken.append(left.pop(nearest))
        starts = np.delete(starts, nearest)
    return tuple(taken)


def systematic_sample(weights_K: np.ndarray, *, count: int, number: int, seed: int) -> list[int]:
    """Draw slices in proportion to weights, at equal steps of their running sum (no repetition).

    Slice i is taken with probability min(1, c · weight i), c such that `count` are taken, if the
    start is a random number; here it is the shift of the scan's number, so that scans complement
    each other (systematic sampling with unequal probabilities, Madow 1949).

    Args:
        weights_K: float64, at least `count` of them above 0, none below.
        count: How many slices.
        number: Of the scan.
        seed: As in `shift`.

    Returns:
        `count` different positions, sorted.
    """
    shares_K = _inclusion(np.asarray(weights_K, float), count)
    ends_K = np.cumsum(shares_K)
    ends_K[-1] = count  # of the sum, which rounding may leave a little below
    steps = np.arange(count) + shift(number, seed)
    found = np.searchsorted(ends_K, steps, side="right")
    # A slice that is certain has length 1, up to rounding: no two steps may fall into it.
    chosen: list[int] = []
    for index in found:
        free = index
        while free in chosen or not weights_K[free]:
            free = (free + 1) % len(weights_K)
        chosen.append(int(free))
    return sorted(chosen)


def in_order_of_priority(slices: Sequence[int], *, number: int, seed: int) -> list[int]:
    """Return sorted slices of a scan in the order to annotate them.

    The first changes from scan to scan by the silver-ratio sequence; the others follow so that any
    first few are spread over the scan.
    """
    count = len(slices)
    first = _term(_SILVER, number, seed) * count // _ONE
    return [slices[(first + step) % count] for step in _spread(count)]


def _choose(stack: SliceStack, count: int, seed: int) -> list[tuple[int, str]]:
    slices = staggered_slices(stack.num_slices, count=count, number=stack.number, seed=seed)
    reason = f"one of {count} at equal intervals, shifted from scan to scan"
    in_order = in_order_of_priority(slices, number=stack.number, seed=seed)
    return [(index, reason) for index in in_order]


def _term(step: int, number: int, seed: int) -> int:
    """Return term `number` of the sequence of a step, in units of 2⁻⁶⁴."""
    return (_ONE // 2 + number * step + seed * _OF_SEED) % _ONE


@cache
def _spread(count: int) -> tuple[int, ...]:
    """Return 0 ... count − 1 in the order of their reversed bits: halves, then quarters, ...

    >>> _spread(8)
    (0, 4, 2, 6, 1, 5, 3, 7)
    """
    num_bits = max(1, (count - 1).bit_length())
    return tuple(sorted(range(count), key=lambda place: f"{place:0{num_bits}b}"[::-1]))


def _inclusion(weights_K: np.ndarray, count: int) -> np.ndarray:
    """Return the probability of each slice: in proportion to its weight, at most 1, `count` in sum.

    Example: of the weights 6, 1, 1, 1, 1 two are to be taken. In proportion that is 1.2, 0.2, ...;
    the first is certain, and the others share what is left: 1, 1/4, 1/4, 1/4, 1/4.
    """
    shares_K = np.zeros(len(weights_K))
    certain_K = np.zeros(len(weights_K), bool)
    while True:
        left = count - certain_K.sum()
        others_K = np.where(certain_K, 0.0, weights_K)
        total = others_K.sum()
        shares_K = np.where(certain_K, 1.0, others_K / total * left if total else 0.0)
        if not (too_much_K := shares_K > 1).any():
            return shares_K
        certain_K |= too_much_K


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
