"""Which volumes to annotate when there is not enough annotation for all."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparseunet.annotation.selection.slices import SliceStack
from sparseunet.annotation.selection.staggered import visit_evenly
from sparseunet.data.rounding import divisors
from sparseunet.progress import track

_QUANTILES = np.linspace(0.05, 0.95, 10)
_NUM_LOGARITHMS = 6
"""Of three voxel sizes and three extents, with which a description begins."""

ChooseVolumes = Callable[..., tuple[int, ...]]
"""(one stack per volume, *, count, seed, num_workers) to `count` positions, in the order to take
them."""


def choose_at_random(
    stacks: Sequence[SliceStack], *, count: int, seed: int, num_workers: int
) -> tuple[int, ...]:
    """Draw volumes uniformly; with the same seed more volumes contain those of fewer."""
    del num_workers
    order = np.random.default_rng(seed).permutation(len(stacks))
    return tuple(sorted(int(place) for place in order[:count]))


def choose_farthest(
    stacks: Sequence[SliceStack], *, count: int, seed: int, num_workers: int
) -> tuple[int, ...]:
    """Take the most typical volume, then always the one most unlike all taken (k-centre).

    Volumes are alike in voxel size, extent and intensities (ten quantiles per channel, relative to
    the spread over all volumes); no label is looked at. Reads every scan once. Ties go to the
    earlier volume, so the seed has no effect.
    """
    del seed
    with ThreadPoolExecutor(num_workers) as pool:
        described = track(pool.map(_describe, stacks), total=len(stacks), label="Comparing scans")
        features = np.stack(list(described))
    spread = features.std(axis=0)
    largest = np.abs(features).max(axis=0)
    largest[:_NUM_LOGARITHMS] = np.maximum(largest[:_NUM_LOGARITHMS], 1)  # of 1 it is 0, rounded
    scale = divisors(spread, largest=largest, dtype=np.float32, num_values=len(features))
    features = (features - features.mean(axis=0)) / scale
    chosen = [int(np.argmin(np.linalg.norm(features, axis=1)))]
    distances = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        distances[chosen] = -1.0  # several volumes may be equal
        chosen.append(int(np.argmax(distances)))
        distances = np.minimum(distances, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return tuple(sorted(chosen[:count]))


def choose_evenly(
    stacks: Sequence[SliceStack], *, count: int, seed: int, num_workers: int
) -> tuple[int, ...]:
    """Take volumes whose shifts are even, see `visit_evenly`; more contain those of fewer."""
    del num_workers
    return visit_evenly([stack.number for stack in stacks], seed=seed)[:count]


VOLUME_CHOICES: dict[str, ChooseVolumes] = {
    "even": choose_evenly,
    "random": choose_at_random,
    "farthest": choose_farthest,
}
"""Name on the command line to how volumes are chosen."""


def _describe(stack: SliceStack) -> np.ndarray:
    """Return voxel size, extent and intensity quantiles of one scan."""
    slices_KCYX = stack.read()
    num_channels = slices_KCYX.shape[1]
    shape = np.array([slices_KCYX.shape[axis] for axis in (0, 2, 3)])
    spacing_mm = np.array(stack.spacing_mm)
    quantiles = np.quantile(
        slices_KCYX.swapaxes(0, 1).reshape(num_channels, -1), _QUANTILES, axis=1
    )
    return np.concatenate([np.log(spacing_mm), np.log(shape * spacing_mm), quantiles.ravel()])
