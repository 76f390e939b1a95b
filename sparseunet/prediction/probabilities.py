"""Class probabilities in memory, one scan at a time, for what needs more than labels."""

from collections.abc import Iterator, Sequence

import numpy as np

from sparseunet.data.dataset import Case
from sparseunet.data.foreign import AnyImage
from sparseunet.data.io import read_image
from sparseunet.errors import RequestError
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.in_memory import as_image, as_loaded
from sparseunet.prediction.loaded_model import LoadedModel, load_onto_device, prepare
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.restored import Restored
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.progress import track


def predict_probabilities(
    model: TrainedModel, scans: Sequence[Case], *, options: PredictionOptions
) -> Iterator[np.ndarray]:
    """Yield the probabilities of every class, one scan at a time, so that one is in memory.

    Logits are resampled linearly to the grid of the scan; then softmax over classes, or a sigmoid
    per region. Outside the box that preprocessing crops to, background has probability 1.

    Yields:
        float32, shape (network outputs K, Z, Y, X), in the order of `scans`.

    Raises:
        RequestError: A scan does not fit the model, or the model refines another's segmentation.
    """
    if model.configuration.previous_stage is not None:
        raise RequestError(
            f"Configuration {model.configuration.name} refines the segmentations of "
            f"{model.configuration.previous_stage}; take a network that works alone."
        )
    loaded = load_onto_device(model, options)
    for scan in track(scans, total=len(scans), label="Predicting"):
        yield _probabilities(loaded, prepare(scan.name, read_image(scan.images), model))


def predict_image_probabilities(
    model: LoadedModel | TrainedModel,
    image: AnyImage,
    *,
    spacing_mm: Sequence[float] | None = None,
    options: PredictionOptions | None = None,
    previous_ZYX: np.ndarray | None = None,
) -> np.ndarray:
    """Return the probabilities of every class for one scan in memory; their maximum is its label.

    Args:
        model: From `load_model`; a `TrainedModel` is loaded for this scan only.
        image: A scan as read, or its voxels (z, y, x) or (channels, z, y, x) of any real type.
        spacing_mm: Voxel size along (z, y, x); with voxels only, and needed there.
        options: With a `TrainedModel`: device, precision, mirroring, overlap; None for defaults.
        previous_ZYX: Second stage of a cascade: the previous stage's label map of `image`.

    Returns:
        As `predict_probabilities` yields.

    Raises:
        RequestError: The scan does not fit the model, or `options` come too late for it.
    """
    loaded = as_loaded(model, options)
    scan = prepare("image", as_image(image, spacing_mm), loaded.model, previous_ZYX)
    return _probabilities(loaded, scan)


def _probabilities(loaded: LoadedModel, case: PreprocessedCase) -> np.ndarray:
    labels = loaded.model.labels
    found_KZYX = np.zeros((labels.num_outputs, *case.restoration.geometry.shape), np.float32)
    restored = Restored(case.restoration, labels, open_probabilities=lambda: found_KZYX)
    restored.paint_all(loaded.logits(case), num_channels=loaded.num_channels)
    return found_KZYX
