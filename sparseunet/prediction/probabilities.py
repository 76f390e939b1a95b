"""Class probabilities of scans, one scan in memory at a time, for what needs more than labels."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import expit, softmax

from sparseunet.data.dataset import Case
from sparseunet.data.io import read_image
from sparseunet.errors import RequestError
from sparseunet.networks.device import resolve_device, resolve_precision
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.predict import PredictionOptions, load_networks, predict_logits
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.restore import restore_scores
from sparseunet.progress import track


def predict_probabilities(
    model: TrainedModel, scans: Sequence[Case], *, options: PredictionOptions
) -> Iterator[np.ndarray]:
    """Yield the probabilities of every class, one scan at a time, so that one is in memory.

    Softmax over classes, or a sigmoid per region, on the network's grid; then resampled linearly to
    the grid of the scan. Outside the box that preprocessing crops to, background has probability 1.

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
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    networks = load_networks(model, device)
    outside = np.zeros(model.labels.num_outputs, np.float32)
    if not model.labels.has_regions:
        outside[0] = 1.0
    for scan in track(scans, total=len(scans), label="Predicting"):
        image = read_image(scan.images)
        if len(image.voxels_CZYX) != len(model.plan.intensities):
            raise RequestError(
                f"Scan {scan.name} has {len(image.voxels_CZYX)} channels; the model was trained on "
                f"{len(model.plan.intensities)}."
            )
        case = preprocess_case(
            scan.name, image, None, plan=model.plan, configuration=model.configuration
        )
        logits_KZYX = predict_logits(
            networks,
            case,
            model,
            device=device,
            precision=precision,
            mirror=options.mirror,
            step=options.step,
        )
        scores_KZYX = logits_KZYX.astype(np.float32)
        scores_KZYX = expit(scores_KZYX) if model.labels.has_regions else softmax(scores_KZYX, 0)
        yield restore_scores(scores_KZYX, case.restoration, outside=outside)
