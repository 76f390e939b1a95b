"""How far interpolated labels can be relied on."""

from functools import lru_cache

import numpy as np

from sparseunet.annotation.interpolation.gaps import Gap

RATIOS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Where the tables below say how often a label is right: margin over distance, see `confidence`."""

JITTER_PIXELS = {"nearest": 1.0, "shape": 1.0, "spline": 1.0}
"""Outlines of neighbouring slices differ by so much even without any distance. Added to the
distance as squares. The tables of other methods were fitted without."""
_STEPS_PER_RATIO = 128

TABLES: dict[str, dict[tuple[bool, bool], tuple[float, ...]]] = {
    "nearest": {
        (True, True): (0.491, 0.491, 0.542, 0.715, 0.763, 0.901, 0.957, 0.982, 0.995, 0.999),
        (True, False): (0.593, 0.593, 0.736, 0.817, 0.858, 0.950, 0.978, 0.989, 0.996, 0.999),
        (False, True): (0.009, 0.021, 0.121, 0.236, 0.293, 0.403, 0.542, 0.707, 0.950, 0.999),
        (False, False): (0.897, 0.897, 0.942, 0.974, 0.987, 0.994, 0.998, 0.999, 0.999, 0.999),
    },
    "shape": {
        (True, True): (0.633, 0.733, 0.870, 0.953, 0.970, 0.991, 0.995, 0.999, 0.999, 0.999),
        (True, False): (0.261, 0.350, 0.515, 0.746, 0.849, 0.910, 0.962, 0.990, 0.999, 0.999),
        (False, True): (0.003, 0.109, 0.179, 0.275, 0.340, 0.449, 0.573, 0.737, 0.959, 0.999),
        (False, False): (0.903, 0.903, 0.919, 0.966, 0.984, 0.992, 0.997, 0.999, 0.999, 0.999),
    },
    "spline": {
        (True, True): (0.560, 0.670, 0.826, 0.929, 0.959, 0.987, 0.994, 0.998, 0.999, 0.999),
        (True, False): (0.354, 0.449, 0.613, 0.801, 0.890, 0.921, 0.978, 0.991, 0.999, 0.999),
        (False, True): (0.003, 0.109, 0.179, 0.275, 0.340, 0.449, 0.573, 0.737, 0.959, 0.999),
        (False, False): (0.903, 0.903, 0.919, 0.966, 0.984, 0.992, 0.997, 0.999, 0.999, 0.999),
    },
    "learned": {
        (True, True): (0.599, 0.617, 0.732, 0.791, 0.860, 0.929, 0.956, 0.976, 0.994, 0.999),
        (True, False): (0.395, 0.431, 0.518, 0.738, 0.822, 0.984, 0.987, 0.998, 0.998, 0.999),
        (False, True): (0.003, 0.109, 0.179, 0.275, 0.340, 0.449, 0.573, 0.737, 0.959, 0.999),
        (False, False): (0.903, 0.903, 0.919, 0.966, 0.984, 0.992, 0.997, 0.999, 0.999, 0.999),
    },
    "combined": {
        (True, True): (0.588, 0.664, 0.757, 0.847, 0.871, 0.948, 0.973, 0.986, 0.994, 0.999),
        (True, False): (0.384, 0.465, 0.583, 0.771, 0.856, 0.983, 0.990, 0.999, 0.999, 0.999),
        (False, True): (0.003, 0.109, 0.179, 0.275, 0.340, 0.449, 0.573, 0.737, 0.959, 0.999),
        (False, False): (0.903, 0.903, 0.919, 0.966, 0.984, 0.992, 0.997, 0.999, 0.999, 0.999),
    },
}
"""Per method and (is there an annotated slice on either side, is the label a foreground class).

Fitted to filled voxels of 10 MSD hippocampus cases (across z, y and x, every third, fifth and
eighth slice) and 16 ACDC scans (across z, every second and third), both with the same weight;
those of learned and combined between two slices to 4 of the hippocampus cases only, beyond the last
slice they are the spline's."""


def confidence(
    labels: np.ndarray,
    margin_mm: np.ndarray,
    *,
    gap: Gap,
    index: int,
    spacing_mm: tuple[float, float, float],
    axis: int,
    method: str,
) -> np.ndarray:
    """Return the share of such voxels that is right, float32 in [0, 1].

    What decides is how far inside its class a voxel is, in relation to how far away the nearest
    annotated slice is, `JITTER_PIXELS` added; then whether there is one on either side, and whether
    it is background.

    Args:
        labels: The slice as it was filled.
        margin_mm: How far inside its class each voxel is: in the plane, to the border of another.
        gap: The gap.
        index: Of the slice.
        spacing_mm: Voxel size.
        axis: Across which slices are numbered.
        method: Key of `TABLES`; methods without a table of their own get that of `nearest`.
    """
    pixel_mm = min(size for other, size in enumerate(spacing_mm) if other != axis)
    method = method if method in TABLES else "nearest"
    jitter_mm = JITTER_PIXELS.get(method, 0.0) * pixel_mm
    distance_mm = np.hypot(gap.distance(index) * spacing_mm[axis], jitter_mm)
    steps = margin_mm * np.float32(_STEPS_PER_RATIO / distance_mm)
    table = _lookup(method, len(gap.ends) == 2)
    np.minimum(steps, table.size // 2 - 1, out=steps)
    at = steps.astype(np.intp)
    at += (labels > 0) * np.intp(table.size // 2)
    return table.take(at, mode="clip")


@lru_cache
def _lookup(method: str, is_between: bool) -> np.ndarray:  # noqa: FBT001
    """Return the tables of background and foreground at finer steps, one behind the other.

    Interpolating each pixel by itself is slow.
    """
    tables = TABLES[method]
    ratios = (np.arange(_STEPS_PER_RATIO * int(RATIOS[-1]) + 1) + 0.5) / _STEPS_PER_RATIO
    fine = [np.interp(ratios, RATIOS, tables[is_between, is_object]) for is_object in (False, True)]
    return np.concatenate(fine).astype(np.float32)
