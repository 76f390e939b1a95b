"""Bring the network's output back to the grid of the source file."""

import numpy as np

from sparseunet.data.labels import LabelSchema
from sparseunet.preprocessing.case import Restoration
from sparseunet.preprocessing.resample import logits_to_labels


def restore_labels(
    logits_KZYX: np.ndarray,
    restoration: Restoration,
    *,
    labels: LabelSchema,
    threshold: float = 0.0,
) -> np.ndarray:
    """Resample to the crop box, decide on labels, and undo the crop and the transpose.

    Args:
        logits_KZYX: float16 or float32, one channel per network output, on the network's grid.
            Probabilities do as well.
        restoration: From `preprocess_case`.
        labels: What the channels mean.
        threshold: Regions only: 0 for logits, 0.5 for probabilities.

    Returns:
        labels_ZYX on the grid of the file, uint8 or uint16; background outside the crop box.

    Raises:
        ValueError: The output lies on another grid or has another number of channels.
    """
    _check_shape(logits_KZYX, restoration)
    inner_ZYX = logits_to_labels(
        logits_KZYX,
        restoration.crop_shape,
        spacing_mm=restoration.target_spacing_mm,
        new_spacing_mm=restoration.spacing_mm,
        labels=labels,
        threshold=threshold,
    )
    labels_ZYX = np.zeros(restoration.geometry.shape, inner_ZYX.dtype)
    in_crop_box(labels_ZYX, restoration)[...] = inner_ZYX
    return labels_ZYX


def in_crop_box(array_ZYX: np.ndarray, restoration: Restoration) -> np.ndarray:
    """Return the part of an array on the file's grid that was preprocessed, on transposed axes.

    A view, so that what is written to it appears in the array.
    """
    return array_ZYX.transpose(restoration.transpose_forward)[_box(restoration)]


def _box(restoration: Restoration) -> tuple[slice, ...]:
    return tuple(
        slice(start, start + size)
        for start, size in zip(restoration.crop_start, restoration.crop_shape, strict=True)
    )


def _check_shape(array_KZYX: np.ndarray, restoration: Restoration) -> None:
    if array_KZYX.shape[1:] != restoration.network_shape:
        raise ValueError(
            f"The array has shape {array_KZYX.shape[1:]}; expected the network's grid "
            f"{restoration.network_shape}."
        )
