"""Segment scans in memory, one by one."""

from collections.abc import Sequence

import numpy as np

from sparseunet.data.foreign import AnyImage, image_of
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.loaded_model import LoadedModel, load_onto_device, prepare
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.restored import Restored


def predict_image(
    model: LoadedModel | TrainedModel,
    image: AnyImage,
    *,
    spacing_mm: Sequence[float] | None = None,
    options: PredictionOptions | None = None,
    previous_ZYX: np.ndarray | None = None,
) -> np.ndarray:
    """Segment one scan in memory.

    Args:
        model: From `load_model`, which keeps the networks for the next scan; a `TrainedModel` is
            loaded for this scan only.
        image: A scan as read; an image of SimpleITK or nibabel; or voxels (z, y, x) or
            (channels, z, y, x) of any real type.
        spacing_mm: Voxel size along (z, y, x); with voxels only, and needed there.
        options: With a `TrainedModel`: device, precision, mirroring, overlap, memory; None for the
            defaults. A loaded model has them.
        previous_ZYX: Second stage of a cascade: the previous stage's label map of `image`.

    Returns:
        Label map on the grid of `image`, unsigned integers, axes (z, y, x).

    Raises:
        RequestError: The scan does not fit the model: channels or dimensions differ; or `options`
            come too late for it.
    """
    loaded = as_loaded(model, options)
    case = prepare("image", as_image(image, spacing_mm), loaded.model, previous_ZYX)
    restored = Restored(case.restoration, loaded.model.labels)
    restored.paint_all(loaded.logits(case), num_channels=loaded.num_channels)
    return restored.labels_ZYX


def as_loaded(model: LoadedModel | TrainedModel, options: PredictionOptions | None) -> LoadedModel:
    """Return a model that can predict; a loaded one as it is.

    Raises:
        RequestError: It is loaded and `options` are given, which would change nothing.
    """
    if isinstance(model, TrainedModel):
        return load_onto_device(model, options or PredictionOptions())
    if options is not None:
        raise RequestError("The model is loaded already; give the options to load_model.")
    return model


def as_image(image: AnyImage, spacing_mm: Sequence[float] | None) -> Image:
    """Return voxels and their spacing as an image; an image as it is.

    Raises:
        RequestError: Spacing is missing or has no use, or the array has no three or four axes.
    """
    if not isinstance(image, np.ndarray):
        image = image_of(image)
        if spacing_mm is not None:
            raise RequestError("An Image knows its spacing; give spacing_mm with an array only.")
        return image
    if spacing_mm is None or len(spacing_mm) != 3 or image.ndim not in (3, 4):
        raise RequestError(
            f"Found an array of shape {image.shape} and spacing_mm {spacing_mm}; expected "
            "(z, y, x) or (channels, z, y, x), and the voxel size along (z, y, x) in mm."
        )
    voxels_CZYX = np.asarray(image if image.ndim == 4 else image[None], np.float32)
    if not np.isfinite(voxels_CZYX).all():
        raise RequestError("The array holds NaN or infinity; expected finite intensities.")
    z, y, x = (float(spacing) for spacing in spacing_mm)
    sizes = voxels_CZYX.shape
    return Image(
        voxels_CZYX=voxels_CZYX,
        geometry=Geometry(shape=(sizes[1], sizes[2], sizes[3]), spacing_mm=(z, y, x)),
    )
