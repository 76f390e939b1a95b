"""How densely each case is annotated, and the file that remembers it (`label_density.json`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.artifacts import parse, read_json, write_json
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry, orientation
from sparseunet.errors import RequestError

_KIND = "label_density"
_VERSION = 1
ENOUGH_DENSITY_3D = 0.1
"""Share of annotated slices from which on 3D networks learned in all of Z25's tasks; below it they
may not learn at all: ATLAS at 0.05, where 0.1 to 0.4 helped (Z25 §4.1.2, §6)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelDensity:
    """What is annotated in one case, in numbers. Axes are the file's (z, y, x)."""

    name: str
    """Case identifier."""
    shape: tuple[int, int, int]
    """Voxels of the whole file, before any crop."""
    annotated_slices: tuple[int, int, int]
    """Slices across z, y and x that hold any annotated voxel."""
    annotated_voxels: int
    """Voxels somebody or something labelled, background included."""
    class_voxels: dict[int, int]
    """Label value (background 0 too) to its annotated voxels; only values that occur."""
    orientation: str | None = None
    """Where the file's axes x, y and z point, as three letters of R/L, A/P, I/S (e.g. `LPS`: ITK's
    identity), each axis by its largest cosine; None for a file of one plane or if unknown."""

    @property
    def num_voxels(self) -> int:
        """Voxels of the case, annotated or not."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def is_dense(self) -> bool:
        """Whether every voxel is annotated."""
        return self.annotated_voxels == self.num_voxels

    @property
    def slice_axis(self) -> int:
        """Axis across which slices were annotated, see `sparsest_axis`."""
        return sparsest_axis(self.annotated_slices, self.shape)


def sparsest_axis(annotated_slices: Sequence[int], shape: Sequence[int]) -> int:
    """Return the axis with the smallest share of slices that hold annotation.

    The first of equal ones, so 0 for dense cases and for cases without annotation.
    """
    shares = [slices / size for slices, size in zip(annotated_slices, shape, strict=True)]
    return shares.index(min(shares))


def measure_label_density(
    name: str, annotation: Annotation | None, geometry: Geometry
) -> LabelDensity:
    """Count what is annotated in a case, slice by slice: no copy of the size of the case is made.

    Args:
        name: Case identifier.
        annotation: On the grid of `geometry`; None for a case without labels, which counts as a
            case without a single annotated voxel.
        geometry: The image's grid.

    Raises:
        ValueError: Annotation and geometry have different shapes.
    """
    if annotation is None:
        counted = _Counts(slices=(0, 0, 0), voxels=0, classes={})
    elif annotation.labels_ZYX.shape != geometry.shape:
        raise ValueError(
            f"{name}: the annotation has shape {annotation.labels_ZYX.shape}, the geometry "
            f"{geometry.shape}. Both must describe the same voxel grid."
        )
    else:
        counted = _count(annotation)
    return LabelDensity(
        name=name,
        shape=geometry.shape,
        annotated_slices=counted.slices,
        annotated_voxels=counted.voxels,
        class_voxels=counted.classes,
        orientation=orientation(geometry) if len(geometry.direction) == 9 else None,
    )


def write_label_densities(
    path: Path, cases: Sequence[LabelDensity], *, data_hash: str | None = None
) -> None:
    """Write `label_density.json`, whole or not at all.

    Args:
        path: Where to.
        cases: One record per case.
        data_hash: Identifies the files that were counted.
    """
    content = {"kind": _KIND, "version": _VERSION, "data_hash": data_hash, "cases": list(cases)}
    write_json(path, content)


def read_label_densities(path: Path) -> tuple[LabelDensity, ...]:
    """Read `label_density.json`.

    Raises:
        RequestError: The file is missing, of another kind or version, or a field is wrong.
    """
    content: Any = read_json(path)
    found = (content.get("kind"), content.get("version")) if isinstance(content, dict) else None
    if found != (_KIND, _VERSION):
        raise RequestError(
            f"{path} does not hold label densities of version {_VERSION} (found {found}); make it "
            "again with sparseunet extract_fingerprint."
        )
    return parse(tuple[LabelDensity, ...], content.get("cases"), source=str(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    slices: tuple[int, int, int]
    voxels: int
    classes: dict[int, int]


def _count(annotation: Annotation) -> _Counts:
    labels_ZYX, source_ZYX = annotation.labels_ZYX, annotation.source_ZYX
    _, rows, columns = labels_ZYX.shape
    row_seen, column_seen = np.zeros(rows, bool), np.zeros(columns, bool)
    slices = voxels = 0
    classes: dict[int, int] = {}
    for labels_YX, source_YX in zip(labels_ZYX, source_ZYX, strict=True):
        annotated_YX = source_YX != Source.NONE
        here = int(np.count_nonzero(annotated_YX))
        if not here:
            continue
        slices += 1
        voxels += here
        row_seen |= annotated_YX.any(axis=1)
        column_seen |= annotated_YX.any(axis=0)
        chosen = labels_YX if here == labels_YX.size else labels_YX[annotated_YX]
        counts = np.bincount(chosen.ravel())
        for value in np.flatnonzero(counts).tolist():
            classes[value] = classes.get(value, 0) + int(counts[value])
    return _Counts(
        slices=(slices, int(row_seen.sum()), int(column_seen.sum())),
        voxels=voxels,
        classes=dict(sorted(classes.items())),
    )
