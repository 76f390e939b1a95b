"""What the first stage of a cascade predicted, as input of the second.

The first stage's segmentations are label files on the grids of the scans. Training and prediction
bring them to the network's grid by one function, so the second stage is given in prediction what
it was given in training. (nnU-Net 2.8.1 resamples logits for training and label files for
prediction.)
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import blosc2
import numpy as np

from sparseunet.artifacts import atomic_path, hash_content, hash_file, parse, read_json, write_json
from sparseunet.data.annotation import Annotation
from sparseunet.data.io import read_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, UnreadableFileError
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.resample_annotation import resample_annotation
from sparseunet.preprocessing.store import Box, CaseStore
from sparseunet.preprocessing.write import write_chunked
from sparseunet.progress import track

_KIND = "sparseunet.previous_stage"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviousStage:
    """Label maps of the previous stage on the network's grid. Safe to share between processes."""

    folders: Mapping[str, Path]
    """Case to the folder that `update_previous_stage` wrote it to."""

    def read_patch(self, case: str, start: Box, stop: Box) -> np.ndarray:
        """Return labels_ZYX, uint8 or uint16, from `start` to before `stop`, within the case.

        Raises:
            UnreadableFileError: The file is damaged or missing.
        """
        box = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
        path = _array_file(self.folders[case], case)
        try:
            array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            return np.asarray(array[box]).reshape([part.stop - part.start for part in box])
        except (OSError, RuntimeError, ValueError) as error:
            raise UnreadableFileError(
                case=case,
                file=str(path),
                found=f"a damaged or missing file ({(str(error) or repr(error)).splitlines()[0]})",
                expected="a label map of the previous stage",
                fix="remove the case's .json file beside it and start the training again",
            ) from None

    def content_hash(self) -> str:
        """Return a SHA-256 over names and label maps of all cases."""
        records = {case: _read_record(folder, case) for case, folder in self.folders.items()}
        return hash_content(
            {
                case: None if record is None else record.content_hash
                for case, record in records.items()
            }
        )


def labels_on_network_grid(labels_ZYX: np.ndarray, restoration: Restoration) -> np.ndarray:
    """Bring a label map from the grid of the scan to that of the network.

    Transpose, crop to the scan's box, and resample as dense labels are resampled for training
    (nnU-Net 2.8.1: linear per class, the largest wins, nearest across slices that lie far apart).

    Raises:
        ValueError: The labels are not on the grid of the scan.
    """
    if labels_ZYX.shape != restoration.geometry.shape:
        raise ValueError(
            f"The labels have shape {labels_ZYX.shape}; expected the scan's "
            f"{restoration.geometry.shape}."
        )
    box = tuple(
        slice(first, first + size)
        for first, size in zip(restoration.crop_start, restoration.crop_shape, strict=True)
    )
    inner_ZYX = np.ascontiguousarray(labels_ZYX.transpose(restoration.transpose_forward)[box])
    return resample_annotation(
        Annotation.from_label_map(inner_ZYX, ignore=None),
        restoration.network_shape,
        spacing_mm=restoration.spacing_mm,
        new_spacing_mm=restoration.target_spacing_mm,
    ).labels_ZYX


