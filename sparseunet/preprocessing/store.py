"""Preprocessed cases on disk, read patch by patch (`write` puts them there).

    CASE.image.b2nd        float32 (channels, z, y, x)
    CASE.labels.b2nd       unsigned integers (z, y, x)
    CASE.source.b2nd       uint8 (z, y, x)
    CASE.confidence.b2nd   float32 (z, y, x), if there is any
    CASE.inside.b2nd       bool (z, y, x)
    CASE.npz               positions in the flattened grid: class_VALUE, annotated
    CASE.json              `Manifest`, written last: a case without one is not there

An array that has one value everywhere has no file; the manifest holds the value.
"""

from pathlib import Path
from typing import NamedTuple

import blosc2
import numpy as np

from sparseunet.artifacts import hash_content
from sparseunet.data.annotation import Annotation, Source
from sparseunet.errors import UnreadableFileError
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.preprocessing.manifest import (
    ANNOTATED,
    Manifest,
    array_file,
    read_manifest,
    voxels_file,
)

Box = tuple[int, int, int]


class Patch(NamedTuple):
    """A box of one case."""

    image_CZYX: np.ndarray
    labels_ZYX: np.ndarray
    source_ZYX: np.ndarray
    """`Source.NONE` everywhere for a case without labels."""
    confidence_ZYX: np.ndarray | None
    """float32 in [0, 1]; None for full confidence everywhere."""
    inside_ZYX: np.ndarray


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
        """Return a SHA-256 over names, arrays and annotated classes of all cases."""
        return hash_content([_content(self.manifest(case)) for case in self.cases])

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
        manifest, box = self._box(case, start, stop)
        image_CZYX = self._read_array(manifest, "image", (slice(0, manifest.num_channels), *box))
        inside_ZYX = self._read_array(manifest, "inside", box)
        confidence_ZYX = None
        if "confidence" in manifest.arrays:
            confidence_ZYX = self._read_array(manifest, "confidence", box)
        labels_ZYX, source_ZYX = self.read_labels(case, start, stop)
        return Patch(image_CZYX, labels_ZYX, source_ZYX, confidence_ZYX, inside_ZYX)

    def read_labels(self, case: str, start: Box, stop: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return labels_ZYX and source_ZYX of a box as `read_patch` does, without the image.

        Raises:
            ValueError: The box reaches outside.
            UnreadableFileError: A file is damaged or missing.
        """
        manifest, box = self._box(case, start, stop)
        if not manifest.has_annotation:
            shape = tuple(part.stop - part.start for part in box)
            nothing_ZYX = np.full(shape, Source.NONE, np.uint8)
            return np.zeros_like(nothing_ZYX), nothing_ZYX
        labels_ZYX = self._read_array(manifest, "labels", box)
        return labels_ZYX, self._read_array(manifest, "source", box)

    def class_voxels(self, case: str) -> dict[int, np.ndarray]:
        """Return coordinates (N, 3), int32, of annotated voxels by label value, without background.

        At most `manifest.SAMPLED_VOXELS` per value or 1 % of its voxels, whichever is more.
        """
        positions = self._read_positions(case)
        return {
            int(key.removeprefix("class_")): coordinates
            for key, coordinates in positions.items()
            if key != ANNOTATED
        }

    def annotated_voxels(self, case: str) -> np.ndarray:
        """Return coordinates (N, 3), int32, of annotated voxels of any class, likewise a sample.

        Every annotated slice across the first axis has some of its voxels among them.
        """
        return self._read_positions(case).get(ANNOTATED, np.zeros((0, 3), np.int32))

    def annotated_slices(self, case: str, axis: int) -> np.ndarray:
        """Return the sorted indices of slices across `axis` that hold any annotated voxel."""
        return np.asarray(self.manifest(case).annotated_slices[axis], np.int64)

    def _box(self, case: str, start: Box, stop: Box) -> tuple[Manifest, tuple[slice, ...]]:
        manifest = self.manifest(case)
        bounds = zip(start, stop, manifest.shape, strict=True)
        if not all(0 <= first <= last <= size for first, last, size in bounds):
            raise ValueError(
                f"The box from {start} to {stop} reaches outside case {case} of shape "
                f"{manifest.shape}."
            )
        return manifest, tuple(slice(first, last) for first, last in zip(start, stop, strict=True))

    def _read_array(self, manifest: Manifest, key: str, box: tuple[slice, ...]) -> np.ndarray:
        stored = manifest.arrays[key]
        shape = tuple(part.stop - part.start for part in box)
        if stored.constant is not None:
            return np.full(shape, stored.constant, stored.dtype)
        path = array_file(self.folder, manifest.case, key)
        try:
            array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            return np.asarray(array[box]).reshape(shape)
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, manifest.case, error) from None

    def _read_positions(self, case: str) -> dict[str, np.ndarray]:
        shape = self.manifest(case).shape
        path = voxels_file(self.folder, case)
        try:
            with np.load(path, allow_pickle=False) as content:
                return {
                    key: np.stack(np.unravel_index(content[key], shape), axis=1).astype(np.int32)
                    for key in content.files
                }
        except (OSError, ValueError) as error:
            raise _damaged(path, case, error) from None


def _content(manifest: Manifest) -> list[object]:
    content: list[object] = [manifest.case, manifest.image_hash, manifest.annotation_hash]
    if manifest.annotated_outputs is not None:  # else the hash is what it was before there was this
        content.append(manifest.annotated_outputs)
    return content


def _damaged(path: Path, case: str, error: Exception) -> UnreadableFileError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UnreadableFileError(
        case=case,
        file=str(path),
        found=f"a damaged or missing file ({reason})",
        expected="what preprocessing wrote",
        fix="remove the case's .json file beside it and run `sparseunet preprocess` again",
    )
