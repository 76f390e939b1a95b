"""Sizes, spacings and intensities of a dataset, and their form on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sparseunet.artifacts import parse
from sparseunet.errors import RequestError

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


def fingerprint_to_json(
    fingerprint: Fingerprint, *, data_hash: str | None = None
) -> dict[str, Any]:
    """Return nnU-Net's keys, and ours under `sparseunet`.

    Args:
        fingerprint: What to write.
        data_hash: Identifies the files it was measured on.
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
