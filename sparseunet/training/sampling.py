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

_Voxel = tuple[int | None, int | None, int | None]
"""What a patch must hold on (z, y, x); None where any place will do."""


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
    """A sample of all annotated voxels, shape (N, 3), with some from every annotated slice."""
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
    if patch_size[0] == 1 and not forced:
        case, voxel = _in_random_annotated_slice(cases, rng)
    else:
        case = cases[int(rng.integers(len(cases)))]
        voxel = _in_case(case, forced=forced, rng=rng)
    return PatchPlace(case=case.name, start=_start_holding(voxel, case.shape, patch_size, rng))


def _in_random_annotated_slice(
    cases: Sequence[CaseSummary], rng: np.random.Generator
) -> tuple[CaseSummary, _Voxel]:
    counts = np.array([len(case.annotated_slices) for case in cases])
    number = int(rng.integers(counts.sum()))
    position = int(np.searchsorted(counts.cumsum(), number, side="right"))
    case = cases[position]
    z = int(case.annotated_slices[number - counts[:position].sum()])
    if case.is_dense:
        return case, (z, None, None)
    return case, _draw(case.annotated_voxels[case.annotated_voxels[:, 0] == z], rng)


def _in_case(case: CaseSummary, *, forced: bool, rng: np.random.Generator) -> _Voxel:
    if forced and case.class_voxels:
        values = sorted(case.class_voxels)
        return _draw(case.class_voxels[values[int(rng.integers(len(values)))]], rng)
    if case.is_dense:
        return None, None, None
    return _draw(case.annotated_voxels, rng)


def _draw(voxels: np.ndarray, rng: np.random.Generator) -> _Voxel:
    z, y, x = voxels[int(rng.integers(len(voxels)))].tolist()
    return z, y, x


def _start_holding(
    voxel: _Voxel,
    shape: tuple[int, int, int],
    patch_size: tuple[int, int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    """Draw a start so that the patch holds the voxel and stays inside (or around a small image)."""
    start = []
    for position, size, patch in zip(voxel, shape, patch_size, strict=True):
        low, high = min(0, size - patch), max(0, size - patch)
        if position is not None:
            low, high = max(low, position - patch + 1), min(high, position)
        start.append(int(rng.integers(low, high + 1)))
    return start[0], start[1], start[2]
