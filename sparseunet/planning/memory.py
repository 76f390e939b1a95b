"""What a network costs in memory, the largest patch that fits, and how many fit in a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from sparseunet.planning.plan import NetworkPlan
from sparseunet.planning.planners import Planner
from sparseunet.planning.reasons import BatchChoice
from sparseunet.planning.topology import Topology, choose_topology, initial_patch_size

_BASE_FEATURES = 32
_MAX_FEATURES = {2: 512, 3: 320}
_REFERENCE_BATCH = {2: 12, 3: 2}
_MIN_BATCH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One network on one patch, and its cost."""

    patch_size: tuple[int, ...]
    network: NetworkPlan
    cost: int
    """Feature-map elements of one sample, summed over all convolutions."""


def count_feature_map_elements(
    network: NetworkPlan, patch_size: Sequence[int], *, num_outputs: int
) -> int:
    """Return the output elements of all convolutions for one sample, the cost planning works with.

    Counts one segmentation head, at full resolution. Source: nnU-Net 2.8.1, whose figures it
    equals; no network is built.
    """
    residual = network.architecture == "residual_unet"
    sizes, size = [], tuple(patch_size)
    for stride in network.strides:
        size = tuple(edge // step for edge, step in zip(size, stride, strict=True))
        sizes.append(prod(size))
    total = sizes[0] * network.features_per_stage[0] if residual else 0  # the stem
    features_before = network.features_per_stage[0]
    for stage, voxels in enumerate(sizes):
        features = network.features_per_stage[stage]
        convolutions = network.encoder_depths[stage]
        if residual:
            changes = features != features_before or max(network.strides[stage]) > 1
            convolutions = 2 * convolutions + int(changes)
        total += convolutions * features * voxels
        features_before = features
    for stage, depth in enumerate(reversed(network.decoder_depths)):
        total += (depth + 1) * network.features_per_stage[stage] * sizes[stage]
    return total + num_outputs * sizes[0]


def shrinking_candidates(
    spacing_mm: Sequence[float],
    median_shape: Sequence[float],
    *,
    planner: Planner,
    num_outputs: int,
) -> Iterator[Candidate]:
    """Yield networks on ever smaller patches; the last one is the first that fits in memory.

    Each step shortens the axis that covers the largest part of the median image (the last of
    equal ones) by what its pooling needs. Source: nnU-Net 2.8.1.
    """
    topology = choose_topology(spacing_mm, initial_patch_size(spacing_mm, median_shape))
    while True:
        network = _network(topology, planner)
        cost = count_feature_map_elements(network, topology.patch_size, num_outputs=num_outputs)
        yield Candidate(patch_size=topology.patch_size, network=network, cost=cost)
        smaller = _shrink(topology, spacing_mm, median_shape)
        if cost <= planner.max_cost[len(topology.patch_size)] or min(smaller) < 1:
            return
        topology = choose_topology(spacing_mm, smaller)


def choose_batch_size(
    candidate: Candidate, *, planner: Planner, dataset_voxels: float
) -> BatchChoice:
    """Return how many samples fill the memory, at most a share of the dataset, at least two."""
    dimensions = len(candidate.patch_size)
    reference = planner.reference_cost[dimensions]
    fitting = round(reference / candidate.cost * _REFERENCE_BATCH[dimensions])
    share = round(dataset_voxels * planner.max_dataset_share / prod(candidate.patch_size))
    rule: Literal["memory", "dataset", "minimum"] = "memory" if fitting <= share else "dataset"
    if min(fitting, share) < _MIN_BATCH:
        rule = "minimum"
    return BatchChoice(
        batch_size=max(min(fitting, share), _MIN_BATCH),
        rule=rule,
        fitting=fitting,
        dataset_limit=share,
    )


def _network(topology: Topology, planner: Planner) -> NetworkPlan:
    stages, dimensions = len(topology.strides), len(topology.patch_size)
    return NetworkPlan(
        architecture=planner.architecture,
        features_per_stage=tuple(
            min(_BASE_FEATURES * 2**stage, _MAX_FEATURES[dimensions]) for stage in range(stages)
        ),
        kernel_sizes=topology.kernel_sizes,
        strides=topology.strides,
        encoder_depths=planner.encoder_depths[:stages],
        decoder_depths=(planner.decoder_depth,) * (stages - 1),
    )


def _shrink(
    topology: Topology, spacing_mm: Sequence[float], median_shape: Sequence[float]
) -> tuple[int, ...]:
    patch = topology.patch_size
    covered = [edge / size for edge, size in zip(patch, median_shape, strict=True)]
    axis = max(range(len(patch)), key=lambda candidate: (covered[candidate], candidate))
    tentative = list(patch)
    tentative[axis] -= topology.divisor[axis]
    smaller = list(patch)
    smaller[axis] -= choose_topology(spacing_mm, tentative).divisor[axis]
    return tuple(smaller)
