"""Slices such that none is far from a chosen one (core-set, Sener and Savarese 2018)."""

from collections.abc import Sequence

import numpy as np

from sparseunet.annotation.selection.features import intensity_features
from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack


def select_coreset(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Choose by k-centre greedy in every stack: always the slice farthest from all chosen ones.

    The largest distance left is at most twice the best possible with as many slices. The paper
    starts from labelled samples and takes features from a trained network; here the first slice is
    the one nearest the mean and features are intensities (`intensity_features`), so nothing is
    trained and the seed has no part in it.
    """
    return choose_per_stack(stacks, request=request, choose=_choose, reads_images=True)


def k_centre_greedy(features_ND: np.ndarray, *, count: int) -> list[tuple[int, float]]:
    """Return `count` rows, each the farthest from those before, and that distance.

    The first is the row nearest the mean, with its distance from it. Of equally far rows the first
    one is taken; no row occurs twice, even if rows are equal.
    """
    squared_N = ((features_ND - features_ND.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [(int(squared_N.argmin()), float(np.sqrt(squared_N.min())))]
    farthest_N = np.full(len(features_ND), np.inf)
    while len(chosen) < count:
        last = chosen[-1][0]
        farthest_N = np.minimum(farthest_N, ((features_ND - features_ND[last]) ** 2).sum(axis=1))
        farthest_N[last] = -1  # below the distance of any other, also of an equal one
        row = int(farthest_N.argmax())
        chosen.append((row, float(np.sqrt(farthest_N[row]))))
    return chosen[:count]


def _choose(stack: SliceStack, count: int, _: int) -> list[tuple[int, str]]:
    (first, _distance), *others = k_centre_greedy(intensity_features(stack.read()), count=count)
    return [
        (first, "nearest to the mean of all slices"),
        *((row, f"farthest from those before, by {distance:.2f}") for row, distance in others),
    ]
