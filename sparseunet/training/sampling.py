"""Where training patches come from.

A batch is a pure function of the seed and the number of the step: nothing depends on which worker
made it or on what was drawn before. So a resumed training continues as if it had never stopped.

Rules (nnU-Net 2.8.1 for dense cases; Z25 §2.2 for annotated slices):
- Only cases with annotation are drawn; every one equally often. 2D batches are drawn from annotated
  slices, every one equally often.
- The last third of a batch holds a voxel of a class drawn among those present in the case.
- Other patches lie anywhere in a dense case; in a sparse one they hold an annotated voxel.
- The chosen voxel has no preferred place in the patch: it is as likely at the border as in the
  middle. (nnU-Net centres it, so its networks meet annotated slices in one position only.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaseSummary:
    """Where in a preprocessed case annotated voxels lie. Coordinates are (z, y, x)."""

    name: str
    shape: tuple[int, int, int]
    is_dense: bool
    """Whether every voxel is annotated."""
    class_voxels: Mapping[int, np.ndarray]
    """Foreground label value to voxels of it, shape (N, 3); only values with voxels."""
    annotated_voxels: np.ndarray
    """A sample of all annotated voxels, shape (N, 3); empty for an unannotated case."""
    annotated_slices: np.ndarray
    """Sorted indices along the first axis of slices with annotation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchPlace:
    """One patch to read: which case, and its first voxel (may be negative: padding)."""

    case: str
    start: tuple[int, int, int]
    """First voxel of the network's patch on (z, y, x)."""


def batch_places(
    cases: Sequence[CaseSummary],
    *,
    patch_size: tuple[int, int, int],
    batch_size: int,
    foreground_share: float,
    rng: np.random.Generator,
) -> list[PatchPlace]:
    """Choose the patches of one batch.

    Args:
        cases: Cases with at least one annotated voxel.
        patch_size: Size along (z, y, x); 1 along z for a 2D network.
        batch_size: Number of patches.
        foreground_share: Share of the batch, at its end, that must hold a class of the case.
        rng: Decides everything.

    Raises:
        ValueError: No case is given.
    """
    if not cases:
        raise ValueError("There is no case with annotation to draw a patch from.")
    first_forced = round(batch_size * (1 - foreground_share))
    return [
        _place(cases, patch_size, forced=position >= first_forced, rng=rng)
        for position in range(batch_size)
    ]


def _place(
    cases: Sequence[CaseSummary],
    patch_size: tuple[int, int, int],
    *,
    forced: bool,
    rng: np.random.Generator,
) -> PatchPlace:
    slicewise = patch_size[0] == 1
    if slicewise and not forced:
        case, voxel = _random_annotated_slice(cases, rng)
        if case.is_dense:
            start = tuple(
                int(rng.integers(low, high + 1))
                for low, high in zip(*_range(case.shape, patch_size), strict=True)
            )
            return PatchPlace(case=case.name, start=(int(voxel[0]), start[1], start[2]))
    else:
        case = cases[int(rng.integers(len(cases)))]
        voxel = _voxel(case, forced=forced, rng=rng)
    return PatchPlace(case=case.name, start=_start_holding(voxel, case.shape, patch_size, rng))


def _random_annotated_slice(
    cases: Sequence[CaseSummary], rng: np.random.Generator
) -> tuple[CaseSummary, np.ndarray]:
    counts = np.array([len(case.annotated_slices) for case in cases])
    number = int(rng.integers(counts.sum()))
    position = int(np.searchsorted(counts.cumsum(), number, side="right"))
    case = cases[position]
    z = case.annotated_slices[number - counts[:position].sum()]
    in_slice = case.annotated_voxels[case.annotated_voxels[:, 0] == z]
    if len(in_slice):
        return case, in_slice[int(rng.integers(len(in_slice)))]
    middle = np.array([z, case.shape[1] // 2, case.shape[2] // 2])
    return case, middle


def _voxel(case: CaseSummary, *, forced: bool, rng: np.random.Generator) -> np.ndarray | None:
    """Return a voxel that the patch must hold, or None for a patch anywhere."""
    if forced and case.class_voxels:
        values = sorted(case.class_voxels)
        voxels = case.class_voxels[values[int(rng.integers(len(values)))]]
    elif case.is_dense:
        return None
    else:
        voxels = case.annotated_voxels
    return voxels[int(rng.integers(len(voxels)))]


def _range(
    shape: tuple[int, int, int], patch_size: tuple[int, int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return lowest and highest start: patches stay inside, or around a smaller image."""
    slack = [size - patch for size, patch in zip(shape, patch_size, strict=True)]
    return tuple(min(0, rest) for rest in slack), tuple(max(0, rest) for rest in slack)


def _start_holding(
    voxel: np.ndarray | None,
    shape: tuple[int, int, int],
    patch_size: tuple[int, int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    lows, highs = _range(shape, patch_size)
    start = []
    for axis, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if voxel is not None:
            low = max(low, int(voxel[axis]) - patch_size[axis] + 1)  # noqa: PLW2901
            high = min(high, int(voxel[axis]))  # noqa: PLW2901
        start.append(int(rng.integers(low, high + 1)))
    return start[0], start[1], start[2]
