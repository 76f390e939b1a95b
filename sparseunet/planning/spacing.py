"""The grid a dataset is planned on: target spacing, order of axes, sizes after resampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_ANISOTROPY = 3.0
_SHARP_PERCENTILE = 10
_COARSENING = 1.03


@dataclass(frozen=True, kw_only=True, slots=True)
class SpacingChoice:
    """A target spacing along the file's (z, y, x) in millimetres, and the rule that gave it."""

    target_mm: tuple[float, float, float]
    rule: Literal["median", "sharp", "sharp_raised", "given"]
    """`sharp`: the coarsest axis takes its 10th percentile; `sharp_raised`: which was finer than
    the other axes, so it takes their spacing; `given`: a person chose."""
    median_mm: tuple[float, float, float]
    """Over all cases."""


def choose_spacing(
    spacings_mm: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
    *,
    given_mm: Sequence[float] | None = None,
) -> SpacingChoice:
    """Return the target spacing.

    The median of all cases; an axis that is both much coarser and much shorter than the others
    takes the 10th percentile instead, but never becomes finer than the others. `given_mm` replaces
    all of it.

    Source: nnU-Net 2.8.1, target spacing of the full resolution.
    """
    rule: Literal["median", "sharp", "sharp_raised", "given"] = "median"
    median_mm = np.percentile(np.asarray(spacings_mm, np.float64), 50, axis=0)
    target_mm = median_mm.copy()
    size = np.percentile(np.asarray(shapes, np.float64), 50, axis=0)
    coarsest = int(np.argmax(target_mm))
    others = [axis for axis in range(3) if axis != coarsest]
    coarsest_other_mm = max(target_mm[others])
    coarse = target_mm[coarsest] > _ANISOTROPY * coarsest_other_mm
    short = size[coarsest] * _ANISOTROPY < min(size[others])
    if given_mm is not None:
        rule, target_mm = "given", np.asarray(given_mm, np.float64)
    elif coarse and short:
        along_axis_mm = [spacing[coarsest] for spacing in spacings_mm]
        sharp_mm = np.percentile(along_axis_mm, _SHARP_PERCENTILE)
        rule = "sharp"
        if sharp_mm < coarsest_other_mm:
            rule, sharp_mm = "sharp_raised", coarsest_other_mm + 1e-5
        target_mm[coarsest] = sharp_mm
    return SpacingChoice(target_mm=_triple(target_mm), rule=rule, median_mm=_triple(median_mm))


def choose_transpose(
    target_spacing_mm: Sequence[float] | np.ndarray,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return (forward, backward): the coarsest axis first, the others in their order.

    Axis i of the plan is axis `forward[i]` of the file, and axis `backward[i]` of the plan is
    axis i of the file. Source: nnU-Net 2.8.1.
    """
    first = int(np.argmax(np.asarray(target_spacing_mm)))
    second, third = (axis for axis in range(3) if axis != first)
    forward = (first, second, third)
    return forward, (forward.index(0), forward.index(1), forward.index(2))


def median_resampled_shape(
    shapes: Sequence[Sequence[int]],
    spacings_mm: Sequence[Sequence[float]],
    target_spacing_mm: np.ndarray,
) -> np.ndarray:
    """Return the median over cases of the shape at the target spacing; halves are kept.

    Every case is rounded to whole voxels (half to even) before the median is taken.
    """
    resampled = np.round(np.asarray(spacings_mm) / target_spacing_mm * np.asarray(shapes))
    return np.median(resampled, axis=0)


def coarser_grids(
    spacing_mm: Sequence[float], median_shape: Sequence[float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (spacing, median shape as floats) of ever coarser grids, 3 % per step, without end.

    While an axis is more than twice as fine as the coarsest one, only such axes are coarsened.
    Source: nnU-Net 2.8.1, low resolution of the cascade.
    """
    fine_mm = np.asarray(spacing_mm, np.float64)
    shape = np.asarray(median_shape, np.float64)
    coarse_mm = fine_mm.copy()
    while True:
        lagging = coarse_mm.max() / coarse_mm > 2
        coarse_mm[lagging if lagging.any() else slice(None)] *= _COARSENING
        yield coarse_mm.copy(), fine_mm / coarse_mm * shape


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
