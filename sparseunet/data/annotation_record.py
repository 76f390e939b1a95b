"""What a person annotated in each case, and the file that remembers it (`annotation.json`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparseunet.artifacts import read_artifact, write_json

_KIND = "annotation"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedView:
    """The annotated slices of one case across one axis."""

    axis: int
    """The slices lie across this axis of (z, y, x)."""
    num_slices: int
    """Number of slices along the axis, annotated or not."""
    annotated_slices: tuple[int, ...]
    """As in `AnnotationRecord`."""
    reviewed_empty_slices: tuple[int, ...] = ()
    """As in `AnnotationRecord`."""

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise ValueError(f"The axis must be 0, 1 or 2 for z, y, x, found {self.axis}.")
        for name in ("annotated_slices", "reviewed_empty_slices"):
            slices = getattr(self, name)
            if list(slices) != sorted(set(slices)):
                raise ValueError(f"{name} must be sorted without repetition, found {slices}.")
        if any(not 0 <= index < self.num_slices for index in self.annotated_slices):
            raise ValueError(
                f"Slices must lie in 0 to {self.num_slices - 1}, found {self.annotated_slices}."
            )
        extra = sorted(set(self.reviewed_empty_slices) - set(self.annotated_slices))
        if extra:
            raise ValueError(f"Slices {extra} are reviewed as empty but not among the annotated.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationRecord:
    """What is known about the annotation of one case beyond its label map."""

    axis: int
    """The slices lie across this axis of (z, y, x)."""
    num_slices: int
    """Number of slices along the axis, annotated or not."""
    annotated_slices: tuple[int, ...]
    """Every slice a person dealt with, sorted; those without any object are among them."""
    reviewed_empty_slices: tuple[int, ...] = ()
    """The annotated slices that a person looked at and found without any object, sorted. They teach
    background; a slice that nobody looked at teaches nothing."""
    annotated_classes: tuple[str, ...]
    """Names of the classes that were looked for. Another class may be present without a label."""
    source: Literal["manual", "interpolated", "pseudo"] = "manual"
    """Origin of the labels: a person, interpolation or a model."""
    minutes: float | None = None
    """Working time in minutes, or None if it was not measured."""

    further_views: tuple[AnnotatedView, ...] = ()
    """Slices across other axes, for a case that was annotated across several."""

    def __post_init__(self) -> None:
        axes = [view.axis for view in self.views]  # making the views checks the slices
        if len(set(axes)) != len(axes):
            raise ValueError(f"Every axis needs one view, found views across the axes {axes}.")

    @property
    def views(self) -> tuple[AnnotatedView, ...]:
        """The annotated slices across every axis, this record's own axis first."""
        own = AnnotatedView(
            axis=self.axis,
            num_slices=self.num_slices,
            annotated_slices=self.annotated_slices,
            reviewed_empty_slices=self.reviewed_empty_slices,
        )
        return (own, *self.further_views)

    @property
    def density(self) -> float:
        """Share of the slices across the record's own axis that are annotated, in [0, 1]."""
        return len(self.annotated_slices) / self.num_slices


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationRecords:
    """The records of a dataset and how its slices were chosen: the content of `annotation.json`."""

    cases: Mapping[str, AnnotationRecord]
    """By case name."""
    selector: str | None = None
    """Name of the selector, or None if a person chose."""
    density: float | None = None
    """Share of slices that was asked for; None if a number of slices or nothing was asked for."""
    seed: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the labels come from, e.g. the dense dataset of a simulation."""


def write_annotation_records(path: Path, records: AnnotationRecords) -> None:
    """Write `annotation.json`, whole or not at all."""
    content = {
        "kind": _KIND,
        "version": _VERSION,
        "selector": records.selector,
        "density": records.density,
        "seed": records.seed,
        "provenance": dict(records.provenance),
        "cases": dict(records.cases),
    }
    write_json(path, content)


def read_annotation_records(path: Path) -> AnnotationRecords:
    """Read `annotation.json`.

    Raises:
        RequestError: The file is missing, of another kind or a newer version, or fields are wrong;
            names the file and every such field.
    """
    return read_artifact(AnnotationRecords, path, kind=_KIND, version=_VERSION)
