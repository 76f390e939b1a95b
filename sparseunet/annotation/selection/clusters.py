"""Cluster the slices of a scan and draw equally many from every cluster (P23 §3.1).

Four selectors differ in what they cluster. k-means with k = 15 runs on one point per slice; of
every cluster the same number of slices is drawn at random; a cluster that is too small hands the
rest to the most similar one. P23 leaves open, and is decided here:

- Fewer slices wanted than clusters, or fewer slices than that: k is the smallest of the three.
- A number that k does not divide: the largest clusters give one more.
- "Most similar": the nearest centre of a cluster that has slices left.
- Priority: one slice of every cluster, the largest first, then a second one of every cluster.
- Several channels: each is scaled to the same range (histogram, SSIM, perceptual) or variance
  (k-means), then points are joined and similarities averaged.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sparseunet.annotation.selection.per_stack import choose_per_stack
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.annotation.selection.ssim import ssim_of_all_pairs
from sparseunet.data.rounding import divisors, range_divisor

NUM_CLUSTERS = 15
"""Number of clusters of k-means; P23 finds it better than 5 and 10."""
NUM_BINS = 255
_NUM_STARTS = 10
"""Of k-means, the best kept; scikit-learn's default when P23 was written."""

MakePoints = Callable[[np.ndarray], np.ndarray]
"""Slices (K, channels, height, width) to one point per slice (K, D)."""


def select_kmeans(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Cluster the flattened slices (P23 "k-means").

    Only distances between slices matter to k-means, so it runs on K coordinates that have the same
    distances instead of on all pixels.
    """
    return _select(stacks, request, pixel_points)


def select_histogram(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Cluster the intensity histograms of the slices, 255 bins (P23 "Hist.").

    The range of the bins, which P23 leaves open, is that of the whole scan.
    """
    return _select(stacks, request, histogram_points)


def select_ssim(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Cluster the rows of the matrix of structural similarities between all slices (P23 "SSIM").

    The window, which P23 leaves open, is uniform with 7 × 7 pixels, scikit-image's default.
    """
    return _select(stacks, request, ssim_of_all_pairs)


def select_perceptual(
    stacks: Sequence[SliceStack], /, *, request: SelectionRequest
) -> tuple[ChosenSlice, ...]:
    """Cluster the rows of the matrix of LPIPS distances between all slices (P23 "Percept.").

    Raises:
        RequestError: `request.weights` does not hold the weights of AlexNet; nothing is downloaded.
    """
    from sparseunet.annotation.selection.perceptual import find_weights

    weights = find_weights(request.weights)
    return _select(stacks, request, partial(_perceptual_points, weights, request.device))


def draw_from_clusters(points_KD: np.ndarray, *, count: int, seed: int) -> list[tuple[int, int]]:
    """Cluster points and draw from all clusters alike.

    Args:
        points_KD: One point per slice.
        count: How many to draw, 1 to K.
        seed: Decides the start of k-means and the draws.

    Returns:
        `count` pairs of point and its cluster, clusters taking turns, the largest first.
    """
    random = np.random.default_rng(seed)
    cluster_K, centres_CD = _cluster(points_KD, num=min(NUM_CLUSTERS, count), random=random)
    sizes_C = np.bincount(cluster_K, minlength=len(centres_CD))
    order = sorted(np.flatnonzero(sizes_C), key=lambda cluster: (-sizes_C[cluster], cluster))
    left = {
        cluster: [int(point) for point in random.permutation(np.flatnonzero(cluster_K == cluster))]
        for cluster in order
    }
    drawn: list[tuple[int, int]] = []
    while len(drawn) < count:
        for cluster in order[: count - len(drawn)]:
            distance_C = np.linalg.norm(centres_CD - centres_CD[cluster], axis=1)
            source = min(
                (other for other in order if left[other]),
                key=lambda other: (other != cluster, distance_C[other], other),
            )
            drawn.append((left[source].pop(), int(source)))
    return drawn


def pixel_points(slices_KCYX: np.ndarray) -> np.ndarray:
    """Return points with the same distances as the flattened slices, (K, at most K)."""
    spread_C = slices_KCYX.std(axis=(0, 2, 3), dtype=np.float64)
    mean_CYX = slices_KCYX.mean(axis=0, dtype=np.float64)  # of equal numbers it is that number
    scaled_KCYX = slices_KCYX - mean_CYX.astype(slices_KCYX.dtype)
    scale_C = divisors(
        spread_C,
        largest=np.abs(slices_KCYX).max(axis=(0, 2, 3)),
        dtype=slices_KCYX.dtype,
        num_values=slices_KCYX.size,
    )
    scaled_KCYX /= scale_C.astype(np.float32)[:, None, None]
    flat_KP = scaled_KCYX.reshape(len(scaled_KCYX), -1)
    values, vectors_KD = np.linalg.eigh((flat_KP @ flat_KP.T).astype(np.float64))
    kept = values > 1e-6 * max(values[-1], 0)  # below lies the noise of float32
    if not kept.any():
        return np.zeros((len(flat_KP), 1))
    return vectors_KD[:, kept] * np.sqrt(values[kept])


def histogram_points(slices_KCYX: np.ndarray) -> np.ndarray:
    """Return the 255 counts of every slice and channel, bins over the range of the scan."""
    counts = []
    for channel_KYX in np.moveaxis(slices_KCYX, 1, 0):
        low, high = channel_KYX.min(), channel_KYX.max()
        scale = range_divisor(low, high, dtype=channel_KYX.dtype)
        bins_KP = ((channel_KYX - low) * np.float32(NUM_BINS / scale)).astype(np.int32)
        bins_KP = np.minimum(bins_KP, NUM_BINS - 1).reshape(len(channel_KYX), -1)
        counts.append([np.bincount(bins_P, minlength=NUM_BINS) for bins_P in bins_KP])
    return np.concatenate(counts, axis=1).astype(np.float64)


def _select(
    stacks: Sequence[SliceStack], request: SelectionRequest, points: MakePoints
) -> tuple[ChosenSlice, ...]:
    return choose_per_stack(
        stacks, request=request, choose=partial(_choose, points), reads_images=True
    )


def _choose(points: MakePoints, stack: SliceStack, count: int, seed: int) -> list[tuple[int, str]]:
    drawn = draw_from_clusters(points(stack.read()), count=count, seed=seed)
    return [(index, f"drawn from slices like it, group {group + 1}") for index, group in drawn]


def _perceptual_points(weights: Path, device: str, slices_KCYX: np.ndarray) -> np.ndarray:
    from sparseunet.annotation.selection.perceptual import perceptual_distances

    return perceptual_distances(slices_KCYX, weights=weights, device=device)


def _cluster(
    points_KD: np.ndarray, *, num: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of every point and the centres; slices that are equal need fewer."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    num = min(num, len(np.unique(points_KD, axis=0)))
    with threadpool_limits(limits=1):  # sums must not depend on which thread is first
        found = KMeans(num, n_init=_NUM_STARTS, random_state=int(random.integers(2**31))).fit(
            points_KD
        )
    return found.labels_, found.cluster_centers_
