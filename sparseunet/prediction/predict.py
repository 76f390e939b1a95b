"""Segment files with a trained model, into a folder."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.data.dataset import Case
from sparseunet.data.dicom_seg import Algorithm, check_dicom_seg, write_dicom_seg
from sparseunet.data.geometry import Geometry
from sparseunet.data.inputs import find_inputs
from sparseunet.data.io import (
    count_values,
    read_image,
    read_label_map,
    write_label_map,
)
from sparseunet.errors import RequestError, SparseUNetError
from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.checks import CaseCheck, check_scan, count_classes, write_checks
from sparseunet.prediction.estimate import bytes_of_scan
from sparseunet.prediction.loaded_model import (
    LoadedModel,
    load_onto_device,
    prepare,
)
from sparseunet.prediction.memory import resident_bytes
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.overlap import overlap
from sparseunet.prediction.previous_stage import check_previous_stage, hash_previous_stage
from sparseunet.prediction.record import algorithm_of, describe, require_same_prediction
from sparseunet.prediction.request import Existing, check_request, choose_scans, wanted_files
from sparseunet.prediction.restored import Restored
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.workspace import (
    CONFIDENCE_MAP,
    DATASET_JSON,
    PREDICTION_CASES_JSON,
    PREDICTION_JSON,
    dicom_seg_file,
    probabilities_file,
    uncertainty_file,
)

Scans = str | Path | Sequence[Case | str | Path]
"""What can be segmented: a folder, a file, or several, or cases."""


def predict(
    model: TrainedModel | LoadedModel,
    scans: Scans,
    *,
    output: Path | str,
    file_ending: str | None = None,
    options: PredictionOptions | None = None,
    existing: Existing = "refuse",
    previous_stage: Path | None = None,
    cases_json: str = PREDICTION_CASES_JSON,
) -> list[Path]:
    """Segment scans and write one label file per scan, on the scan's own grid.

    While the network works on one scan, the next ones are read and preprocessed and the last ones
    are restored and written. A scan that fails does not stop the others. Files are written whole or
    not at all. `dataset.json`, `prediction.json` (model, hashes of its weights, options) and
    `prediction_cases.json` (what is odd about each scan, voxels per class) lie beside them.

    Args:
        model: From `load_model`; several folds are averaged.
        scans: A folder or file, several of them, or cases from `find_scans`; none gives an empty
            list and writes nothing.
        output: Folder of `CASE` + `file_ending`; made when missing.
        file_ending: With the dot, e.g. `.nii.gz`; None for that of the training dataset.
        options: Device, precision, mirroring, overlap, workers; None for the defaults, or for what
            the model was loaded with.
        existing: What happens to scans whose label file is there already.
        previous_stage: Second stage of a cascade only, and needed there: folder of the previous
            stage's label files, named like the results, on the grids of the scans.
        cases_json: Name of that file; parts of the scans that are predicted at the same time have
            one each.

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
    ready = model if isinstance(model, LoadedModel) else None
    if isinstance(model, LoadedModel):
        options, model = options or model.options, model.model
    options, output = options or PredictionOptions(), Path(output)
    file_ending = file_ending or str(model.dataset_json["file_ending"])
    scans = _as_cases(scans, model)
    if not scans:
        return []
    check_request(model, scans, previous_stage, output, dicom_seg=options.dicom_seg)
    wanted = wanted_files(scans, output, file_ending, dicom_seg=options.dicom_seg)
    todo = choose_scans(scans, wanted, existing=existing)
    files = {name: label_file for name, (label_file, *_) in wanted.items()}
    previous: dict[str, Path] = {}
    description = describe(model, options)
    if previous_stage is not None:
        previous = check_previous_stage(todo, previous_stage, file_ending=file_ending)
        description["previous_stage"] = hash_previous_stage(scans, previous_stage, file_ending)
    if len(todo) < len(scans):
        require_same_prediction(output, description)
    loaded = None
    if todo:
        loaded = load_onto_device(model, options, folder=output, networks=ready)
        description["precision"] = DTYPE_NAMES[loaded.precision]
    write_json(output / DATASET_JSON, model.dataset_json | {"file_ending": file_ending})
    write_json(output / PREDICTION_JSON, description)
    if loaded is not None:
        algorithm = algorithm_of(description) if options.dicom_seg else None
        failures, checks = _predict_files(loaded, todo, files, options, previous, algorithm)
        write_checks(output / cases_json, checks, model)
        _report(failures, num_scans=len(todo), output=output)
    return list(files.values())


def _as_cases(scans: Scans, model: TrainedModel) -> Sequence[Case]:
    """Return the scans of what was given.

    Raises:
        RequestError: A path does not exist or holds no scans.
    """
    given = [scans] if isinstance(scans, str | Path) else list(scans)
    cases = [each for each in given if isinstance(each, Case)]
    if len(cases) == len(given):
        return cases
    paths = [Path(each) for each in given if not isinstance(each, Case)]
    return [*cases, *find_inputs(paths, dataset_json=model.dataset_json)]


