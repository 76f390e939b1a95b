"""Preprocessed cases on disk: chunked arrays, voxels to sample patches from, and a manifest.

    CASE.image.b2nd        float32 (channels, z, y, x)
    CASE.labels.b2nd       unsigned integers (z, y, x)
    CASE.source.b2nd       uint8 (z, y, x)
    CASE.confidence.b2nd   float32 (z, y, x), if there is any
    CASE.inside.b2nd       bool (z, y, x)
    CASE.npz               positions in the flattened grid: class_VALUE, annotated
    CASE.json              `Manifest`, written last: a case without one is not there

An array that has one value everywhere has no file; the manifest holds the value.
"""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import blosc2
import numpy as np

from sparseunet.artifacts import hash_content, parse, read_json, to_json
from sparseunet.data.annotation import Annotation, Source
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.preprocessing.manifest import (
    STORE_KIND,
    STORE_VERSION,
    Manifest,
    StoredArray,
    sample_voxels,
)

Box = tuple[int, int, int]
_BLOCK_BYTES = 2**17
_CHUNK_BYTES = 2**20
_ANNOTATED = "annotated"


class Patch(NamedTuple):
    """A box of one case."""

    image_CZYX: np.ndarray
    labels_ZYX: np.ndarray
    source_ZYX: np.ndarray
    """`Source.NONE` everywhere for a case without labels."""
    confidence_ZYX: np.ndarray | None
    """None for full confidence everywhere."""
    inside_ZYX: np.ndarray


