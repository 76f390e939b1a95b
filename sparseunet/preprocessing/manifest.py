"""What is recorded about a preprocessed case, and which of its voxels patches are drawn around."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparseunet.preprocessing.case import Restoration

STORE_KIND = "sparseunet.preprocessed_case"
STORE_VERSION = 1
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
    """Size of the file."""


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
    """Background included."""
    annotated_slices: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Per axis the slices with any annotated voxel."""
    annotated_slices_before: tuple[int, int, int]
    """Number of annotated slices per axis of the network's grid before crop and resampling."""
    input_hash: str
    """SHA-256 of the files and settings the case was made from."""
    content_hash: str
    """SHA-256 of the arrays."""


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
    chosen = [generator.choice(count, wanted, replace=False)]
    if slice_size is not None:
        edges = _slice_edges(positions, slice_size)
        for first, last in pairwise(edges):
            size = min(_SAMPLED_PER_SLICE, last - first)
            chosen.append(first + generator.choice(last - first, size, replace=False))
    ranks = np.unique(np.concatenate(chosen))
    return (ranks if isinstance(positions, range) else positions[ranks]).astype(small)


def _slice_edges(positions: np.ndarray | range, slice_size: int) -> list[int]:
    """Return the ranks at which each slice starts, and the number of positions."""
    count = len(positions)
    if isinstance(positions, range):
        return [*range(0, count, slice_size), count]
    return [0, *(np.flatnonzero(np.diff(positions // slice_size)) + 1).tolist(), count]
