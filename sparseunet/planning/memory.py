"""What a network costs in memory, the largest patch that fits, and how many fit in a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from sparseunet.planning.plan import NetworkPlan
from sparseunet.planning.topology import Topology, choose_topology, initial_patch_size

_BASE_FEATURES = 32
_MAX_FEATURES = {2: 512, 3: 320}
_REFERENCE_BATCH = {2: 12, 3: 2}
_MIN_BATCH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """The constants that tell one planner from another."""

    plans_name: str
    nnunet_name: str
    """What nnU-Net calls it in `experiment_planner_used`."""
    architecture: str
    encoder_depths: tuple[int, ...]
    """Per stage; longer than any network, and cut to its number of stages."""
    decoder_depth: int
    gpu_memory_gb: float
    """Memory that the reference costs were calibrated for."""
    reference_cost: dict[int, float]
    """Dimensions to feature-map elements per sample that fill that memory with the reference batch
    (12 in 2D, 2 in 3D)."""
    max_cost: dict[int, float]
    """Dimensions to the largest cost of one sample; above it the patch shrinks."""
    max_dataset_share: float
    """Largest part of the dataset's voxels that one batch may hold."""

    def with_memory(self, gpu_memory_gb: float) -> "Planner":
        """Return the planner for another amount of memory; costs scale with it."""
        factor = gpu_memory_gb / self.gpu_memory_gb
        return replace(
            self,
            gpu_memory_gb=gpu_memory_gb,
            reference_cost={key: cost * factor for key, cost in self.reference_cost.items()},
            max_cost={key: cost * factor for key, cost in self.max_cost.items()},
        )


def _residual_encoder(
    size: str, *, gpu_memory_gb: float, cost_2d: float, cost_3d: float
) -> Planner:
    return Planner(
        plans_name=f"nnUNetResEncUNet{size}Plans",
        nnunet_name=f"nnUNetPlannerResEnc{size}",
        architecture="residual_unet",
        encoder_depths=(1, 3, 4, *[6] * 20),
        decoder_depth=1,
        gpu_memory_gb=gpu_memory_gb,
        reference_cost={2: cost_2d, 3: cost_3d},
        max_cost={2: cost_2d, 3: cost_3d},
        max_dataset_share=1.0,
    )


PLANNERS = {
    "default": Planner(
        plans_name="nnUNetPlans",
        nnunet_name="ExperimentPlanner",
        architecture="plain_unet",
        encoder_depths=(2,) * 23,
        decoder_depth=2,
        gpu_memory_gb=8,
        reference_cost={2: 85e6, 3: 560e6},
        # A batch of two must fit. In 2D that is six times the share of one sample in twelve.
        max_cost={2: 6 * 85e6, 3: 560e6},
        max_dataset_share=0.05,
    ),
    "ResEncM": _residual_encoder("M", gpu_memory_gb=8, cost_2d=135e6, cost_3d=680e6),
    "ResEncL": _residual_encoder("L", gpu_memory_gb=24, cost_2d=380e6, cost_3d=2.1e9),
    "ResEncXL": _residual_encoder("XL", gpu_memory_gb=40, cost_2d=560e6, cost_3d=3.6e9),
}
"""Name to constants, as nnU-Net 2.8.1 calibrated them."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchChoice:
    """A batch size and what limited it."""

    batch_size: int
    rule: Literal["memory", "dataset", "minimum"]
    """`memory`: more does not fit; `dataset`: more would be too large a share of a small dataset;
    `minimum`: two samples, though one of the limits is lower."""
    fitting: int
    """Samples that fill the memory."""
    dataset_limit: int
    """Samples that make up the largest allowed share of the dataset's voxels."""


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
