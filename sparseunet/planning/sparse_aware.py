"""Patches and batches for sparsely annotated slices.

The rule: a 3D patch gets only as many slices as a tenth of them is annotated on average, and the
batch takes the memory that this sets free.

Why a tenth: with a tenth of the slices annotated 3D networks learned in all tasks of Z25, with a
twentieth one did not (§4.1.2), and §6 asks for a minimum of annotated slices per volume. Why the
depth: every patch is sure to hold one annotated slice, and each of its other slices is annotated
with a chance q (about the density). So a share q + (1 - q) / D of a patch of D slices is annotated:
many shallow patches hold more annotation than a few deep ones at the same cost. The depth at which
that share is a tenth is never below ten slices, so that a network still sees a neighbourhood, and
grows without bound as q reaches a tenth, so that nothing jumps.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import floor, prod

from sparseunet.data.density import ENOUGH_DENSITY_3D, LabelDensity
from sparseunet.errors import RequestError
from sparseunet.planning.label_density import (
    chance_of_another,
    summarise_label_density,
)
from sparseunet.planning.memory import Candidate, choose_batch_size, count_feature_map_elements
from sparseunet.planning.overrides import with_planned_patch
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.reasons import PlanReasons, SlabReasons


def deepest_patch(chance: float) -> int | None:
    """Return the most slices a patch may have so that a tenth of it is annotated on average.

    Args:
        chance: That another slice is annotated too, given one that is, in [0, 1].

    Returns:
        At least 10; None for no limit, from a chance of a tenth on.
    """
    if chance >= ENOUGH_DENSITY_3D:
        return None
    return floor((1 - chance) / (ENOUGH_DENSITY_3D - chance) + 1e-9)


def adapt_to_sparse_labels(plan: Plan, cases: Sequence[LabelDensity]) -> Plan:
    """Return the plan with shallower patches and larger batches in 3D where labels are sparse.

    The depth is that of `deepest_patch`, or the next smaller one that pooling needs no padding for;
    the patch keeps its other axes. Strides, kernels and batch follow from it by the planner's rules
    (memory, a share of the dataset). The grid, the features and which configurations there are stay
    as they were, so preprocessed data serves both plans. 2D patches are annotated slices already.

    Raises:
        RequestError: No case is annotated, or the plan was read from a file.
    """
    if plan.reasons is None:
        raise RequestError("Only a plan that was just made can be adapted to sparse labels.")
    summary = summarise_label_density(cases)
    if not summary.num_annotated_cases:
        raise RequestError(
            f"{plan.dataset_name}: planning for sparse labels needs annotated cases; none has any "
            "annotation.",
            setting="sparse_aware",
        )
    slabs: dict[str, SlabReasons] = {}
    configurations = dict(plan.configurations)
    axis = list(plan.transpose_forward).index(summary.axis)
    for name, configuration in plan.configurations.items():
        if configuration.dimensions == 2:
            continue
        chance = chance_of_another(
            annotated_slices=summary.annotated_slices,
            num_slices=summary.num_slices,
            grid_slices=configuration.median_shape[axis],
        )
        limit = deepest_patch(chance)
        if limit is None or configuration.patch_size[axis] <= limit:
            continue
        slab = _slab(configuration, axis=axis, max_depth=limit, reasons=plan.reasons)
        if slab is not None:
            configurations[name] = slab
            slabs[name] = SlabReasons(
                planned_patch=configuration.patch_size,
                planned_batch=configuration.batch_size,
                max_depth=limit,
                axis=axis,
            )
    reasons = replace(plan.reasons, slabs=slabs)
    return replace(plan, configurations=configurations, reasons=reasons)


def _slab(
    configuration: Configuration, *, axis: int, max_depth: int, reasons: PlanReasons
) -> Configuration | None:
    """Return the configuration with the deepest patch allowed, None if none can be pooled."""
    for depth in range(max_depth, 0, -1):
        wanted = list(configuration.patch_size)
        wanted[axis] = depth
        try:
            slab = with_planned_patch(configuration, wanted)
        except RequestError:
            return None
        if slab.patch_size[axis] <= max_depth:
            break
    cost = count_feature_map_elements(
        slab.network, slab.patch_size, num_outputs=reasons.num_outputs
    )
    batch = choose_batch_size(
        Candidate(patch_size=slab.patch_size, network=slab.network, cost=cost),
        planner=reasons.rules,
        dataset_voxels=prod(slab.median_shape) * reasons.num_cases,
    )
    return replace(slab, batch_size=max(batch.batch_size, configuration.batch_size))
