"""Measure a dataset: sizes, spacings and the intensities of annotated foreground."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparseunet.artifacts import hash_content, hash_file, parse
from sparseunet.data.annotation import Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_annotation, read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, RequestError, UnreadableFileError
from sparseunet.progress import track

logger = logging.getLogger(__name__)

_MIN_FOREGROUND_VOXELS = 100
_MAX_KEPT_VALUES = 4_000_000
"""Values per channel kept for percentiles, over all cases."""
_MIN_KEPT_PER_CASE = 1000
_PART = 2**20
_RULES_VERSION = 1
"""Raised when the same data would give other numbers than before."""
_OWN_KEYS = ("intensity_source", "num_foreground_voxels", "num_foreground_cases")


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityProperties:
    """Statistics of one channel over manually annotated foreground (or the stated fallback)."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What planning needs to know about a dataset. Axes are the file's (z, y, x).

    Shapes, spacings and relative size never depend on labels.
    """

    spacings_mm: tuple[tuple[float, float, float], ...]
    """One per case."""
    shapes_after_crop: tuple[tuple[int, int, int], ...]
    """One per case, after cropping to the image's nonzero box."""
    median_relative_size_after_cropping: float
    intensities: tuple[IntensityProperties, ...]
    """One per channel."""
    intensity_source: Literal["foreground", "body"] = "foreground"
    """`body`: too little annotated foreground, so statistics come from the nonzero voxels."""
    num_foreground_voxels: int = 0
    """Manually annotated foreground voxels behind the statistics."""
    num_foreground_cases: int = 0
    """Cases those voxels come from."""


def extract_fingerprint(dataset: Dataset, *, num_workers: int) -> Fingerprint:
    """Measure every case: its box of nonzero voxels, spacing, and intensities of the foreground.

    Foreground are voxels that a person labelled as something other than background. Every case
    counts equally, however much of it is labelled (nnU-Net 2.8.1 draws equally many voxels from
    each; here nothing is drawn, so the result depends on no seed and on no number of workers).
    Mean, standard deviation, minimum and maximum are exact. Percentiles are exact while a case's
    foreground is below a share of four million values, else taken from evenly spaced ranks of it.

    Args:
        dataset: Cases without a label file contribute shape and spacing.
        num_workers: Number of threads; at most that many images are in memory.

    Returns:
        The fingerprint. With fewer than 100 voxels of foreground in all cases together, intensities
        are those of the images' nonzero voxels, `intensity_source` says `body`, and a warning is
        logged. No number is ever NaN.

    Raises:
        DatasetError: Lists every case that cannot be read or whose label has another shape.
        RequestError: The dataset has no case.
    """
    if not dataset.cases:
        raise RequestError(
            f"{dataset.name} has no training cases in {dataset.folder}; put images into imagesTr."
        )
    measured = _measure_cases(dataset, "foreground", num_workers=num_workers)
    num_voxels = sum(case.num_voxels for case in measured)
    num_cases = sum(case.num_voxels > 0 for case in measured)
    source: Literal["foreground", "body"] = "foreground"
    with_intensities = measured
    if num_voxels < _MIN_FOREGROUND_VOXELS:
        logger.warning(
            "%s: only %d voxels of annotated foreground in %d cases; intensity statistics come "
            "from the nonzero voxels of the images instead.",
            dataset.name,
            num_voxels,
            num_cases,
        )
        source = "body"
        with_intensities = _measure_cases(dataset, "body", num_workers=num_workers)
    contributing = [case for case in with_intensities if case.num_voxels > 0]
    return Fingerprint(
        spacings_mm=tuple(case.spacing_mm for case in measured),
        shapes_after_crop=tuple(case.shape_after_crop for case in measured),
        median_relative_size_after_cropping=float(
            np.median([case.relative_size for case in measured])
        ),
        intensities=tuple(
            _pool([case.channels[channel] for case in contributing])
            for channel in range(len(dataset.channel_names))
        ),
        intensity_source=source,
        num_foreground_voxels=num_voxels,
        num_foreground_cases=num_cases,
    )


