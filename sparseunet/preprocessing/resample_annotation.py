"""Bring an annotation onto another grid so that no annotated slice is lost and none is invented."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.data.annotation import Annotation, Source
from sparseunet.preprocessing.blas import one_blas_thread
from sparseunet.preprocessing.interpolation import (
    AxisMap,
    apply_weights,
    pool_cells,
    take_nearest,
)
from sparseunet.preprocessing.resample import LABEL_ORDER, axis_maps, slabs

_TIE = np.float32(1e-5)
"""Bonus of the nearest voxel's class: decides between equal scores and nothing else."""


def resample_annotation(
    annotation: Annotation,
    new_shape: Sequence[int],
    *,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
) -> Annotation:
    """Resample labels, sources and confidence.

    Where: an output voxel is annotated if its nearest source voxel is, so validity ends half a
    source voxel beyond an annotated slice. Along axes that shrink it is also annotated if any of
    the source voxels that it stands for is, so every annotated voxel, and with it every annotated
    slice, keeps an output voxel.

    What: linear interpolation of one indicator per class and the largest wins, the nearest voxel's
    class at a tie (nnU-Net 2.8.1 for dense labels; nearest across slices that lie far apart).
    Unannotated voxels take no part, and a class that is absent from the nearest annotated slice,
    along any axis, cannot win. Voxels of source manual are computed from manual voxels alone and
    win over others.

    Args:
        annotation: Any mixture of sources, whole slices or scribbles.
        new_shape: Voxels along (z, y, x).
        spacing_mm: Spacing of the annotation.
        new_spacing_mm: Spacing of the result.

    Returns:
        The same object if the shape does not change. Confidence is the nearest voxel's, 0 where
        nothing is annotated.
    """
    if tuple(new_shape) == annotation.labels_ZYX.shape:
        return annotation
    maps = axis_maps(
        annotation.labels_ZYX.shape,
        new_shape,
        spacing_mm=spacing_mm,
        new_spacing_mm=new_spacing_mm,
        order=LABEL_ORDER,
    )
    with one_blas_thread():
        result = _resample_layer(annotation, annotation.annotated_ZYX, maps)
        manual_ZYX = annotation.source_ZYX == Source.MANUAL
        if manual_ZYX.any() and not np.array_equal(manual_ZYX, annotation.annotated_ZYX):
            result = _overlay(result, _resample_layer(annotation, manual_ZYX, maps))
    return result


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Layer:
    """The voxels that take part, and what is known about classes per source slice."""

    labels_ZYX: np.ndarray
    where_ZYX: np.ndarray
    present: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    """Per axis: bool (size, values), whether a class occurs in a slice. None for dense layers."""


def _resample_layer(
    annotation: Annotation, where_ZYX: np.ndarray, maps: Sequence[AxisMap]
) -> Annotation:
    """Resample as if only `where_ZYX` were annotated."""
    if where_ZYX.all():
        return _resample_dense(annotation, where_ZYX, maps)
    near_ZYX = take_nearest(where_ZYX, maps)
    claimed_ZYX = pool_cells(where_ZYX, maps) & ~near_ZYX
    layer = _Layer(
        labels_ZYX=annotation.labels_ZYX,
        where_ZYX=where_ZYX,
        present=_classes_per_slice(annotation.labels_ZYX, where_ZYX),
    )
    labels_ZYX = np.zeros(near_ZYX.shape, annotation.labels_ZYX.dtype)
    _fill_labels(labels_ZYX, near_ZYX, layer, maps, cells=False)
    if claimed_ZYX.any():
        _fill_labels(labels_ZYX, claimed_ZYX, layer, maps, cells=True)

    def carry(values_ZYX: np.ndarray) -> np.ndarray:
        """Take the nearest value, or the maximum of the cell where only the cell is annotated."""
        carried_ZYX = np.where(near_ZYX, take_nearest(values_ZYX, maps), 0)
        if claimed_ZYX.any():
            pooled_ZYX = pool_cells(np.where(where_ZYX, values_ZYX, 0), maps)
            carried_ZYX[claimed_ZYX] = pooled_ZYX[claimed_ZYX]
        return carried_ZYX.astype(values_ZYX.dtype, copy=False)

    confidence_ZYX = annotation.confidence_ZYX
    return Annotation(
        labels_ZYX=labels_ZYX,
        source_ZYX=carry(annotation.source_ZYX),
        confidence_ZYX=None if confidence_ZYX is None else carry(confidence_ZYX),
    )


def _resample_dense(
    annotation: Annotation, where_ZYX: np.ndarray, maps: Sequence[AxisMap]
) -> Annotation:
    """Resample where nothing has to be kept apart: all that is asked for is the labels."""
    labels_ZYX = np.zeros([step.new_size for step in maps], annotation.labels_ZYX.dtype)
    layer = _Layer(labels_ZYX=annotation.labels_ZYX, where_ZYX=where_ZYX, present=None)
    everywhere_ZYX = np.ones(labels_ZYX.shape, bool)
    _fill_labels(labels_ZYX, everywhere_ZYX, layer, maps, cells=False)
    confidence_ZYX = annotation.confidence_ZYX
    return Annotation(
        labels_ZYX=labels_ZYX,
        source_ZYX=take_nearest(annotation.source_ZYX, maps),
        confidence_ZYX=None if confidence_ZYX is None else take_nearest(confidence_ZYX, maps),
    )


