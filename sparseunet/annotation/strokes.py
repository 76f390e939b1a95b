"""Simulate annotation that is no whole slice, for comparison: patches and scribbles."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.sparse_copy import SimulationSummary, hide_all_but, write_sparse_copy
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import AnnotationRecord, AnnotationRecords
from sparseunet.data.dataset import Case, Dataset
from sparseunet.errors import RequestError

_LARGEST_PATCH = 0.25
"""Longest edge of a patch as a share of the scan's."""
_PATCHES_AT_LEAST = 4
_BORDER_DISTANCE = 2.0
"""Distance of a border scribble from the edge of its class, in pixels."""


def simulate_patches(
    dataset: Dataset, *, share: float, seed: int, folder: Path, num_workers: int = 1
) -> SimulationSummary:
    """Write a raw dataset in which random boxes of every training label map are left.

    Boxes have the proportions of the scan, at most a quarter of its length along each axis, and
    are small enough that it takes at least four. They are added until `share` of the voxels are
    annotated, so the last one may exceed it. The same seed gives the same boxes.

    Args:
        dataset: Every case that has a label map is made sparse.
        share: Share of the voxels that stay annotated, above 0 and up to 1.
        seed: Of the places; differs between cases.
        folder: The new dataset; must not exist.
        num_workers: Threads that read and write label maps.

    Raises:
        RequestError: The share is not possible, or as for `write_sparse_copy`.
    """
    if not 0 < share <= 1:
        raise RequestError(f"The share {share} of voxels must be above 0 and at most 1.")

    def sparsify(case: Case, dense: Annotation) -> tuple[Annotation, AnnotationRecord]:
        keep_ZYX = patches(dense.labels_ZYX.shape, share=share, seed=_seed(case.name, seed))
        sparse = hide_all_but(dense, keep_ZYX)
        return sparse, _record(sparse, 0, dataset)

    return write_sparse_copy(
        dataset,
        sparsify,
        folder=folder,
        origin=AnnotationRecords(
            cases={}, seed=seed, provenance={"kind": "patches", "share": share}
        ),
        num_workers=num_workers,
    )


def simulate_scribbles(
    dataset: Dataset, plan: AnnotationPlan, *, folder: Path, num_workers: int = 1
) -> SimulationSummary:
    """Write a raw dataset in which strokes in the planned slices are left, one pixel wide.

    See `scribbles`. A slice without any object keeps strokes of background and counts as reviewed.

    Raises:
        RequestError: The plan has slices across several axes, or as for `write_sparse_copy`.
    """
    axes = {planned.axis for planned in plan.cases}
    if len(axes) != 1:
        raise RequestError(f"Scribbles are drawn across one axis, the plan has {len(axes)}.")
    (axis,) = axes

    def sparsify(case: Case, dense: Annotation) -> tuple[Annotation, AnnotationRecord]:
        keep_ZYX = np.zeros(dense.labels_ZYX.shape, bool)
        labels_KYX = np.moveaxis(dense.labels_ZYX, axis, 0)
        keep_KYX = np.moveaxis(keep_ZYX, axis, 0)
        for planned in plan.of_case(case.name):
            for index in planned.slices:
                stroke_seed = _seed(f"{case.name}/{axis}/{index}", plan.seed)
                keep_KYX[index] |= scribbles(labels_KYX[index], seed=stroke_seed)
        sparse = hide_all_but(dense, keep_ZYX)
        return sparse, _record(sparse, axis, dataset, is_empty=_without_object(dense, axis))

    return write_sparse_copy(
        dataset,
        sparsify,
        folder=folder,
        origin=AnnotationRecords(
            cases={},
            selector=plan.selector,
            seed=plan.seed,
            provenance={"kind": "scribbles", "budget": plan.budget},
        ),
        num_workers=num_workers,
    )


def patches(shape: Sequence[int], *, share: float, seed: int) -> np.ndarray:
    """Return a bool mask of random boxes that hold at least `share` of the voxels."""
    if share == 1:
        return np.ones(tuple(shape), bool)
    random = np.random.default_rng(seed)
    edge = min(_LARGEST_PATCH, (share / _PATCHES_AT_LEAST) ** (1 / len(shape)))
    size = [max(1, round(edge * length)) for length in shape]
    mask = np.zeros(tuple(shape), bool)
    while mask.mean() < share:
        starts = [
            random.integers(0, length - extent + 1)
            for length, extent in zip(shape, size, strict=True)
        ]
        box = tuple(
            slice(start, start + extent) for start, extent in zip(starts, size, strict=True)
        )
        mask[box] = True
    return mask


def scribbles(labels_YX: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the bool mask of strokes as a person would draw them in one slice.

    Every connected piece of every class, background included, gets two strokes: one along its
    middle line, and one along half of its border, two pixels inside (after ScribbleBench, arXiv
    2403.12834, which draws interior and border scribbles). Pieces that are too thin are drawn where
    they are thickest. The middle line is the skeleton of the pixels at least half as deep as the
    deepest; the half of the border is that on one side of a line through the middle of the piece,
    at a random angle. Strokes never leave their piece, so they are never wrong.
    """
    random = np.random.default_rng(seed)
    strokes_YX = np.zeros(labels_YX.shape, bool)
    for value in np.unique(labels_YX):
        pieces_YX, num_pieces = ndimage.label(labels_YX == value)
        for piece, place in enumerate(ndimage.find_objects(pieces_YX), start=1):
            # a margin of one pixel that is no piece, unless it lies outside of the slice
            around = tuple(slice(max(0, one.start - 1), one.stop + 1) for one in place)
            angle = random.uniform(0, 2 * np.pi)
            strokes_YX[around] |= _strokes_of_piece(pieces_YX[around] == piece, angle=angle)
        assert num_pieces > 0
    return strokes_YX


def _strokes_of_piece(piece_YX: np.ndarray, *, angle: float) -> np.ndarray:
    from skimage.morphology import skeletonize

    if piece_YX.all():  # the whole slice: no border to keep away from
        line_YX = np.zeros_like(piece_YX)
        width = piece_YX.shape[1]
        line_YX[piece_YX.shape[0] // 2, width // 3 : max(width // 3 + 1, 2 * width // 3)] = True
        return line_YX
    depth_YX = ndimage.distance_transform_edt(piece_YX)
    deepest = depth_YX.max()
    middle_YX = skeletonize(depth_YX >= deepest / 2)
    distance = min(_BORDER_DISTANCE, deepest)
    border_YX = (depth_YX >= distance) & (depth_YX < distance + 1)
    centre = ndimage.center_of_mass(piece_YX)
    y, x = np.indices(piece_YX.shape)
    one_side_YX = (y - centre[0]) * np.sin(angle) + (x - centre[1]) * np.cos(angle) >= 0
    return (middle_YX | (border_YX & one_side_YX)) & piece_YX


def _record(
    sparse: Annotation, axis: int, dataset: Dataset, *, is_empty: np.ndarray | None = None
) -> AnnotationRecord:
    annotated = tuple(int(index) for index in sparse.annotated_slices(axis))
    return AnnotationRecord(
        axis=axis,
        num_slices=sparse.labels_ZYX.shape[axis],
        annotated_slices=annotated,
        reviewed_empty_slices=()
        if is_empty is None
        else tuple(index for index in annotated if is_empty[index]),
        annotated_classes=tuple(dataset.labels.foreground),
    )


def _without_object(dense: Annotation, axis: int) -> np.ndarray:
    """Return, for each slice across the axis, whether it holds background only."""
    return np.logical_not(np.moveaxis(dense.labels_ZYX, axis, 0).any(axis=(1, 2)))


def _seed(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
