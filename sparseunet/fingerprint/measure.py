"""What one case contributes to the fingerprint, and how cases are combined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.image import Image
from sparseunet.fingerprint.fingerprint import Fingerprint, IntensityProperties

MIN_FOREGROUND_VOXELS = 100
"""With less annotated foreground in all cases together, the images' nonzero voxels stand in."""

_KEPT_PER_CASE = 2**16
"""Values per channel that stand for a case's distribution, at evenly spaced ranks."""
_POOLED_VALUES = 4_000_000
_MIN_POOLED_PER_CASE = 1000
_BODY_VALUES = 2**20
_PART = 2**20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """Intensities of one channel of one case in some region."""

    mean: float
    variance: float
    min: float
    max: float
    values: np.ndarray
    """Sorted float32: all values, or those at evenly spaced ranks."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measurement:
    """One case. Shape, spacing and relative size never depend on its label."""

    spacing_mm: tuple[float, float, float]
    shape_after_crop: tuple[int, int, int]
    relative_size: float
    """Voxels in the box of nonzero voxels, of all voxels."""
    num_foreground_voxels: int
    """Voxels that a person labelled as something other than background."""
    foreground: tuple[Sample, ...]
    """One sample per channel; empty without such voxels."""
    body: tuple[Sample, ...]
    """Nonzero voxels, one per channel; empty where there is enough foreground."""


def measure_case(image: Image, annotation: Annotation | None) -> Measurement:
    """Measure the box of nonzero voxels and the intensities of a case.

    Of the foreground, mean, variance, minimum and maximum are exact; its distribution is kept at up
    to 65 536 ranks. Of the body, voxels at even steps are looked at, about a million.

    Args:
        image: The case.
        annotation: On the grid of the image; None without a label. Foreground is what a person
            labelled as something other than background.
    """
    foreground_ZYX = None
    if annotation is not None:
        foreground_ZYX = (annotation.source_ZYX == Source.MANUAL) & (annotation.labels_ZYX > 0)
    nonzero_ZYX = (image.voxels_CZYX != 0).any(axis=0)
    box = _bounding_box(nonzero_ZYX)
    # As in nnU-Net 2.8.1, what is annotated where every channel is 0 beyond the box is left out.
    num_voxels = 0 if foreground_ZYX is None else int(np.count_nonzero(foreground_ZYX[box]))
    foreground: tuple[Sample, ...] = ()
    body: tuple[Sample, ...] = ()
    if foreground_ZYX is not None and num_voxels:
        foreground = _describe_channels(image, box, foreground_ZYX[box])
    if num_voxels < MIN_FOREGROUND_VOXELS:
        inside_ZYX = nonzero_ZYX[box]
        region_ZYX = inside_ZYX if inside_ZYX.any() else ~inside_ZYX
        step = 1 + int(np.count_nonzero(region_ZYX)) // _BODY_VALUES
        body = _describe_channels(image, box, region_ZYX, step=step)
    z, y, x = nonzero_ZYX[box].shape
    return Measurement(
        spacing_mm=image.geometry.spacing_mm,
        shape_after_crop=(z, y, x),
        relative_size=z * y * x / nonzero_ZYX.size,
        num_foreground_voxels=num_voxels,
        foreground=foreground,
        body=body,
    )


def combine(measurements: Sequence[Measurement]) -> Fingerprint:
    """Combine the measurements of all cases, each with the same weight.

    (nnU-Net 2.8.1 draws equally many voxels from each case; here nothing is drawn, so the result
    depends on no seed.) Percentiles are exact up to 65 536 foreground voxels per case, and up to
    four million in all cases; beyond, they come from evenly spaced ranks of each case.

    Args:
        measurements: At least one, in the order of the cases.

    Returns:
        The fingerprint. With fewer than 100 voxels of foreground in all cases together, intensities
        are those of the images' nonzero voxels and `intensity_source` says `body`. No number is
        ever NaN.
    """
    num_voxels = sum(case.num_foreground_voxels for case in measurements)
    source: Literal["foreground", "body"] = "foreground"
    samples = [case.foreground for case in measurements if case.foreground]
    if num_voxels < MIN_FOREGROUND_VOXELS:
        source = "body"
        samples = [case.body for case in measurements]
    return Fingerprint(
        spacings_mm=tuple(case.spacing_mm for case in measurements),
        shapes_after_crop=tuple(case.shape_after_crop for case in measurements),
        median_relative_size_after_cropping=float(
            np.median([case.relative_size for case in measurements])
        ),
        intensities=tuple(_pool(channel) for channel in zip(*samples, strict=True)),
        intensity_source=source,
        num_foreground_voxels=num_voxels,
        num_foreground_cases=sum(case.num_foreground_voxels > 0 for case in measurements),
    )


def _bounding_box(inside_ZYX: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box around the true voxels; everything if there are none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside_ZYX.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(None))
    return box[0], box[1], box[2]


def _describe_channels(
    image: Image, box: tuple[slice, slice, slice], chosen_ZYX: np.ndarray, *, step: int = 1
) -> tuple[Sample, ...]:
    return tuple(_describe(voxels_ZYX[box][chosen_ZYX][::step]) for voxels_ZYX in image.voxels_CZYX)


def _describe(values: np.ndarray) -> Sample:
    values = np.sort(values)
    mean = float(values.mean(dtype=np.float64))
    return Sample(
        mean=mean,
        variance=_squared_deviation(values, mean) / values.size,
        min=float(values[0]),
        max=float(values[-1]),
        values=_thinned(values, _KEPT_PER_CASE),
    )


def _thinned(values: np.ndarray, keep: int) -> np.ndarray:
    """Return the values at `keep` evenly spaced ranks, or all if there are no more."""
    if values.size <= keep:
        return values
    return values[((np.arange(keep) + 0.5) * values.size / keep).astype(np.int64)]


def _squared_deviation(values: np.ndarray, mean: float) -> float:
    """Return the sum of squares in float64, without a float64 copy of everything."""
    parts = range(0, values.size, _PART)
    return sum(float(np.square(values[at : at + _PART] - np.float64(mean)).sum()) for at in parts)


def _pool(samples: Sequence[Sample]) -> IntensityProperties:
    """Combine cases with equal weight."""
    mean = float(np.mean([sample.mean for sample in samples]))
    variance = np.mean([sample.variance + (sample.mean - mean) ** 2 for sample in samples])
    keep = max(_MIN_POOLED_PER_CASE, _POOLED_VALUES // len(samples))
    groups = [_thinned(sample.values, keep) for sample in samples]
    low, median, high = _quantiles(groups, (0.005, 0.5, 0.995))
    return IntensityProperties(
        mean=mean,
        median=median,
        std=float(np.sqrt(variance)),
        min=min(sample.min for sample in samples),
        max=max(sample.max for sample in samples),
        percentile_00_5=low,
        percentile_99_5=high,
    )


def _quantiles(groups: Sequence[np.ndarray], at: Sequence[float]) -> list[float]:
    """Return the smallest values that at least the shares `at` do not exceed, groups equal."""
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(group.size, 1.0 / group.size) for group in groups])
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    where = np.searchsorted(cumulative, np.asarray(at) * cumulative[-1] * (1 - 1e-12))
    return [float(values[order[index]]) for index in where]
