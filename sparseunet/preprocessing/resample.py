"""Resample images onto the network's grid, and logits back."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sparseunet.data.labels import LabelSchema
from sparseunet.preprocessing.blas import one_blas_thread
from sparseunet.preprocessing.interpolation import (
    AxisMap,
    apply_weights,
    axis_map,
    separate_axis,
    source_window,
    take_nearest,
)

IMAGE_ORDER = 3
LABEL_ORDER = 1
SLAB_VOXELS = 2**21
"""About how many voxels of one class are resampled at a time (8 MB in float32), at most."""
_SLAB_BYTES = 2**25
"""About how much all classes of a slab may need together."""
_PLANES_AT_ONCE = 48
"""Planes of an image that are resampled together."""


def resample_image(
    image_CZYX: np.ndarray,
    new_shape: Sequence[int],
    *,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    order: int = IMAGE_ORDER,
) -> np.ndarray:
    """Resample channels by separable splines, clipped to the values of the input.

    Equals `skimage.transform.resize(mode="edge", anti_aliasing=False)` of each channel. If slices
    lie far apart (`interpolation.separate_axis`), each slice is resampled in its plane and clipped
    to its own values, and slices are then taken by nearest neighbour (nnU-Net 2.8.1).

    Works along z in blocks, so beside image and result no third volume is held.

    Example: a row of 2 voxels with values 0 and 4 becomes 4 voxels. Output o reads at
    (o + 0.5) · 2/4 - 0.5 = -0.25, 0.25, 0.75, 1.25, so linear interpolation gives 0, 1, 3, 4: the
    border values continue outside.

    Args:
        image_CZYX: Any real dtype.
        new_shape: Voxels along (z, y, x).
        spacing_mm: Spacing of the image; decides with `new_spacing_mm` on the separate axis only.
        new_spacing_mm: Spacing of the result.
        order: 1 linear or 3 cubic.

    Returns:
        float32. With unchanged shape the same values, without work.
    """
    if tuple(new_shape) == image_CZYX.shape[1:]:
        return image_CZYX.astype(np.float32, copy=False)
    maps = axis_maps(
        image_CZYX.shape[1:],
        new_shape,
        spacing_mm=spacing_mm,
        new_spacing_mm=new_spacing_mm,
        order=order,
    )
    separate = separate_axis(spacing_mm, new_spacing_mm)
    result_CZYX = np.empty((len(image_CZYX), *new_shape), np.float32)
    with one_blas_thread():
        for channel_ZYX, out_ZYX in zip(image_CZYX, result_CZYX, strict=True):
            if separate is None:
                _interpolate(channel_ZYX, out_ZYX, maps)
            else:
                across, *in_plane = (maps[axis] for axis in _first(separate))
                _interpolate_slices(
                    np.moveaxis(channel_ZYX, separate, 0),
                    np.moveaxis(out_ZYX, separate, 0),
                    across,
                    in_plane,
                )
    return result_CZYX


def resample_mask(mask_ZYX: np.ndarray, new_shape: Sequence[int]) -> np.ndarray:
    """Resample any array by nearest neighbour."""
    if tuple(new_shape) == mask_ZYX.shape:
        return mask_ZYX
    sizes = zip(mask_ZYX.shape, new_shape, strict=True)
    return take_nearest(mask_ZYX, [axis_map(size, new, order=0) for size, new in sizes])


def logits_to_labels(
    logits_KZYX: np.ndarray,
    new_shape: Sequence[int],
    *,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    labels: LabelSchema,
    threshold: float = 0.0,
) -> np.ndarray:
    """Resample the network's output linearly and decide on a label per voxel.

    Works in slabs along z and class by class, so no array of classes times output voxels exists.
    nnU-Net 2.8.1: order 1, nearest across slices that lie far apart; arg-max over classes, or with
    regions every region above one half painted in the order of `regions_class_order`.

    Args:
        logits_KZYX: float16 or float32, one channel per network output.
        new_shape: Voxels along (z, y, x).
        spacing_mm: Spacing of the logits.
        new_spacing_mm: Spacing of the result.
        labels: What the channels mean.
        threshold: Regions only: 0 for logits, 0.5 for probabilities.

    Returns:
        Label values, uint8, or uint16 if a value needs it. Equal scores go to the lower channel.

    Raises:
        ValueError: The number of channels differs from `labels.num_outputs`.
    """
    if len(logits_KZYX) != labels.num_outputs:
        raise ValueError(
            f"Got {len(logits_KZYX)} channels; the labels need {labels.num_outputs} outputs."
        )
    maps = axis_maps(
        logits_KZYX.shape[1:],
        new_shape,
        spacing_mm=spacing_mm,
        new_spacing_mm=new_spacing_mm,
        order=LABEL_ORDER,
    )
    labels_ZYX = np.zeros(tuple(new_shape), label_dtype(output_values(labels)))
    with one_blas_thread():
        for rows, window, weights in slabs(maps, num_channels=len(logits_KZYX)):
            scores = (
                apply_weights(channel_ZYX[window].astype(np.float32, copy=False), weights)
                for channel_ZYX in logits_KZYX
            )
            decide_labels(scores, labels_ZYX[rows], labels, threshold=threshold)
    return labels_ZYX


def decide_labels(
    scores: Iterable[np.ndarray],
    labels_ZYX: np.ndarray,
    labels: LabelSchema,
    *,
    threshold: float = 0.0,
) -> None:
    """Fill `labels_ZYX` with the value of the highest score, or paint all regions in their order.

    Args:
        scores: One array (z, y, x) per network output, needed one at a time.
        labels_ZYX: Filled in place; zeros where there are regions.
        labels: What the outputs mean.
        threshold: Regions only: 0 for logits, 0.5 for probabilities.
    """
    values = output_values(labels)
    if labels.has_regions:
        _paint_regions(labels_ZYX, scores, values, threshold)
    else:
        labels_ZYX[...] = np.asarray(values, labels_ZYX.dtype)[_arg_max(iter(scores))]


def output_values(labels: LabelSchema) -> tuple[int, ...]:
    """Return the label value that each output channel of the network stands for."""
    if labels.has_regions:
        return labels.regions_class_order
    return tuple(sorted(labels.classes.values()))


def label_dtype(values: Sequence[int]) -> type[np.uint8] | type[np.uint16]:
    """Return uint8 if all label values are below 255, else uint16 (nnU-Net 2.8.1)."""
    return np.uint8 if max(values, default=0) < 255 else np.uint16


def axis_maps(
    shape: Sequence[int],
    new_shape: Sequence[int],
    *,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    order: int,
) -> tuple[AxisMap, ...]:
    """Return the maps of the three axes, order 0 along the separate axis if there is one."""
    separate = separate_axis(spacing_mm, new_spacing_mm)
    return tuple(
        axis_map(int(size), int(new_size), order=0 if axis == separate else order)
        for axis, (size, new_size) in enumerate(zip(shape, new_shape, strict=True))
    )


def slabs(
    maps: Sequence[AxisMap], *, cells: bool = False, num_channels: int = 1
) -> Iterator[tuple[slice, slice, tuple[np.ndarray | None, ...]]]:
    """Cut the output along its first axis into slabs of at most about `SLAB_VOXELS` voxels.

    Fewer voxels where there are many channels, as all channels of a slab are needed together.

    Yields:
        rows: Output positions of the slab.
        window: Source positions along the first axis that it reads.
        weights: Per axis the matrix to apply to the window; None where nothing changes.
            With `cells` the weights of cells instead of those of interpolation.
    """
    matrices = [step.cell_weights if cells else step.weights for step in maps]
    plane = max(maps[1].size * maps[2].size, maps[1].new_size * maps[2].new_size)
    height = max(1, min(SLAB_VOXELS, _SLAB_BYTES // (4 * num_channels)) // plane)
    in_plane = [
        None if step.size == step.new_size else matrix
        for step, matrix in zip(maps[1:], matrices[1:], strict=True)
    ]
    for first in range(0, maps[0].new_size, height):
        rows = slice(first, min(first + height, maps[0].new_size))
        window = source_window(matrices[0][rows])
        unchanged = maps[0].size == maps[0].new_size
        across = None if unchanged else matrices[0][rows, window]
        yield rows, window, (across, *in_plane)


def _interpolate(channel_ZYX: np.ndarray, out_ZYX: np.ndarray, maps: Sequence[AxisMap]) -> None:
    """Interpolate along every axis and clip to the values before.

    In the order of `apply_weights`: axes that grow less than z are resampled before it, the others
    after it.

    Example of the blocks: z shrinks from 200 to 100 planes by cubic splines, 48 planes at a time.
    Output planes 0 to 47 read source planes 0 to 108, and 48 to 95 read 83 to 199. Planes 83 to 108
    are kept from the first block, and only 109 to 199 are read for the second.
    """
    along_z, *_ = maps
    low, high = np.float32(channel_ZYX.min()), np.float32(channel_ZYX.max())
    before, after = _in_plane(maps, before_z=True), _in_plane(maps, before_z=False)
    held_ZYX, first, stop = np.empty((0, 0, 0), np.float32), 0, 0
    for start in range(0, along_z.new_size, _PLANES_AT_ONCE):
        rows = slice(start, min(start + _PLANES_AT_ONCE, along_z.new_size))
        window = source_window(along_z.weights[rows])
        # Planes that the block before did not read, resampled along the axes that come before z.
        fresh_ZYX = channel_ZYX[max(stop, window.start) : window.stop].astype(
            np.float32, copy=False
        )
        fresh_ZYX = apply_weights(fresh_ZYX, before)
        kept_ZYX = held_ZYX[max(window.start - first, 0) :]
        held_ZYX = np.concatenate((kept_ZYX, fresh_ZYX)) if kept_ZYX.size else fresh_ZYX
        first, stop = window.start, window.stop
        # Then along z, then along the other axes, and clip what the splines overshoot.
        planes_ZYX = held_ZYX
        if along_z.size != along_z.new_size:
            planes_ZYX = apply_weights(held_ZYX, (along_z.weights[rows, window], None, None))
        np.clip(apply_weights(planes_ZYX, after), low, high, out=out_ZYX[rows])


def _interpolate_slices(
    slices_ZYX: np.ndarray, out_ZYX: np.ndarray, across: AxisMap, in_plane: Sequence[AxisMap]
) -> None:
    """Interpolate within slices, clip each to its values, and take the nearest along z."""
    weights = [None, *(None if step.size == step.new_size else step.weights for step in in_plane)]
    used = across.nearest if across.shrinks else np.arange(across.size)
    for start in range(0, len(used), _PLANES_AT_ONCE):
        stop = min(start + _PLANES_AT_ONCE, len(used))
        before_ZYX = slices_ZYX[used[start:stop]].astype(np.float32, copy=False)
        low, high = (
            extreme(before_ZYX, axis=(1, 2), keepdims=True) for extreme in (np.min, np.max)
        )
        after_ZYX = np.clip(apply_weights(before_ZYX, weights), low, high)
        if across.shrinks:
            out_ZYX[start:stop] = after_ZYX
        else:
            rows = slice(*np.searchsorted(across.nearest, (start, stop)))
            out_ZYX[rows] = after_ZYX[across.nearest[rows] - start]


def _in_plane(maps: Sequence[AxisMap], *, before_z: bool) -> tuple[np.ndarray | None, ...]:
    """Return the weights of y and x: of those that grow less than z, or else of the others."""
    along_z, *others = maps
    return (
        None,
        *(
            step.weights
            if step.size != step.new_size and (_growth(step) < _growth(along_z)) == before_z
            else None
            for step in others
        ),
    )


def _growth(step: AxisMap) -> float:
    """Return the factor by which an axis grows."""
    return step.new_size / step.size


def _first(axis: int) -> tuple[int, ...]:
    """Return the three axes with one of them moved to the front."""
    return (axis, *(other for other in range(3) if other != axis))


def _arg_max(scores: Iterator[np.ndarray]) -> np.ndarray:
    """Return the channel with the highest score per voxel, uint16; the lower one at a tie."""
    best_ZYX = np.array(next(scores))
    winner_ZYX = np.zeros(best_ZYX.shape, np.uint16)
    for channel, score_ZYX in enumerate(scores, start=1):
        better_ZYX = score_ZYX > best_ZYX
        winner_ZYX[better_ZYX] = channel
        np.maximum(best_ZYX, score_ZYX, out=best_ZYX)
    return winner_ZYX


def _paint_regions(
    labels_ZYX: np.ndarray,
    scores: Iterable[np.ndarray],
    values: Sequence[int],
    threshold: float,
) -> None:
    """Write the value of every region above the threshold; later regions overwrite earlier ones."""
    for value, score_ZYX in zip(values, scores, strict=True):
        labels_ZYX[score_ZYX > threshold] = value