def _overlay(below: Annotation, above: Annotation) -> Annotation:
    """Return `above` where it is annotated, and `below` elsewhere."""
    where_ZYX = above.annotated_ZYX
    confidence_ZYX = None
    if above.confidence_ZYX is not None and below.confidence_ZYX is not None:
        confidence_ZYX = np.where(where_ZYX, above.confidence_ZYX, below.confidence_ZYX)
    return Annotation(
        labels_ZYX=np.where(where_ZYX, above.labels_ZYX, below.labels_ZYX),
        source_ZYX=np.where(where_ZYX, above.source_ZYX, below.source_ZYX),
        confidence_ZYX=confidence_ZYX,
    )


def _classes_per_slice(
    labels_ZYX: np.ndarray, where_ZYX: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per axis which classes occur in which slice, bool (slices, label values)."""
    num_values = int(labels_ZYX.max()) + 1
    by_z, by_y, by_x = (np.zeros((size, num_values), bool) for size in labels_ZYX.shape)
    for index in np.flatnonzero(where_ZYX.any(axis=(1, 2))):
        rows, columns = np.nonzero(where_ZYX[index])
        values = labels_ZYX[index][rows, columns]
        by_z[index, values] = True
        by_y[rows, values] = True
        by_x[columns, values] = True
    return by_z, by_y, by_x


def _fill_labels(
    out_ZYX: np.ndarray,
    wanted_ZYX: np.ndarray,
    layer: _Layer,
    maps: Sequence[AxisMap],
    *,
    cells: bool,
) -> None:
    """Write the class with the highest score into the wanted voxels.

    Args:
        out_ZYX: Label values on the new grid, changed in place.
        wanted_ZYX: bool, which of its voxels are written.
        layer: Labels, and which of them take part.
        maps: From the old grid to the new one, per axis.
        cells: Score a class by its weighted share of the voxel's cell instead of by interpolation;
            for voxels whose nearest source voxel is not annotated.

    Example along one axis, 6 voxels shrunk to 3, only slices 0 and 5 annotated:

        source          1 . . . . 2      (. is unannotated)
        cells           0 0 1 1 2 2      source positions that each output voxel stands for
        nearest         1   3   5
        annotated by nearest      only output 2: it is written by interpolation, class 2
        annotated by its cell     output 0: it is written with `cells`, class 1
        result          1 . 2

    Example of scores: bilinear weights 0.42, 0.28, 0.18, 0.12 read classes 1, 2, 2, 2, so class 2
    wins with 0.58 against 0.42. If the second voxel is unannotated it counts for no class, and
    class 1 wins with 0.42 against 0.30.
    """
    # 1. Per axis, bool (output position, class): the classes in the slices that an output may use.
    allowed = None
    if layer.present is not None:
        reach = pool_cells if cells else take_nearest
        allowed = [reach(table, [step]) for table, step in zip(layer.present, maps, strict=True)]
    # 2. A slab of output planes at a time, from the window of source planes that it reads.
    for rows, window, weights in slabs(maps, cells=cells):
        if not wanted_ZYX[rows].any():
            continue
        where_ZYX = layer.where_ZYX[window]
        source_ZYX = layer.labels_ZYX[window]
        # 3. The class of the nearest source voxel, for ties.
        nearest_ZYX = np.take(source_ZYX, maps[0].nearest[rows] - window.start, axis=0)
        nearest_ZYX = np.take(
            np.take(nearest_ZYX, maps[1].nearest, axis=1), maps[2].nearest, axis=2
        )
        # 4. Score every class in the window; the greatest so far wins. A single class needs none.
        values = np.unique(source_ZYX[where_ZYX])
        best_ZYX = np.zeros(nearest_ZYX.shape, np.float32)
        winner_ZYX = np.full(nearest_ZYX.shape, values[0], out_ZYX.dtype)
        for value in values if len(values) > 1 else ():
            indicator_ZYX = ((source_ZYX == value) & where_ZYX).astype(np.float32)
            score_ZYX = apply_weights(indicator_ZYX, weights)
            if not cells:
                score_ZYX += _TIE * (nearest_ZYX == value)
            if allowed is not None:
                z, y, x = (table[:, value] for table in (allowed[0][rows], *allowed[1:]))
                # A class that is absent from the slice along any axis cannot win.
                score_ZYX *= z[:, None, None] & y[:, None] & x
            better_ZYX = score_ZYX > best_ZYX
            winner_ZYX[better_ZYX] = value
            np.maximum(best_ZYX, score_ZYX, out=best_ZYX)
        np.copyto(out_ZYX[rows], winner_ZYX, where=wanted_ZYX[rows])
