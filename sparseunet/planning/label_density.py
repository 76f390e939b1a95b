"""What sparse labels mean for a plan: what a batch holds, and whether to train in 2D or 3D."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from sparseunet.data.density import ENOUGH_DENSITY_3D, LabelDensity
from sparseunet.data.geometry import in_3d
from sparseunet.planning.plan import Configuration, Plan

_COMPLETE = 0.99
"""Share of an annotated slice's voxels above which the slice counts as completely annotated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DensitySummary:
    """How densely a dataset is annotated. Shares and counts are medians of the annotated cases."""

    num_cases: int
    num_annotated_cases: int
    num_dense_cases: int
    axis: int
    """Axis of the files (0 to 2 for z, y, x) across which the annotated slices of most sparse cases
    lie: the one with the smallest share of slices that hold annotation. 0 without a sparse case."""
    density: float
    """Share of the slices across `axis` that hold annotation, in [0, 1]."""
    annotated_slices: float
    num_slices: float
    filled: float
    """Share of the voxels of an annotated slice that are annotated: 1 for complete slices, less for
    scribbles."""
    voxel_share: float
    """Annotated voxels of all voxels of all cases."""

    @property
    def is_dense(self) -> bool:
        """Whether all cases with any annotation are annotated everywhere."""
        return self.num_annotated_cases == self.num_dense_cases

    @property
    def has_complete_slices(self) -> bool:
        """Whether annotated slices are annotated completely, as opposed to scribbles."""
        return self.filled >= _COMPLETE


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchContent:
    """What a batch holds on average."""

    slices_per_patch: float
    """Annotated slices that a patch crosses."""
    slices_per_batch: float
    voxels_per_batch: float
    """Annotated voxels."""
    share: float
    """Annotated voxels of all voxels of the batch, in [0, 1]."""
    forced_patches: int
    """Patches that must hold a voxel of a class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """Which configuration to train first."""

    configuration: str | None
    """None where nothing is known that speaks for one of them."""
    reason: str
    """One sentence."""


def summarise_label_density(cases: Sequence[LabelDensity]) -> DensitySummary:
    """Summarise a dataset; all zeros (and nothing annotated) without cases or annotation."""
    annotated = [case for case in cases if case.annotated_voxels]
    sparse = [case for case in annotated if not case.is_dense]
    axes = Counter(case.slice_axis for case in sparse)
    axis = max(sorted(axes), key=axes.__getitem__) if axes else 0
    total = sum(case.num_voxels for case in cases)
    return DensitySummary(
        num_cases=len(cases),
        num_annotated_cases=len(annotated),
        num_dense_cases=len(annotated) - len(sparse),
        axis=axis,
        density=_median([case.annotated_slices[axis] / case.shape[axis] for case in annotated]),
        annotated_slices=_median([case.annotated_slices[axis] for case in annotated]),
        num_slices=_median([case.shape[axis] for case in annotated]),
        filled=_median([_filled(case, axis) for case in annotated]),
        voxel_share=sum(case.annotated_voxels for case in cases) / total if total else 0.0,
    )


def chance_of_another(*, annotated_slices: float, num_slices: float, grid_slices: float) -> float:
    """Return how likely another slice is annotated too, given one that is, in [0, 1].

    That is (k - 1) / (n - 1) for k of n slices chosen at random. Resampling to `grid_slices` keeps
    the share of annotated slices, and each of them where there are fewer slices afterwards. 0 for a
    single slice.
    """
    if grid_slices <= 1:
        return 0.0
    share = annotated_slices / num_slices * grid_slices
    kept = max(share, min(annotated_slices, grid_slices))
    return max(0.0, kept - 1) / (grid_slices - 1)


def expected_batch(
    configuration: Configuration,
    cases: Sequence[LabelDensity],
    *,
    transpose_forward: Sequence[int],
    foreground_share: float,
) -> BatchContent | None:
    """Return what a batch of training holds on average, or None if no case is annotated.

    As batches are drawn here: every annotated case equally often, every patch holds an annotated
    voxel at a uniform place. A patch that covers c slices so crosses 1 + (c - 1) q annotated slices
    on average, with q from `chance_of_another`. Exact for completely annotated slices across one
    axis and for dense cases; a lower bound for scribbles, whose voxels lie closer together than
    chance.

    Args:
        configuration: Patch, batch and grid.
        cases: What is annotated; shapes along the file's axes.
        transpose_forward: Of the plan.
        foreground_share: Share of a batch that must hold a voxel of a class.
    """
    annotated = [case for case in cases if case.annotated_voxels]
    if not annotated:
        return None
    patch = in_3d(configuration.patch_size)
    contents = [
        _expected_patch(case, patch, configuration.median_shape, transpose_forward)
        for case in annotated
    ]
    slices, voxels = (float(np.mean(values)) for values in zip(*contents, strict=True))
    batch = configuration.batch_size
    return BatchContent(
        slices_per_patch=slices,
        slices_per_batch=slices * batch,
        voxels_per_batch=voxels * batch,
        share=voxels / prod(patch),
        forced_patches=batch - round(batch * (1 - foreground_share)),
    )


def recommend_configuration(
    plan: Plan, summary: DensitySummary, *, batches: dict[str, BatchContent]
) -> Recommendation:
    """Say whether the labels speak for 2D or 3D.

    Source: Z25, who trained 2D and 3D networks on four tasks with 5 to 80 % of slices annotated. At
    5 % in all volumes 2D lost at most 2.4 % of the IoU of dense labels (§4.1.1, table 2), while
    in 3D one task of four (ATLAS) learned nothing at 5 % and improved from 10 to 40 % (§4.1.2), so
    3D needs a minimum of annotated slices per volume (§6). They annotated complete axial slices;
    about scribbles and other planes they say nothing.
    """
    names = [name for name in ("2d", "3d_fullres") if name in plan.configurations]
    if len(names) < 2:
        return Recommendation(
            configuration=names[0] if names else None,
            reason="It is the only one that fits these images." if names else "There is neither.",
        )
    if not summary.num_annotated_cases:
        return Recommendation(configuration=None, reason="No case is annotated yet.")
    if summary.is_dense:
        return Recommendation(
            configuration=None,
            reason="The labels are dense and speak for neither; train both and compare them by "
            "cross-validation.",
        )
    return _recommend_for_sparse(plan, summary, batches)


def _recommend_for_sparse(
    plan: Plan, summary: DensitySummary, batches: dict[str, BatchContent]
) -> Recommendation:
    """Return the network to start with when cases are annotated sparsely, and the reason."""
    found = (
        f"The median annotated case has {summary.density:.0%} of its slices annotated "
        f"({summary.annotated_slices:g} of {summary.num_slices:g})"
    )
    if not summary.has_complete_slices:
        shares = ", ".join(
            f"{batches[name].share:.1%} in {name}"
            for name in ("2d", "3d_fullres")
            if name in batches
        )
        return Recommendation(
            configuration=None,
            reason=f"The labels are scribbles ({summary.filled:.1%} of the voxels of an annotated "
            f"slice), for which Zhang et al. (2025) have no figures; of a batch at least "
            f"{shares} is annotated, so train both and compare them on densely annotated cases.",
        )
    if plan.transpose_forward[0] != summary.axis:
        return Recommendation(
            configuration="3d_fullres",
            reason=f"{found}, and they lie across {'zyx'[summary.axis]} while "
            f"the planes of 2d lie across {'zyx'[plan.transpose_forward[0]]}: 2d would see single "
            "lines of them.",
        )
    if summary.density < ENOUGH_DENSITY_3D:
        return Recommendation(
            configuration="2d",
            reason=f"{found}; at 5 % Zhang et al. (2025) lost at most 2.4 % of the dense IoU "
            "in 2D (table 2), while in 3D one task of four learned nothing at 5 % and improved "
            "from 10 % on (§4.1.2).",
        )
    return Recommendation(
        configuration="3d_fullres",
        reason=f"{found}; from 10 % on all four 3D tasks of Zhang et al. (2025) learned "
        "(§4.1.2), and 3D sees the neighbourhood of a slice; 2d is the quicker check.",
    )


def _expected_patch(
    case: LabelDensity,
    patch: tuple[int, int, int],
    median_shape: Sequence[float],
    transpose_forward: Sequence[int],
) -> tuple[float, float]:
    """Return the expected annotated slices and voxels of one patch of a case."""
    file_axis = case.slice_axis
    axis = list(transpose_forward).index(file_axis)
    num_slices = case.shape[transpose_forward[0]]
    grid = (float(num_slices), *median_shape) if len(median_shape) == 2 else tuple(median_shape)
    covered = [min(edge, size) for edge, size in zip(patch, grid, strict=True)]
    chance = chance_of_another(
        annotated_slices=case.annotated_slices[file_axis],
        num_slices=case.shape[file_axis],
        grid_slices=grid[axis],
    )
    slices = 1 + (covered[axis] - 1) * chance
    in_plane = prod(edge for position, edge in enumerate(covered) if position != axis)
    return slices, slices * in_plane * _filled(case, file_axis)


def _filled(case: LabelDensity, axis: int) -> float:
    in_annotated_slices = case.annotated_slices[axis] * case.num_voxels // case.shape[axis]
    return case.annotated_voxels / in_annotated_slices if in_annotated_slices else 0.0


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