def one_hot(labels_ZYX: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Return float32 (len(values), Z, Y, X): 1 where the label is the channel's value, else 0."""
    return np.stack([labels_ZYX == value for value in values]).astype(np.float32)


def with_previous_stage(
    case: PreprocessedCase, previous_ZYX: np.ndarray, labels: LabelSchema
) -> PreprocessedCase:
    """Return the case with one image channel more per foreground label of the previous stage.

    Args:
        case: A preprocessed scan.
        previous_ZYX: What the previous stage predicted, on the grid of the scan's file.
        labels: The dataset's classes.

    Raises:
        RequestError: The map holds other values than the dataset's.
        ValueError: It lies on another grid.
    """
    unknown = sorted(set(np.unique(previous_ZYX).tolist()) - set(labels.values))
    if unknown:
        raise RequestError(
            f"The previous stage's segmentation of {case.name} holds the values {unknown}; "
            f"expected those of the dataset, {list(labels.values)}."
        )
    channels = one_hot(
        labels_on_network_grid(previous_ZYX, case.restoration), labels.foreground_values
    )
    return replace(case, image_CZYX=np.concatenate((case.image_CZYX, channels)))


def update_previous_stage(
    folder: Path,
    label_files: Mapping[str, Path],
    *,
    store: CaseStore,
    patch_size: Sequence[int],
    num_workers: int,
) -> int:
    """Bring label files of the previous stage to the grid of preprocessed cases, and store them.

    What was made from the same file for the same grid is left alone.

    Args:
        folder: For the label maps; made if missing.
        label_files: Case to its segmentation by the previous stage, on the grid of the scan.
        store: The second stage's preprocessed cases, all of `label_files` among them.
        patch_size: Voxels along (z, y, x) that will be read at a time.
        num_workers: Number of threads.

    Returns:
        Number of cases written.

    Raises:
        DatasetError: Files that cannot be read or are on another grid, all of them at once.
    """
    input_hashes = {
        case: hash_content([_VERSION, hash_file(path), store.manifest(case).restoration])
        for case, path in label_files.items()
    }
    outdated = [
        case
        for case, input_hash in sorted(input_hashes.items())
        if not _is_stored(folder, case, input_hash)
    ]
    if not outdated:
        return 0

    def work(case: str) -> tuple[Problem, ...]:
        try:
            labels_ZYX = _read(case, label_files[case], store.manifest(case).restoration)
        except DatasetError as error:
            return error.problems
        _write(folder, case, labels_ZYX, tuple(patch_size), input_hash=input_hashes[case])
        return ()

    with ThreadPoolExecutor(num_workers) as executor:
        outcomes = list(
            track(
                executor.map(work, outdated),
                total=len(outdated),
                label="Segmentations for the next stage",
            )
        )
    problems = [problem for outcome in outcomes for problem in outcome]
    if problems:
        raise DatasetError(problems)
    return len(outdated)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What a stored label map was made from, and what it is."""

    kind: str
    version: int
    input_hash: str
    content_hash: str


def _is_stored(folder: Path, case: str, input_hash: str) -> bool:
    record = _read_record(folder, case)
    return (
        record is not None
        and record.input_hash == input_hash
        and _array_file(folder, case).is_file()
    )


def _read(case: str, label_file: Path, restoration: Restoration) -> np.ndarray:
    """Return the label map on the network's grid."""
    labels_ZYX, geometry = read_label_map(label_file)
    if geometry.shape != restoration.geometry.shape:
        raise DatasetError([_shape_problem(case, label_file, geometry.shape, restoration)])
    return np.ascontiguousarray(labels_on_network_grid(labels_ZYX, restoration))


def _write(
    folder: Path, case: str, labels_ZYX: np.ndarray, patch_size: tuple[int, ...], *, input_hash: str
) -> None:
    """Write array and record; an interruption leaves no record, so the case is written again."""
    _record_file(folder, case).unlink(missing_ok=True)
    with atomic_path(_array_file(folder, case)) as temporary:
        write_chunked(temporary, labels_ZYX, patch_size)
    record = _Record(
        kind=_KIND,
        version=_VERSION,
        input_hash=input_hash,
        content_hash=hashlib.sha256(labels_ZYX.data.cast("B")).hexdigest(),
    )
    write_json(_record_file(folder, case), record)


def _shape_problem(
    case: str, file: Path, shape: tuple[int, int, int], restoration: Restoration
) -> Problem:
    return Problem(
        case=case,
        file=str(file),
        found=f"shape {shape}",
        expected=f"the shape of the scan, {restoration.geometry.shape}",
        fix="preprocess again if the scan has changed, then predict again with the previous stage",
    )


def _read_record(folder: Path, case: str) -> _Record | None:
    """Return what is recorded, None if nothing is or another version wrote it."""
    path = _record_file(folder, case)
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return None
    return parse(_Record, content, source=str(path))


def _record_file(folder: Path, case: str) -> Path:
    return folder / f"{case}.json"


def _array_file(folder: Path, case: str) -> Path:
    return folder / f"{case}.b2nd"