def hash_dataset(dataset: Dataset, *, num_workers: int) -> str:
    """Return a SHA-256 of all a fingerprint depends on: description and content of all files."""

    def describe(path: Path) -> list[str | int]:
        inside = path.is_relative_to(dataset.folder)
        name = path.relative_to(dataset.folder).as_posix() if inside else path.name
        return [name, path.stat().st_size, hash_file(path)]

    files = [
        path
        for case in dataset.cases
        for path in (*case.images, *([] if case.label is None else [case.label]))
    ]
    with ThreadPoolExecutor(max(1, num_workers)) as executor:
        described = list(executor.map(describe, files))
    return hash_content([_RULES_VERSION, dataset.description, described])


def fingerprint_to_json(
    fingerprint: Fingerprint, *, data_hash: str | None = None
) -> dict[str, Any]:
    """Return nnU-Net's keys, and ours under `sparseunet`.

    Args:
        fingerprint: What to write.
        data_hash: `hash_dataset` of the data it was measured on, so that it can be reused.
    """
    return {
        "foreground_intensity_properties_per_channel": {
            str(channel): asdict(properties)
            for channel, properties in enumerate(fingerprint.intensities)
        },
        "median_relative_size_after_cropping": fingerprint.median_relative_size_after_cropping,
        "shapes_after_crop": [list(shape) for shape in fingerprint.shapes_after_crop],
        "spacings": [list(spacing) for spacing in fingerprint.spacings_mm],
        "sparseunet": {
            "intensity_source": fingerprint.intensity_source,
            "num_foreground_voxels": fingerprint.num_foreground_voxels,
            "num_foreground_cases": fingerprint.num_foreground_cases,
            "data_hash": data_hash,
        },
    }


