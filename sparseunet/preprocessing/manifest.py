"""What is recorded about a preprocessed case, and which of its voxels patches are drawn around."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from sparseunet.artifacts import parse, read_json
from sparseunet.data.density import sparsest_axis
from sparseunet.errors import RequestError
from sparseunet.preprocessing.case import Restoration

STORE_KIND = "sparseunet.preprocessed_case"
STORE_VERSION = 2
IMAGE_ARRAYS = ("image", "inside")
ANNOTATION_ARRAYS = ("labels", "source", "confidence")
ANNOTATED = "annotated"
"""Key of the positions of annotated voxels of any class."""
SAMPLED_VOXELS = 10_000
_SAMPLED_SHARE = 0.01
_SAMPLED_PER_SLICE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArray:
    """One array of a case on disk."""

    dtype: str
    constant: float | bool | int | None
    """The value of every voxel, if there is only one; then there is no file."""
    num_bytes: int
    """Size of the file in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is known about one preprocessed case without opening its arrays."""

    kind: str
    version: int
    case: str
    shape: tuple[int, int, int]
    """Voxels along the axes (z, y, x) of the network's grid."""
    num_channels: int
    restoration: Restoration
    has_annotation: bool
    is_dense: bool
    """Whether every voxel is annotated."""
    arrays: dict[str, StoredArray]
    """By name: image, inside, labels, source, confidence."""
    class_voxels: dict[int, int]
    """Number of annotated voxels per label value that occurs, without background."""
    num_annotated_voxels: int
    """Number of annotated voxels, background included."""
    annotated_slices: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Per axis the slices with any annotated voxel."""
    annotated_slices_before: tuple[int, int, int]
    """Number of annotated slices per axis of the network's grid before crop and resampling."""
    image_input_hash: str
    """SHA-256 of the files and settings that image and inside were made from."""
    annotation_input_hash: str
    """SHA-256 of what labels, source, confidence and the sampled voxels were made from."""
    image_hash: str
    """SHA-256 of the arrays image and inside."""
    annotation_hash: str
    """SHA-256 of the arrays labels, source and confidence."""
    annotated_outputs: tuple[bool, ...] | None = None
    """For each output channel of a network (`LabelSchema.output_names`) whether its class or region
    was looked for in the case. None: all."""

    @property
    def slice_axis(self) -> int:
        """Axis across which slices were annotated, see `sparsest_axis`."""
        return sparsest_axis([len(slices) for slices in self.annotated_slices], self.shape)


def read_manifest(folder: Path, case: str) -> Manifest:
    """Return the manifest of one case.

    Raises:
        RequestError: The case is not there, or was written by another version.
    """
    path = manifest_file(folder, case)
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
        array_file(folder, manifest.case, key): stored.num_bytes
        for key, stored in manifest.arrays.items()
        if stored.constant is None
    }
    return voxels_file(folder, manifest.case).is_file() and all(
        path.is_file() and path.stat().st_size == size for path, size in sizes.items()
    )


def remove_case(folder: Path, case: str) -> None:
    """Remove every file of one case, the manifest first."""
    manifest_file(folder, case).unlink(missing_ok=True)
    voxels_file(folder, case).unlink(missing_ok=True)
    for key in (*IMAGE_ARRAYS, *ANNOTATION_ARRAYS):
        array_file(folder, case, key).unlink(missing_ok=True)


def manifest_file(folder: Path, case: str) -> Path:
    """Return the path of a case's `Manifest`."""
    return folder / f"{case}.json"


def voxels_file(folder: Path, case: str) -> Path:
    """Return the path of the positions of voxels that patches are drawn around."""
    return folder / f"{case}.npz"


def array_file(folder: Path, case: str, key: str) -> Path:
    """Return the path of one array of a case."""
    return folder / f"{case}.{key}.b2nd"


def sample_voxels(
    positions: np.ndarray | range, *, case: str, slice_size: int | None = None
) -> np.ndarray:
    """Return a sorted sample of positions, the same for the same case.

    nnU-Net 2.8.1: all up to 10 000, at least 1 %.

    Args:
        positions: Sorted positions in a flattened grid; a range stands for all of them.
        case: Its name seeds the draw.
        slice_size: Voxels per slice of the first axis; if given, every slice that has positions
            keeps up to 16 of them, however few they are among all.
    """
    count = len(positions)
    wanted = max(SAMPLED_VOXELS, int(np.ceil(_SAMPLED_SHARE * count)))
    small = np.uint32 if not count or positions[-1] < 2**32 else np.uint64
    if count <= wanted:
        return np.asarray(positions, small)
    seed = int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(count, wanted, replace=False, shuffle=False)]
    if slice_size is not None:
        edges = _slice_edges(positions, slice_size)
        for first, last in pairwise(edges):
            size = min(_SAMPLED_PER_SLICE, last - first)
            chosen.append(
                first + generator.choice(last - first, size, replace=False, shuffle=False)
            )
    ranks = np.unique(np.concatenate(chosen))
    return (ranks if isinstance(positions, range) else positions[ranks]).astype(small)


def _slice_edges(positions: np.ndarray | range, slice_size: int) -> list[int]:
    """Return the ranks at which each slice starts, and the number of positions."""
    count = len(positions)
    if isinstance(positions, range):
        return [*range(0, count, slice_size), count]
    return [0, *(np.flatnonzero(np.diff(positions // slice_size)) + 1).tolist(), count]
