"""Put preprocessed cases on disk, whole or not at all."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import blosc2
import numpy as np

from sparseunet.artifacts import to_json, unfinished_prefix
from sparseunet.data.annotation import Annotation
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.preprocessing.manifest import (
    ANNOTATED,
    ANNOTATION_ARRAYS,
    IMAGE_ARRAYS,
    STORE_KIND,
    STORE_VERSION,
    Manifest,
    StoredArray,
    array_file,
    manifest_file,
    sample_voxels,
    voxels_file,
)

_BLOCK_BYTES = 2**17
_CHUNK_BYTES = 2**20


def write_case(
    folder: Path,
    case: PreprocessedCase,
    *,
    patch_size: tuple[int, ...],
    image_input_hash: str = "",
    annotation_input_hash: str = "",
    annotated_slices_before: tuple[int, int, int] = (0, 0, 0),
    annotated_outputs: tuple[bool, ...] | None = None,
) -> Manifest:
    """Write one case so that patches can be read without reading the whole.

    An earlier state of the case stays until the new one is complete. The manifest goes first and
    comes last, so an interruption never leaves a case that is half old, half new.

    Args:
        folder: Made if missing.
        case: What to write.
        patch_size: Voxels along (z, y, x) or (y, x) that will be read at a time; sets the chunks.
        image_input_hash: Identifies what the image was made from, to know when it is out of date.
        annotation_input_hash: The same of the annotation.
        annotated_slices_before: Number of annotated slices across each axis before resampling.
        annotated_outputs: As in `Manifest`.
    """
    assert case.inside_ZYX is not None, "cases that are kept have their mask"
    with _writing(folder) as temporary:
        images = {"image": case.image_CZYX, "inside": case.inside_ZYX}
        stored, image_hash = _write_arrays(temporary, case.name, images, patch_size)
        manifest = Manifest(
            kind=STORE_KIND,
            version=STORE_VERSION,
            case=case.name,
            shape=case.restoration.network_shape,
            num_channels=len(case.image_CZYX),
            restoration=case.restoration,
            arrays=stored,
            image_input_hash=image_input_hash,
            annotation_input_hash=annotation_input_hash,
            image_hash=image_hash,
            annotated_slices_before=annotated_slices_before,
            annotated_outputs=annotated_outputs,
            **_NO_ANNOTATION,
        )
        manifest = _add_annotation(temporary, manifest, case.annotation, patch_size)
        _put_in_place(temporary, folder, manifest, replaced=(*IMAGE_ARRAYS, *ANNOTATION_ARRAYS))
    return manifest


def write_annotation(
    folder: Path,
    manifest: Manifest,
    annotation: Annotation | None,
    *,
    patch_size: tuple[int, ...],
    annotation_input_hash: str = "",
    annotated_slices_before: tuple[int, int, int] = (0, 0, 0),
    annotated_outputs: tuple[bool, ...] | None = None,
) -> Manifest:
    """Replace the annotation of a case that `write_case` wrote; the image stays as it is.

    Args:
        folder: Where the case lies.
        manifest: The case's.
        annotation: On the network's grid; None for a case without labels.
        patch_size: As in `write_case`.
        annotation_input_hash: As in `write_case`.
        annotated_slices_before: As in `write_case`.
        annotated_outputs: As in `Manifest`.
    """
    with _writing(folder) as temporary:
        kept = {key: manifest.arrays[key] for key in IMAGE_ARRAYS}
        manifest = replace(
            manifest,
            arrays=kept,
            annotation_input_hash=annotation_input_hash,
            annotated_slices_before=annotated_slices_before,
            annotated_outputs=annotated_outputs,
            **_NO_ANNOTATION,
        )
        manifest = _add_annotation(temporary, manifest, annotation, patch_size)
        _put_in_place(temporary, folder, manifest, replaced=ANNOTATION_ARRAYS)
    return manifest


def write_chunked(path: Path, array: np.ndarray, patch_size: tuple[int, ...]) -> None:
    """Write one contiguous array so that patches along its last axes can be read by themselves."""
    chunks, blocks = _chunking(array, patch_size)
    blosc2.asarray(
        array,
        urlpath=str(path),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 1,
            # Shuffling bytes makes scans larger that were not resampled, and others no smaller.
            "filters": [blosc2.Filter.NOFILTER],
            "nthreads": 1,
        },
    )


_NO_ANNOTATION: dict[str, Any] = {
    "has_annotation": False,
    "is_dense": False,
    "class_voxels": {},
    "num_annotated_voxels": 0,
    "annotated_slices": ((), (), ()),
    "annotation_hash": "",
}


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=unfinished_prefix(), dir=folder) as name:
        yield Path(name)


def _put_in_place(
    temporary: Path, folder: Path, manifest: Manifest, *, replaced: tuple[str, ...]
) -> None:
    written = sorted(temporary.iterdir())
    last = manifest_file(temporary, manifest.case)
    last.write_text(to_json(manifest, indent=None), encoding="utf-8")
    manifest_file(folder, manifest.case).unlink(missing_ok=True)
    for key in replaced:
        array_file(folder, manifest.case, key).unlink(missing_ok=True)
    for path in (*written, last):
        path.replace(folder / path.name)


def _add_annotation(
    folder: Path, manifest: Manifest, annotation: Annotation | None, patch_size: tuple[int, ...]
) -> Manifest:
    """Write an annotation's arrays and sampled positions; return the manifest with them."""
    if annotation is None:
        np.savez(voxels_file(folder, manifest.case))
        return manifest
    arrays = {"labels": _smallest(annotation.labels_ZYX), "source": annotation.source_ZYX}
    if annotation.confidence_ZYX is not None:
        arrays["confidence"] = annotation.confidence_ZYX.astype(np.float32, copy=False)
    stored, annotation_hash = _write_arrays(folder, manifest.case, arrays, patch_size)
    annotated_ZYX = annotation.annotated_ZYX
    num_annotated = int(np.count_nonzero(annotated_ZYX))
    is_dense = num_annotated == prod(manifest.shape)
    counts: dict[int, int] = {}
    sampled: dict[str, np.ndarray] = {}
    for value in _foreground_values(annotation.labels_ZYX):
        positions = np.flatnonzero((annotation.labels_ZYX == value) & annotated_ZYX)
        if len(positions):
            counts[value] = len(positions)
            sampled[f"class_{value}"] = sample_voxels(positions, case=manifest.case)
    sampled[ANNOTATED] = sample_voxels(
        range(num_annotated) if is_dense else np.flatnonzero(annotated_ZYX),
        case=manifest.case,
        slice_size=annotated_ZYX[0].size,
    )
    np.savez(voxels_file(folder, manifest.case), **sampled)  # type: ignore[arg-type]
    z, y, x = (tuple(annotation.annotated_slices(axis).tolist()) for axis in range(3))
    return replace(
        manifest,
        has_annotation=True,
        is_dense=is_dense,
        arrays={**manifest.arrays, **stored},
        class_voxels=counts,
        num_annotated_voxels=num_annotated,
        annotated_slices=(z, y, x),
        annotation_hash=annotation_hash,
    )