def write_case(
    folder: Path,
    case: PreprocessedCase,
    *,
    patch_size: tuple[int, ...],
    input_hash: str = "",
    annotated_slices_before: Box = (0, 0, 0),
) -> Manifest:
    """Write one case so that patches can be read without reading the whole.

    An earlier state of the case stays until the new one is complete. The manifest goes first and
    comes last, so an interruption never leaves a case that is half old, half new.

    Args:
        folder: Made if missing.
        case: What to write.
        patch_size: Voxels along (z, y, x) or (y, x) that will be read at a time; sets the chunks.
        input_hash: Identifies what the case was made from, to know when it is out of date.
        annotated_slices_before: Number of annotated slices across each axis before resampling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        temporary = Path(name)
        stored, content_hash = _write_arrays(temporary, case, patch_size)
        counts, num_annotated, slices = _write_voxels(temporary, case)
        manifest = Manifest(
            kind=STORE_KIND,
            version=STORE_VERSION,
            case=case.name,
            shape=case.restoration.network_shape,
            num_channels=len(case.image_CZYX),
            restoration=case.restoration,
            has_annotation=case.annotation is not None,
            is_dense=case.annotation is not None and num_annotated == case.inside_ZYX.size,
            arrays=stored,
            class_voxels=counts,
            num_annotated_voxels=num_annotated,
            annotated_slices=slices,
            annotated_slices_before=annotated_slices_before,
            input_hash=input_hash,
            content_hash=content_hash,
        )
        written = sorted(temporary.iterdir())
        _manifest_file(temporary, case.name).write_text(to_json(manifest), encoding="utf-8")
        remove_case(folder, case.name)
        for path in (*written, _manifest_file(temporary, case.name)):
            path.replace(folder / path.name)
    return manifest


class CaseStore:
    """The preprocessed cases of one folder. Safe to share between threads and processes.

    Files are opened by each call; manifests are remembered, so make a new store after writing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifests: dict[str, Manifest] = {}

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of all complete cases, sorted; empty if there is no such folder."""
        return tuple(sorted(path.name.removesuffix(".json") for path in self.folder.glob("*.json")))

    def manifest(self, case: str) -> Manifest:
        """Return what is known about a case.

        Raises:
            RequestError: The case is not there, or was written by another version.
        """
        if case not in self._manifests:
            self._manifests[case] = read_manifest(self.folder, case)
        return self._manifests[case]

    def content_hash(self) -> str:
        """Return a SHA-256 over names and arrays of all cases."""
        return hash_content([[case, self.manifest(case).content_hash] for case in self.cases])

    def read(self, case: str) -> PreprocessedCase:
        """Return the whole case as it was written.

        Raises:
            UnreadableFileError: A file is damaged or missing.
        """
        manifest = self.manifest(case)
        patch = self.read_patch(case, (0, 0, 0), manifest.shape)
        annotation = Annotation(
            labels_ZYX=patch.labels_ZYX,
            source_ZYX=patch.source_ZYX,
            confidence_ZYX=patch.confidence_ZYX,
        )
        return PreprocessedCase(
            name=case,
            image_CZYX=patch.image_CZYX,
            inside_ZYX=patch.inside_ZYX,
            annotation=annotation if manifest.has_annotation else None,
            restoration=manifest.restoration,
        )

    def read_patch(self, case: str, start: Box, stop: Box) -> Patch:
        """Return the voxels from `start` to before `stop`, which must lie within the case.

        Raises:
            ValueError: The box reaches outside.
            UnreadableFileError: A file is damaged or missing.
        """
        manifest = self.manifest(case)
        bounds = zip(start, stop, manifest.shape, strict=True)
        if not all(0 <= first <= last <= size for first, last, size in bounds):
            raise ValueError(
                f"The box from {start} to {stop} reaches outside case {case} of shape "
                f"{manifest.shape}."
            )
        box = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
        image_CZYX = self._read_array(manifest, "image", (slice(0, manifest.num_channels), *box))
        inside_ZYX = self._read_array(manifest, "inside", box)
        if not manifest.has_annotation:
            nothing_ZYX = np.full(inside_ZYX.shape, Source.NONE, np.uint8)
            return Patch(image_CZYX, np.zeros_like(nothing_ZYX), nothing_ZYX, None, inside_ZYX)
        confidence_ZYX = None
        if "confidence" in manifest.arrays:
            confidence_ZYX = self._read_array(manifest, "confidence", box)
        labels_ZYX = self._read_array(manifest, "labels", box)
        source_ZYX = self._read_array(manifest, "source", box)
        return Patch(image_CZYX, labels_ZYX, source_ZYX, confidence_ZYX, inside_ZYX)

    def class_voxels(self, case: str) -> dict[int, np.ndarray]:
        """Return coordinates (N, 3), int32, of annotated voxels by label value, without background.

        At most `manifest.SAMPLED_VOXELS` per value or 1 % of its voxels, whichever is more.
        """
        positions = self._read_positions(case)
        return {
            int(key.removeprefix("class_")): coordinates
            for key, coordinates in positions.items()
            if key != _ANNOTATED
        }

    def annotated_voxels(self, case: str) -> np.ndarray:
        """Return coordinates (N, 3), int32, of annotated voxels of any class, likewise a sample.

        Every annotated slice across the first axis has some of its voxels among them.
        """
        return self._read_positions(case).get(_ANNOTATED, np.zeros((0, 3), np.int32))

    def annotated_slices(self, case: str, axis: int) -> np.ndarray:
        """Return the sorted indices of slices across `axis` that hold any annotated voxel."""
        return np.asarray(self.manifest(case).annotated_slices[axis], np.int64)

    def _read_array(self, manifest: Manifest, key: str, box: tuple[slice, ...]) -> np.ndarray:
        stored = manifest.arrays[key]
        shape = tuple(part.stop - part.start for part in box)
        if stored.constant is not None:
            return np.full(shape, stored.constant, stored.dtype)
        path = _array_file(self.folder, manifest.case, key)
        try:
            array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            return np.asarray(array[box]).reshape(shape)
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, manifest.case, error) from None

    def _read_positions(self, case: str) -> dict[str, np.ndarray]:
        shape = self.manifest(case).shape
        path = _voxels_file(self.folder, case)
        try:
            with np.load(path, allow_pickle=False) as content:
                return {
                    key: np.stack(np.unravel_index(content[key], shape), axis=1).astype(np.int32)
                    for key in content.files
                }
        except (OSError, ValueError) as error:
            raise _damaged(path, case, error) from None


def read_manifest(folder: Path, case: str) -> Manifest:
    """Return the manifest of one case.

    Raises:
        RequestError: The case is not there, or was written by another version.
    """
    path = _manifest_file(folder, case)
    if not path.is_file():
        raise RequestError(
            f"{folder} holds no complete case {case!r}. Run `sparseunet preprocess` (again)."
        )
    content = read_json(path)
    found = (content.get("kind"), content.get("version")) if isinstance(content, dict) else content
    if found != (STORE_KIND, STORE_VERSION):
        raise RequestError(
            f"{path} is of kind and version {found}, expected {(STORE_KIND, STORE_VERSION)}. Run "
            "`sparseunet preprocess` again."
        )
    return parse(Manifest, content, source=str(path))


def has_all_files(folder: Path, manifest: Manifest) -> bool:
    """Return whether every file that the manifest speaks of is there in full size."""
    sizes = {
        _array_file(folder, manifest.case, key): stored.num_bytes
        for key, stored in manifest.arrays.items()
        if stored.constant is None
    }
    return _voxels_file(folder, manifest.case).is_file() and all(
        path.is_file() and path.stat().st_size == size for path, size in sizes.items()
    )


def remove_case(folder: Path, case: str) -> None:
    """Remove every file of one case, the manifest first."""
    _manifest_file(folder, case).unlink(missing_ok=True)
    _voxels_file(folder, case).unlink(missing_ok=True)
    for key in ("image", "labels", "source", "confidence", "inside"):
        _array_file(folder, case, key).unlink(missing_ok=True)


def _manifest_file(folder: Path, case: str) -> Path:
    return folder / f"{case}.json"


def _voxels_file(folder: Path, case: str) -> Path:
    return folder / f"{case}.npz"


def _array_file(folder: Path, case: str, key: str) -> Path:
    return folder / f"{case}.{key}.b2nd"


def _smallest(labels_ZYX: np.ndarray) -> np.ndarray:
    kind = np.uint8 if int(labels_ZYX.max()) < 256 else np.uint16
    return labels_ZYX.astype(kind, copy=False)


def _write_arrays(
    folder: Path, case: PreprocessedCase, patch_size: tuple[int, ...]
) -> tuple[dict[str, StoredArray], str]:
    """Write the arrays that have more than one value; return their records and a hash of all."""
    annotation = case.annotation
    arrays = {"image": case.image_CZYX, "inside": case.inside_ZYX}
    if annotation is not None:
        arrays["labels"] = _smallest(annotation.labels_ZYX)
        arrays["source"] = annotation.source_ZYX
        if annotation.confidence_ZYX is not None:
            arrays["confidence"] = annotation.confidence_ZYX.astype(np.float32, copy=False)
    stored, digest = {}, hashlib.sha256()
    for key, array in arrays.items():
        contiguous = np.ascontiguousarray(array)
        digest.update(contiguous.data.cast("B"))
        path = _array_file(folder, case.name, key)
        stored[key] = _write_array(path, contiguous, patch_size)
    return stored, digest.hexdigest()


def _write_array(path: Path, array: np.ndarray, patch_size: tuple[int, ...]) -> StoredArray:
    dtype = str(array.dtype)
    if array.min() == array.max():
        return StoredArray(dtype=dtype, constant=array.flat[0].item(), num_bytes=0)
    chunks, blocks = _chunking(array, patch_size)
    blosc2.asarray(
        array,
        urlpath=str(path),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
    )
    return StoredArray(dtype=dtype, constant=None, num_bytes=path.stat().st_size)


def _chunking(
    array: np.ndarray, patch_size: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of a patch, or of several slices for small 2D patches; blocks fit a fast cache."""
    leading = array.ndim - len(patch_size)
    sizes = zip(array.shape[leading:], patch_size, strict=True)
    chunk = [1] * leading + [min(size, patch) for size, patch in sizes]
    block = list(chunk)
    while np.prod(block) * array.itemsize > _BLOCK_BYTES:
        largest = block.index(max(block))
        block[largest] = -(-block[largest] // 2)
    if leading and len(patch_size) == 2:
        room = _CHUNK_BYTES // int(np.prod(chunk) * array.itemsize)
        chunk[leading - 1] = max(1, min(array.shape[leading - 1], room))
    return tuple(chunk), tuple(block)


def _write_voxels(
    folder: Path, case: PreprocessedCase
) -> tuple[dict[int, int], int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Write the sampled positions; return counts per value, in all, and the annotated slices."""
    counts: dict[int, int] = {}
    sampled: dict[str, np.ndarray] = {}
    num_annotated, slices = 0, ((), (), ())
    if case.annotation is not None:
        labels_ZYX, annotated_ZYX = case.annotation.labels_ZYX, case.annotation.annotated_ZYX
        num_annotated = int(np.count_nonzero(annotated_ZYX))
        is_dense = num_annotated == annotated_ZYX.size
        for value in _foreground_values(labels_ZYX):
            positions = np.flatnonzero((labels_ZYX == value) & annotated_ZYX)
            if len(positions):
                counts[value] = len(positions)
                sampled[f"class_{value}"] = sample_voxels(positions, case=case.name)
        sampled[_ANNOTATED] = sample_voxels(
            range(num_annotated) if is_dense else np.flatnonzero(annotated_ZYX),
            case=case.name,
            slice_size=annotated_ZYX[0].size,
        )
        z, y, x = (tuple(case.annotation.annotated_slices(axis).tolist()) for axis in range(3))
        slices = (z, y, x)
    np.savez(_voxels_file(folder, case.name), **sampled)  # type: ignore[arg-type]
    return counts, num_annotated, slices


def _foreground_values(labels_ZYX: np.ndarray) -> list[int]:
    found: set[int] = set()
    for plane in labels_ZYX:  # slice by slice, as counting makes a larger copy
        found.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    return sorted(found - {0})


def _damaged(path: Path, case: str, error: Exception) -> UnreadableFileError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UnreadableFileError(
        case=case,
        file=str(path),
        found=f"a damaged or missing file ({reason})",
        expected="what preprocessing wrote",
        fix="remove the case's .json file beside it and run `sparseunet preprocess` again",
    )
