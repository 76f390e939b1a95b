"""Segment scans with a trained model: in memory one by one, or files into a folder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sparseunet.artifacts import write_json
from sparseunet.data.dataset import Case
from sparseunet.data.image import Image
from sparseunet.data.io import read_image, read_label_map, write_label_map
from sparseunet.errors import RequestError, SparseUNetError
from sparseunet.networks.device import autocast, resolve_device, resolve_precision
from sparseunet.networks.trained_model import TrainedModel, load_network
from sparseunet.prediction.overlap import overlap
from sparseunet.prediction.previous_stage import check_previous_stage, hash_previous_stage
from sparseunet.prediction.record import describe, require_same_prediction
from sparseunet.prediction.request import Existing, check_request, choose_scans
from sparseunet.prediction.sliding_window import sliding_window_logits
from sparseunet.preprocessing.case import PreprocessedCase, preprocess_case
from sparseunet.preprocessing.previous_stage import with_previous_stage
from sparseunet.preprocessing.restore import restore_labels
from sparseunet.workspace import DATASET_JSON, PREDICTION_JSON

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOptions:
    """How to predict; what to predict with is the `TrainedModel`."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto` (what is fastest on the device), `float32`, `bfloat16` or `float16`."""
    mirror: bool = True
    """Whether to average over mirrored passes, along the axes that were mirrored in training."""
    step: float = 0.5
    """Distance of neighbouring patches as a fraction of the patch, in (0, 1]."""
    num_workers: int = 2
    """Scans prepared ahead of the network, and scans behind it that are restored and written. Each
    of the latter holds the logits of a scan in memory. At least 1."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise RequestError(
                f"The step is a fraction of the patch, above 0 and at most 1; found {self.step}."
            )
        if self.num_workers < 1:
            raise RequestError(f"Expected at least one worker, found {self.num_workers}.")


def predict(
    model: TrainedModel,
    scans: Sequence[Case],
    *,
    output: Path,
    file_ending: str,
    options: PredictionOptions | None = None,
    existing: Existing = "refuse",
    previous_stage: Path | None = None,
) -> list[Path]:
    """Segment scans and write one label file per scan, on the scan's own grid.

    While the network works on one scan, the next ones are read and preprocessed and the last ones
    are restored and written. A scan that fails does not stop the others. Files are written whole or
    not at all. `dataset.json` and `prediction.json` (model, hashes of its weights, options) lie
    beside them.

    Args:
        model: From `load_trained_model`; several folds are averaged.
        scans: From `find_scans`; none gives an empty list and writes nothing.
        output: Folder of `CASE` + `file_ending`; made when missing.
        file_ending: With the dot, e.g. `.nii.gz`.
        options: Device, precision, mirroring, overlap, workers; None for the defaults.
        existing: What happens to scans whose label file is there already.
        previous_stage: Second stage of a cascade only, and needed there: folder of the previous
            stage's label files, named like the results, on the grids of the scans.

    Returns:
        The label file of every scan, in the order of `scans`, skipped ones included.

    Raises:
        DatasetError: Nothing was predicted, because label files of the previous stage are missing
            or lie on other grids; names all of them.
        RequestError: Nothing was predicted, because the request cannot be met; or some scans could
            not be predicted because of their data. Names all of them with the reasons.
        SparseUNetError: Some scans could not be predicted, at least one of them for a reason that
            is not its data's.
    """
    options = options or PredictionOptions()
    if not scans:
        return []
    check_request(model, scans, previous_stage, output)
    files = {scan.name: output / f"{scan.name}{file_ending}" for scan in scans}
    todo = choose_scans(scans, files, existing=existing)
    previous: dict[str, Path] = {}
    description = describe(model, options)
    if previous_stage is not None:
        previous = check_previous_stage(todo, previous_stage, file_ending=file_ending)
        description["previous_stage"] = hash_previous_stage(scans, previous_stage, file_ending)
    if len(todo) < len(scans):
        require_same_prediction(output, description)
    write_json(output / DATASET_JSON, model.dataset_json | {"file_ending": file_ending})
    write_json(output / PREDICTION_JSON, description)
    if todo:
        failures = _predict_files(model, todo, files, options, previous)
        _report(failures, num_scans=len(todo), output=output)
    return list(files.values())


def predict_image(
    model: TrainedModel,
    image: Image,
    *,
    options: PredictionOptions | None = None,
    previous_ZYX: np.ndarray | None = None,
) -> np.ndarray:
    """Segment one scan in memory; for many, load the networks once and use `predict_case`.

    Returns:
        Label map on the grid of `image`, unsigned integers, axes (z, y, x).

    Raises:
        RequestError: The scan does not fit the model: channels or dimensions differ.
    """
    options = options or PredictionOptions()
    device = resolve_device(options.device)
    return predict_case(
        load_networks(model, device),
        image,
        model,
        device=device,
        precision=resolve_precision(options.precision, device),
        mirror=options.mirror,
        step=options.step,
        previous_ZYX=previous_ZYX,
    )


def load_networks(model: TrainedModel, device: torch.device) -> list[nn.Module]:
    """Load the network of every fold onto the device, in evaluation mode."""
    return [load_network(model, checkpoint).to(device) for checkpoint in model.checkpoints]


def predict_case(
    networks: Sequence[nn.Module],
    image: Image,
    model: TrainedModel,
    *,
    device: torch.device,
    precision: torch.dtype | None,
    mirror: bool,
    step: float,
    previous_ZYX: np.ndarray | None = None,
) -> np.ndarray:
    """Segment one scan with networks that are loaded already.

    Preprocess, average the logits of folds, mirrored passes and overlapping patches, resample them
    to the scan's grid and take the class (or paint the regions in order).

    Args:
        networks: From `load_networks`, one per fold.
        image: The scan as read.
        model: What the networks were trained for.
        device: Where the networks are.
        precision: Autocast type; None for float32.
        mirror: Whether to average over mirrored passes.
        step: Distance of neighbouring patches as a fraction of the patch.
        previous_ZYX: Second stage of a cascade: the previous stage's label map of `image`.

    Returns:
        Label map on the grid of `image`, unsigned integers, axes (z, y, x).

    Raises:
        RequestError: The scan does not fit the model: channels or dimensions differ, or the
            previous stage's label map is missing or holds other values.
    """
    case = _preprocess("image", image, model, previous_ZYX)
    logits = predict_logits(
        networks, case, model, device=device, precision=precision, mirror=mirror, step=step
    )
    return restore_labels(logits, case.restoration, labels=model.labels)


def predict_logits(
    networks: Sequence[nn.Module],
    case: PreprocessedCase,
    model: TrainedModel,
    *,
    device: torch.device,
    precision: torch.dtype | None,
    mirror: bool,
    step: float,
) -> np.ndarray:
    """Return the mean logits (K, Z, Y, X) of the networks on the grid of the preprocessed case.

    The mean over folds is taken patch by patch, so an ensemble needs no more memory for logits than
    one network.
    """

    def predict_tile(patches: Tensor) -> Tensor:
        with autocast(device, precision):
            total = networks[0](patches).float()
            for network in networks[1:]:
                total += network(patches)
        return total / len(networks)

    patch_size = model.configuration.patch_size
    logits_KZYX = sliding_window_logits(
        predict_tile,
        case.image_CZYX,
        patch_size=patch_size,
        num_outputs=model.labels.num_outputs,
        step=step,
        mirror_axes=model.mirror_axes if mirror else (),
        device=device,
        tile_batch_size=_tile_batch_size(patch_size),
    )
    return logits_KZYX.cpu().numpy()


_VOXELS_PER_CALL = 90_000
"""Small patches are batched up to this many voxels. Measured on two cores in bfloat16: 3D patches
of 40×56×40 are fastest one by one (by eight: a fifth slower), 2D patches of 56×40 by 16 or more
(one by one: three times as slow). Channels-last was not faster than contiguous."""


def _tile_batch_size(patch_size: Sequence[int]) -> int:
    return max(1, _VOXELS_PER_CALL // int(np.prod(patch_size)))


def _predict_files(
    model: TrainedModel,
    scans: Sequence[Case],
    files: dict[str, Path],
    options: PredictionOptions,
    previous: Mapping[str, Path],
) -> list[tuple[Case, Exception]]:
    """Predict all scans; return those that failed, each with its error."""
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    networks = load_networks(model, device)

    def prepare(scan: Case) -> PreprocessedCase:
        path = previous.get(scan.name)
        previous_ZYX = None if path is None else read_label_map(path)[0]
        return _preprocess(scan.name, read_image(scan.images), model, previous_ZYX)

    def work(case: PreprocessedCase) -> np.ndarray:
        return predict_logits(
            networks,
            case,
            model,
            device=device,
            precision=precision,
            mirror=options.mirror,
            step=options.step,
        )

    def finish(scan: Case, case: PreprocessedCase, logits_KZYX: np.ndarray) -> None:
        labels_ZYX = restore_labels(logits_KZYX, case.restoration, labels=model.labels)
        write_label_map(files[scan.name], labels_ZYX, case.restoration.geometry)

    return overlap(
        scans,
        prepare=prepare,
        work=work,
        finish=finish,
        num_workers=options.num_workers,
        label="Predicting",
    )


def _preprocess(
    name: str, image: Image, model: TrainedModel, previous_ZYX: np.ndarray | None
) -> PreprocessedCase:
    num_channels, expected = len(image.voxels_CZYX), len(model.plan.intensities)
    if num_channels != expected:
        raise RequestError(
            f"Scan {name} has {num_channels} channels; the model was trained on {expected}."
        )
    if image.geometry.dimensions == 2 and model.configuration.dimensions == 3:
        raise RequestError(
            f"Scan {name} is a single plane; configuration {model.configuration.name} needs "
            "volumes. Predict with a 2d configuration."
        )
    if (model.configuration.previous_stage is None) != (previous_ZYX is None):
        raise RequestError(
            f"Scan {name}: the segmentation by a previous stage is needed by the second stage of a "
            f"cascade and by nothing else; {model.configuration.name} has the previous stage "
            f"{model.configuration.previous_stage}."
        )
    case = preprocess_case(name, image, None, plan=model.plan, configuration=model.configuration)
    if previous_ZYX is None:
        return case
    return with_previous_stage(case, previous_ZYX, model.labels)


def _report(failures: Sequence[tuple[Case, Exception]], *, num_scans: int, output: Path) -> None:
    """Raise one error that names every scan that failed; nothing when none did."""
    if not failures:
        return
    lines = [
        f"  {scan.name}: {error if isinstance(error, SparseUNetError) else repr(error)}"
        for scan, error in failures
    ]
    head = (
        f"{len(failures)} of {num_scans} scans could not be predicted; the others are in {output}:"
    )
    message = "\n".join((head, *lines))
    if all(isinstance(error, RequestError) for _, error in failures):
        raise RequestError(message)
    raise SparseUNetError(message)