def _write_arrays(
    folder: Path, name: str, arrays: Mapping[str, np.ndarray], patch_size: tuple[int, ...]
) -> tuple[dict[str, StoredArray], str]:
    """Write the arrays that have more than one value; return their records and a hash of all."""
    stored, digest = {}, hashlib.sha256()
    for key, array in arrays.items():
        contiguous = np.ascontiguousarray(array)
        digest.update(contiguous.data.cast("B"))
        stored[key] = _write_array(array_file(folder, name, key), contiguous, patch_size)
    return stored, digest.hexdigest()


def _write_array(path: Path, array: np.ndarray, patch_size: tuple[int, ...]) -> StoredArray:
    dtype = str(array.dtype)
    if array.min() == array.max():
        return StoredArray(dtype=dtype, constant=array.flat[0].item(), num_bytes=0)
    write_chunked(path, array, patch_size)
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


def _smallest(labels_ZYX: np.ndarray) -> np.ndarray:
    kind = np.uint8 if int(labels_ZYX.max()) < 256 else np.uint16
    return labels_ZYX.astype(kind, copy=False)


def _foreground_values(labels_ZYX: np.ndarray) -> list[int]:
    found: set[int] = set()
    for plane in labels_ZYX:  # slice by slice, as counting makes a larger copy
        found.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    return sorted(found - {0})