def _predict_files(
    loaded: LoadedModel,
    scans: Sequence[Case],
    files: dict[str, Path],
    options: PredictionOptions,
    previous: Mapping[str, Path],
    algorithm: Algorithm | None,
) -> tuple[list[tuple[Case, Exception]], list[CaseCheck]]:
    """Predict all scans; return those that failed, each with its error, and about the others."""
    model = loaded.model
    max_bytes = None if options.max_bytes is None else options.max_bytes - resident_bytes()
    checks: dict[str, CaseCheck] = {}

    def prepare_scan(scan: Case) -> PreprocessedCase:
        if algorithm is not None:
            check_dicom_seg(scan.images[0], model.labels, algorithm)
        path = previous.get(scan.name)
        previous_ZYX = None if path is None else read_label_map(path)[0]
        image = [read_image(scan.images)]
        checks[scan.name] = check_scan(scan.name, image[0], model)
        return prepare(scan.name, image.pop(), model, previous_ZYX, in_place=True)

    def write(scan: Case, painting: _PendingPrediction) -> None:
        counts = _write(scan, painting, model, algorithm)
        found = count_classes(counts, model.labels)
        checks[scan.name] = replace(checks[scan.name], num_voxels=found)

    with ThreadPoolExecutor(options.num_workers) as painters:
        failures = overlap(
            scans,
            prepare=prepare_scan,
            work=partial(_predict_prepared, loaded, files, options, painters),
            finish=write,
            num_workers=options.num_workers,
            label="Predicting",
            num_bytes=partial(bytes_of_scan, loaded),
            max_bytes=max_bytes,
        )
    failed = {scan.name for scan, _ in failures}
    return failures, [check for name, check in checks.items() if name not in failed]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _PendingPrediction:
    """A scan that is predicted, and what is left to do about it."""

    file: Path
    geometry: Geometry
    restored: Restored
    waiting: list[Future[None]]
    temporary: ExitStack
    """Puts files in place that were written on the way."""


def _predict_prepared(
    loaded: LoadedModel,
    files: dict[str, Path],
    options: PredictionOptions,
    painters: Executor,
    case: PreprocessedCase,
) -> _PendingPrediction:
    """Predict one preprocessed case and start painting its maps.

    Returns:
        The painting in progress. It owns the temporary file of the probabilities, if any.
    """
    labels, restoration, file = loaded.model.labels, case.restoration, files[case.name]
    with ExitStack() as stack:
        opener: Callable[[], np.ndarray] | None = None
        if options.save_probabilities:
            path = stack.enter_context(atomic_path(probabilities_file(file, case.name)))
            shape = (labels.num_outputs, *restoration.geometry.shape)
            open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            opener = partial(open_memmap, path, mode="r+")
        restored = Restored(
            restoration,
            labels,
            open_probabilities=opener,
            uncertainty=options.uncertainty,
            confidence=options.confidence,
        )
        waiting = restored.painting(
            loaded.logits(case),
            painters,
            num_channels=loaded.num_channels,
            num_waiting=options.num_workers,
        )
        return _PendingPrediction(
            file=file,
            geometry=restoration.geometry,
            restored=restored,
            waiting=waiting,
            temporary=stack.pop_all(),
        )


def _write(
    scan: Case, painting: _PendingPrediction, model: TrainedModel, algorithm: Algorithm | None
) -> dict[int, int]:
    """Write what is wanted of a scan and return the number of voxels of every label value."""
    restored, geometry = painting.restored, painting.geometry
    with painting.temporary:
        for future in painting.waiting:
            future.result()
    maps = {
        "entropy": restored.entropy_ZYX,
        "disagreement": restored.disagreement_ZYX,
        CONFIDENCE_MAP: restored.confidence_ZYX,
    }
    for name, map_ZYX in maps.items():
        if map_ZYX is not None:
            write_label_map(uncertainty_file(painting.file, scan.name, name), map_ZYX, geometry)
    if algorithm is not None:
        write_dicom_seg(
            dicom_seg_file(painting.file, scan.name),
            restored.labels_ZYX,
            series=scan.images[0],
            labels=model.labels,
            algorithm=algorithm,
        )
    # Last, so that a scan with a segmentation is done.
    write_label_map(painting.file, restored.labels_ZYX, geometry)
    return count_values(restored.labels_ZYX)


def _report(failures: Sequence[tuple[Case, Exception]], *, num_scans: int, output: Path) -> None:
    """Raise one error that names every scan that failed; nothing when none did."""
    if not failures:
        return
    lines = [
        f"  {scan.name}: {error if isinstance(error, SparseUNetError) else repr(error)}"
        for scan, error in failures
    ]
    head = f"{len(failures)} of {num_scans} scans could not be predicted"
    if len(failures) < num_scans:
        head += f"; the others are in {output}"
    head += ":"
    message = "\n".join((head, *lines))
    if all(isinstance(error, RequestError) for _, error in failures):
        raise RequestError(message)
    raise SparseUNetError(message)
