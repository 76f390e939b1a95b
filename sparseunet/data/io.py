"""Read scans and label files, and write label files and images, with their geometry.

Array axes are those of the file, (z, y, x); nothing is reoriented. Reading is strict: a file that
is cut off, holds NaN or infinity, or has a fourth axis raises. What can be read in one sensible
way only (a negative voxel size, sheared axes, labels like 1.0000001) is read so, with a warning.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.data.annotation import Annotation
from sparseunet.data.formats import format_of
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema
from sparseunet.data.stored import Irregularity, unreadable
from sparseunet.errors import DatasetError, Problem, Severity

_logger = logging.getLogger(__name__)
_LABEL_TOLERANCE = 1e-3
_HIGHEST_LABEL = 65535
_COUNT_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReadImage:
    """A scan with everything that is odd about its files."""

    image: Image
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReadLabels:
    """A label map with everything that is odd about its file."""

    labels_ZYX: np.ndarray
    """uint8, or uint16 where a value exceeds 255."""
    geometry: Geometry
    warnings: tuple[Problem, ...]


def read_image(paths: Sequence[Path]) -> Image:
    """Read the channels of one scan, in the order of `paths`; colours of a picture are channels.

    Irregularities that do not prevent reading are logged as warnings. The geometry is that of
    the first file.

    Raises:
        UnreadableFileError: One file cannot be read (cut off, NaN or infinity, four axes).
        DatasetError: Several cannot, or the shape or spacing of a channel differs from the
            first's; all problems at once.
    """
    read = read_image_with_warnings(paths)
    _log(read.warnings)
    return read.image


def read_image_with_warnings(paths: Sequence[Path], *, case: str = "") -> ReadImage:
    """Read one scan like `read_image`, returning the warnings instead of logging them."""
    channels: list[np.ndarray] = []
    problems: list[Problem] = []
    failures: list[DatasetError] = []
    reference: tuple[Path, Geometry] | None = None
    for path in paths:
        try:
            voxels_CZYX, geometry, warnings = _read_channels(path, case)
        except DatasetError as error:
            failures.append(error)
            problems.extend(error.problems)
            continue
        problems.extend(warnings)
        reference = reference or (path, geometry)
        problems.extend(
            compare_grids(
                geometry, reference[1], case=case, file=str(path), reference_file=reference[0].name
            )
        )
        channels.append(voxels_CZYX)
    if reference is None or any(problem.severity is Severity.ERROR for problem in problems):
        raise failures[0] if len(problems) == len(failures) == 1 else DatasetError(problems)
    voxels_CZYX = channels[0] if len(channels) == 1 else np.concatenate(channels)
    image = Image(voxels_CZYX=voxels_CZYX, geometry=reference[1])
    return ReadImage(image=image, warnings=tuple(problems))


def read_geometry(path: Path) -> Geometry:
    """Read the geometry of one file from its header alone.

    Raises:
        UnreadableFileError: The header is missing or damaged, or states four axes.
    """
    return format_of(path).read_grid(path).geometry


def read_label_map(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read one label file as (z, y, x) uint8, or uint16 where a value exceeds 255.

    Floating-point labels are rounded where they are within 0.001 of whole numbers.

    Raises:
        UnreadableFileError: Cut off, four axes, colour, negative, above 65535 or not whole.
    """
    read = read_labels_with_warnings(path)
    _log(read.warnings)
    return read.labels_ZYX, read.geometry


def read_labels_with_warnings(path: Path, *, case: str = "") -> ReadLabels:
    """Read one label file like `read_label_map`, returning the warnings instead of logging them."""
    stored = format_of(path).read_labels(path)
    if len(stored.voxels_CZYX) != 1:
        raise unreadable(
            path,
            found=f"a colour picture with {len(stored.voxels_CZYX)} channels",
            expected="one label value per pixel",
            fix="save the labels as grey values 0, 1, 2, ...",
        )
    labels_ZYX, irregularities = _whole_numbers(path, stored.voxels_CZYX[0])
    return ReadLabels(
        labels_ZYX=labels_ZYX,
        geometry=stored.geometry,
        warnings=_as_problems((*stored.irregularities, *irregularities), path, case),
    )


def read_annotation(path: Path, labels: LabelSchema) -> tuple[Annotation, Geometry]:
    """Read one label file; voxels of the ignore value get the source none, all others manual.

    Raises:
        UnreadableFileError: As for `read_label_map`, or a value that `labels` does not declare.
    """
    labels_ZYX, geometry = read_label_map(path)
    counts = count_values(labels_ZYX)
    declared = {*labels.values, labels.ignore}
    undeclared = [value for value in counts if value not in declared]
    if undeclared:
        raise unreadable(
            path,
            found=", ".join(f"{counts[value]} voxels of value {value}" for value in undeclared),
            expected=f"the declared values {', '.join(map(str, labels.values))}",
            fix="correct the file, or declare the value in dataset.json",
        )
    return Annotation.from_label_map(labels_ZYX, ignore=labels.ignore), geometry


def count_values(labels_ZYX: np.ndarray) -> dict[int, int]:
    """Return how often each label value occurs, by value; values that do not occur are left out."""
    total = np.zeros(_HIGHEST_LABEL + 1, np.int64)
    flat = labels_ZYX.reshape(-1)
    for start in range(0, flat.size, _COUNT_AT_ONCE):  # bincount needs eight bytes per voxel
        counts = np.bincount(flat[start : start + _COUNT_AT_ONCE])
        total[: len(counts)] += counts
    return {int(value): int(total[value]) for value in np.flatnonzero(total)}