def fingerprint_from_json(content: Any, *, source: str = "the fingerprint") -> Fingerprint:
    """Read a fingerprint written by this package or by nnU-Net 2.x.

    Raises:
        RequestError: Lists the keys that are missing, of the wrong form or not a number.
    """
    if not isinstance(content, Mapping):
        raise RequestError(f"{source} is no fingerprint: found {type(content).__name__}.")
    intensities = content.get("foreground_intensity_properties_per_channel")
    ours = content.get("sparseunet", {})
    plain = {
        "spacings_mm": content.get("spacings"),
        "shapes_after_crop": content.get("shapes_after_crop"),
        "median_relative_size_after_cropping": content.get("median_relative_size_after_cropping"),
        "intensities": [intensities[key] for key in sorted(intensities, key=int)]
        if isinstance(intensities, Mapping) and all(str(key).isdigit() for key in intensities)
        else intensities,
        **{key: ours[key] for key in _OWN_KEYS if key in ours},
    }
    fingerprint = parse(Fingerprint, plain, source=source)
    values = [value for channel in fingerprint.intensities for value in asdict(channel).values()]
    if not np.isfinite(values).all():
        raise RequestError(
            f"{source} holds intensities that are not numbers (no foreground was measured?); "
            "extract it again with sparseunet extract_fingerprint."
        )
    return fingerprint


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sample:
    """One channel of one case."""

    mean: float
    variance: float
    min: float
    max: float
    values: np.ndarray
    """Sorted float32: all values, or those at evenly spaced ranks."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Measurement:
    """One case."""

    spacing_mm: tuple[float, float, float]
    shape_after_crop: tuple[int, int, int]
    relative_size: float
    num_voxels: int
    """Voxels of the measured region; 0 for a case that contributes no intensities."""
    channels: tuple[_Sample, ...]
    """Empty if there are no such voxels."""


def _measure_cases(
    dataset: Dataset, region: Literal["foreground", "body"], *, num_workers: int
) -> list[_Measurement]:
    keep = max(_MIN_KEPT_PER_CASE, _MAX_KEPT_VALUES // len(dataset.cases))

    def measure(case: Case) -> _Measurement | DatasetError:
        try:
            return _measure_case(case, dataset, region, keep=keep)
        except DatasetError as error:
            return DatasetError(
                [replace(problem, case=problem.case or case.name) for problem in error.problems]
            )

    executor = ThreadPoolExecutor(max(1, num_workers))
    try:
        outcomes = list(
            track(
                executor.map(measure, dataset.cases),
                total=len(dataset.cases),
                label=f"fingerprint ({region})" if region == "body" else "fingerprint",
            )
        )
    finally:
        executor.shutdown(cancel_futures=True)
    problems = [
        problem
        for outcome in outcomes
        if isinstance(outcome, DatasetError)
        for problem in outcome.problems
    ]
    if problems:
        raise DatasetError(problems)
    return [outcome for outcome in outcomes if isinstance(outcome, _Measurement)]


def _measure_case(
    case: Case, dataset: Dataset, region: Literal["foreground", "body"], *, keep: int
) -> _Measurement:
    image = read_image(case.images)
    if len(image.voxels_CZYX) != len(dataset.channel_names):
        raise _problem(
            case,
            file=case.images[0],
            found=f"{len(image.voxels_CZYX)} channels",
            expected=f"{len(dataset.channel_names)}: {', '.join(dataset.channel_names)}",
            fix="correct the channel_names of dataset.json, or the image",
        )
    nonzero_ZYX = (image.voxels_CZYX != 0).any(axis=0)
    box = _bounding_box(nonzero_ZYX)
    if region == "body":
        chosen_ZYX = nonzero_ZYX if nonzero_ZYX.any() else ~nonzero_ZYX
    else:
        chosen_ZYX = _annotated_foreground(case, dataset.labels, image.geometry.shape)
    chosen_ZYX = chosen_ZYX[box]
    num_voxels = int(np.count_nonzero(chosen_ZYX))
    shape = chosen_ZYX.shape
    return _Measurement(
        spacing_mm=image.geometry.spacing_mm,
        shape_after_crop=(shape[0], shape[1], shape[2]),
        relative_size=chosen_ZYX.size / nonzero_ZYX.size,
        num_voxels=num_voxels,
        channels=tuple(
            _describe(voxels_ZYX[box][chosen_ZYX], keep=keep) for voxels_ZYX in image.voxels_CZYX
        )
        if num_voxels
        else (),
    )


def _annotated_foreground(
    case: Case, labels: LabelSchema, shape: tuple[int, int, int]
) -> np.ndarray:
    """Return where a person labelled something other than background; nowhere without a label."""
    if case.label is None:
        return np.zeros(shape, bool)
    annotation, _ = read_annotation(case.label, labels)
    if annotation.labels_ZYX.shape != shape:
        raise _problem(
            case,
            file=case.label,
            found=f"a label of shape {annotation.labels_ZYX.shape}",
            expected=f"the image's shape {shape}",
            fix="resample the label to the image's grid, or drop the case",
        )
    return (annotation.source_ZYX == Source.MANUAL) & (annotation.labels_ZYX > 0)


def _problem(case: Case, *, file: Path, found: str, expected: str, fix: str) -> DatasetError:
    return UnreadableFileError(
        case=case.name, file=file.name, found=found, expected=expected, fix=fix
    )


def _bounding_box(inside_ZYX: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box around the true voxels; everything if there are none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside_ZYX.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(None))
    return box[0], box[1], box[2]


def _describe(values: np.ndarray, *, keep: int) -> _Sample:
    values = np.sort(values)
    mean = float(values.mean(dtype=np.float64))
    kept = values
    if values.size > keep:
        kept = values[((np.arange(keep) + 0.5) * values.size / keep).astype(np.int64)]
    return _Sample(
        mean=mean,
        variance=_squared_deviation(values, mean) / values.size,
        min=float(values[0]),
        max=float(values[-1]),
        values=kept,
    )


def _squared_deviation(values: np.ndarray, mean: float) -> float:
    """Return the sum of squares in float64, without a float64 copy of everything."""
    parts = range(0, values.size, _PART)
    return sum(float(np.square(values[at : at + _PART] - np.float64(mean)).sum()) for at in parts)


def _pool(samples: Sequence[_Sample]) -> IntensityProperties:
    """Combine cases with equal weight."""
    mean = float(np.mean([sample.mean for sample in samples]))
    variance = np.mean([sample.variance + (sample.mean - mean) ** 2 for sample in samples])
    low, median, high = _quantiles([sample.values for sample in samples], (0.005, 0.5, 0.995))
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
