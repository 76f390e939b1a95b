"""Maximum coverage: few slices that are similar to all others (Z20, "Representative Selection").

A set S of slices covers a slice j as well as its most similar member does, and all of them by
F(S) = Σ_j max_{i in S} sim(i, j) with the cosine similarity of features (Z20 eq. 5 to 7). The best
set is hard to find; adding always the slice that raises F most (eq. 8) reaches at least 1 − 1/e of
the best, counted from similarity −1, and gives an order of priority at once.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from sparseunet.data.rounding import divisors

_NUM_AT_ONCE = 32
"""Candidates whose gain is computed in one matrix product; bounds memory to 32 numbers a slice."""


def normalise_rows(features_ND: np.ndarray) -> np.ndarray:
    """Return float32 rows of length 1, whose products are cosine similarities.

    Rows that are 0, or nothing beside the longest but its rounding, become 0: they have no
    direction.
    """
    length_N = np.linalg.norm(features_ND, axis=1, keepdims=True)
    scale_N = divisors(length_N, largest=length_N.max(initial=0), dtype=features_ND.dtype)
    return (features_ND / scale_N.astype(length_N.dtype)).astype(np.float32)


def greedy_coverage(
    features_ND: np.ndarray,
    *,
    count: int,
    groups: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
) -> list[tuple[int, float]]:
    """Choose `count` rows one by one, each the one that raises coverage most.

    Exact, not approximate: gains only shrink as the set grows, so a candidate whose last known gain
    is below the best new one need not be looked at again (lazy greedy, Minoux 1978). The similarity
    matrix is never held: N rows of D features need N·(D + 32) numbers. Equal gains go to the first
    row.

    Args:
        features_ND: One row per slice, of any length; compared by cosine.
        count: How many rows to choose, at most N and at most the sum of `counts`.
        groups: With `counts`, the group of every row.
        counts: Of group g no more than `counts[g]` rows are chosen. The bound is 1/2 then (a
            partition matroid; Fisher, Nemhauser and Wolsey 1978).

    Returns:
        Row, and the mean over all rows of the similarity to the most similar chosen one (F / N),
        reached with it and all before it.

    Example: three rows, the first two with similarity 0.8, the third with 0.6 to the second and 0
    to the first. Coverage starts at -1 each. Row 1 raises it to (0.8, 1, 0.6), the largest sum,
    mean 0.8. Then row 0 would raise it to (1, 1, 0.6), a gain of 0.2, and row 2 to (0.8, 1, 1), a
    gain of 0.4: row 2 is next, mean 0.93.

    >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> [(row, round(mean, 2)) for row, mean in greedy_coverage(rows, count=2)]
    [(1, 0.8), (2, 0.93)]
    """
    # 1. Similarity of each row to the most similar chosen one: none is chosen, so -1, the least.
    unit_ND = normalise_rows(features_ND)
    best_N = np.full(len(unit_ND), -1.0, np.float32)
    # 2. The gain of a first row i is sum_j (sim(i, j) + 1), one product with the sum of all rows.
    gains = unit_ND @ unit_ND.sum(axis=0, dtype=np.float64) + len(unit_ND)
    heap = [(-gain, row, 0) for row, gain in enumerate(gains.tolist())]
    heapq.heapify(heap)
    left = None if counts is None else list(counts)
    # 3. Take the row of largest gain, unless its group is full, and update the similarities.
    chosen: list[tuple[int, float]] = []
    while len(chosen) < count:
        row = _pop_best(heap, unit_ND, best_N, generation=len(chosen))
        if left is not None and groups is not None:
            if not left[groups[row]]:
                continue
            left[groups[row]] -= 1
        np.maximum(best_N, unit_ND @ unit_ND[row], out=best_N)
        chosen.append((row, float(best_N.mean(dtype=np.float64))))
    return chosen


def _pop_best(
    heap: list[tuple[float, int, int]],
    unit_ND: np.ndarray,
    best_N: np.ndarray,
    *,
    generation: int,
) -> int:
    """Remove and return the row with the largest gain.

    Args:
        heap: (−gain, row, generation in which the gain was computed), smallest first.
        unit_ND: All rows, of length 1.
        best_N: Similarity of each row to the most similar chosen one.
        generation: Number of rows chosen so far; gains of earlier generations are upper bounds.
    """
    # Gains at the top of the heap are computed anew until the largest is a current one. The others
    # are upper bounds below it, so none of them can be larger.
    while heap[0][2] != generation:
        stale: list[int] = []
        while heap and heap[0][2] != generation and len(stale) < _NUM_AT_ONCE:
            stale.append(heapq.heappop(heap)[1])
        similarity_SN = unit_ND[stale] @ unit_ND.T
        similarity_SN -= best_N
        gain_S = np.maximum(similarity_SN, 0, out=similarity_SN).sum(axis=1, dtype=np.float64)
        for gain, row in zip(gain_S.tolist(), stale, strict=True):
            heapq.heappush(heap, (-gain, row, generation))
    return heapq.heappop(heap)[1]