def write_label_map(path: Path, labels_ZYX: np.ndarray, geometry: Geometry) -> None:
    """Write whole, non-negative labels as uint8, or uint16 where a value exceeds 255.

    The format follows the ending; files are compressed and appear whole or not at all. The same
    labels and geometry give the same bytes.

    Raises:
        ValueError: The shape is not the geometry's, or a label does not fit.
        RequestError: The format cannot hold them (several slices in a picture).
    """
    _require_shape(labels_ZYX, geometry)
    if labels_ZYX.min() < 0 or labels_ZYX.max() > _HIGHEST_LABEL:
        raise ValueError(
            f"Labels from {labels_ZYX.min()} to {labels_ZYX.max()} were given, expected 0 to "
            f"{_HIGHEST_LABEL}."
        )
    kind = np.uint8 if labels_ZYX.max() < 256 else np.uint16
    format_of(path).write(path, np.ascontiguousarray(labels_ZYX, kind), geometry)


def write_image(path: Path, voxels_ZYX: np.ndarray, geometry: Geometry) -> None:
    """Write one channel as float32; pictures (PNG, BMP) hold whole non-negative numbers only.

    Raises:
        ValueError: The shape is not the geometry's.
        RequestError: The format cannot hold the values.
    """
    _require_shape(voxels_ZYX, geometry)
    format_of(path).write(path, np.ascontiguousarray(voxels_ZYX, np.float32), geometry)


def _read_channels(path: Path, case: str) -> tuple[np.ndarray, Geometry, tuple[Problem, ...]]:
    stored = format_of(path).read(path)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite and is refused
        voxels_CZYX = np.ascontiguousarray(stored.voxels_CZYX, np.float32)
    if not voxels_CZYX.flags.writeable:
        voxels_CZYX = voxels_CZYX.copy()
    if stored.voxels_CZYX.dtype.kind == "f":
        _require_finite(path, voxels_CZYX)
    return voxels_CZYX, stored.geometry, _as_problems(stored.irregularities, path, case)


def _require_finite(path: Path, voxels: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        if np.isfinite(voxels.sum(dtype=np.float64)):  # one pass without a mask in memory
            return
    num_nan = int(np.isnan(voxels).sum())
    num_infinite = int(np.isinf(voxels).sum())
    if not num_nan + num_infinite:  # only the sum was too large
        return
    parts = [f"{num_nan} NaN"] * bool(num_nan) + [f"{num_infinite} infinite"] * bool(num_infinite)
    raise unreadable(
        path,
        found=f"{' and '.join(parts)} voxels of {voxels.size}",
        expected="finite numbers",
        fix="set them to the value of the background, or export the file again",
    )


def _whole_numbers(
    path: Path, values_ZYX: np.ndarray
) -> tuple[np.ndarray, tuple[Irregularity, ...]]:
    """Return labels as uint8 or uint16, rounding what is almost whole."""
    irregularities: tuple[Irregularity, ...] = ()
    if values_ZYX.dtype.kind == "f":
        _require_finite(path, values_ZYX)
        rounded_ZYX = np.rint(values_ZYX)
        off_ZYX = np.abs(values_ZYX - rounded_ZYX)
        if off_ZYX.max() > _LABEL_TOLERANCE:
            far = values_ZYX[off_ZYX > _LABEL_TOLERANCE]
            raise _wrong_labels(path, found=f"{far.size} voxels with values like {_examples(far)}")
        if off_ZYX.max() > 0:
            almost = _examples(values_ZYX[off_ZYX > 0])
            irregularity = Irregularity(
                found=f"labels that are not quite whole numbers: {almost}",
                expected="whole numbers",
                fix="they are rounded; save labels with an integer type",
            )
            irregularities = (irregularity,)
        values_ZYX = rounded_ZYX
    low, high = values_ZYX.min(), values_ZYX.max()
    if low < 0:
        negative = values_ZYX[values_ZYX < 0]
        found = f"{negative.size} voxels with negative values: {_examples(negative)}"
        raise _wrong_labels(path, found=found)
    if high > _HIGHEST_LABEL:
        raise _wrong_labels(path, found=f"labels up to {high:g}")
    kind = np.uint8 if high < 256 else np.uint16
    return np.ascontiguousarray(values_ZYX.astype(kind, copy=False)), irregularities


def _wrong_labels(path: Path, *, found: str) -> DatasetError:
    return unreadable(
        path,
        found=found,
        expected=f"whole numbers from 0 to {_HIGHEST_LABEL}",
        fix="correct the labels; mark unannotated voxels with the ignore value of dataset.json",
    )


def _examples(values: np.ndarray) -> str:
    found = np.unique(values)
    shown = ", ".join(str(value) for value in found[:5].tolist())
    return shown if len(found) <= 5 else f"{shown}, ... ({len(found)} different values)"


def _as_problems(
    irregularities: Sequence[Irregularity], path: Path, case: str
) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            severity=Severity.WARNING,
            case=case,
            file=str(path),
            found=irregularity.found,
            expected=irregularity.expected,
            fix=irregularity.fix,
        )
        for irregularity in irregularities
    )


def _log(warnings: Sequence[Problem]) -> None:
    for warning in warnings:
        _logger.warning("%s: found %s; %s", warning.file, warning.found, warning.fix)


def _require_shape(voxels_ZYX: np.ndarray, geometry: Geometry) -> None:
    if voxels_ZYX.shape != geometry.shape:
        raise ValueError(
            f"Voxels have shape {voxels_ZYX.shape}, the geometry says {geometry.shape}. Both must "
            "describe the same grid."
        )
