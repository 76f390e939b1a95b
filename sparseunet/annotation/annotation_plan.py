"""Which slices to annotate, in which order and why: the content of `annotation_plan.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_artifact, write_json
from sparseunet.data.find import is_plain_name

_KIND = "annotation_plan"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCase:
    """The slices of one case. A case may occur once per axis."""

    case: str
    axis: int
    """The slices lie across this axis of the file's (z, y, x)."""
    num_slices: int
    """Number of slices along the axis, chosen or not."""
    slices: tuple[int, ...]
    """Indices in the file's order of axes, the most important first."""
    ranks: tuple[int, ...]
    """Of each slice, its place in the order of the whole plan, from 1."""
    reasons: tuple[str, ...]
    """Why each slice was chosen, in the order of the slices."""
    expected_minutes: float
    """Working time in minutes by the cost model."""

    def __post_init__(self) -> None:
        if not is_plain_name(self.case):
            raise ValueError(
                f"{self.case!r} cannot be the name of a case: files are called after it."
            )
        if self.axis not in (0, 1, 2):
            raise ValueError(f"The axis must be 0, 1 or 2 for z, y, x, found {self.axis}.")
        if len(set(self.slices)) != len(self.slices):
            raise ValueError(f"{self.case}: a slice is planned twice, found {self.slices}.")
        if any(not 0 <= index < self.num_slices for index in self.slices):
            raise ValueError(
                f"{self.case}: slices must lie in 0 to {self.num_slices - 1}, found {self.slices}."
            )
        if not len(self.slices) == len(self.ranks) == len(self.reasons):
            raise ValueError(f"{self.case}: every slice needs one rank and one reason.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationPlan:
    """The slices that annotators are to draw, by case and axis."""

    dataset: str
    """Name of the raw dataset."""
    selector: str
    """Name in `SELECTORS`."""
    seed: int
    budget: str
    """As it was asked for, e.g. `400slices`, `10%`, `90min`."""
    cases: tuple[PlannedCase, ...]
    """Cases that have slices to annotate, sorted by name, then axis. Others are left out."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, and what else the choice depended on."""

    @property
    def num_slices(self) -> int:
        """Number of slices to annotate."""
        return sum(len(case.slices) for case in self.cases)

    @property
    def expected_minutes(self) -> float:
        """Working time in minutes by the cost model."""
        return sum(case.expected_minutes for case in self.cases)

    def of_case(self, name: str) -> tuple[PlannedCase, ...]:
        """Return what is planned in one case, by axis; empty if nothing is."""
        return tuple(case for case in self.cases if case.case == name)


def write_annotation_plan(path: Path, plan: AnnotationPlan) -> None:
    """Write `annotation_plan.json`, whole or not at all. The same plan gives the same bytes."""
    content = {
        "kind": _KIND,
        "version": _VERSION,
        "dataset": plan.dataset,
        "selector": plan.selector,
        "seed": plan.seed,
        "budget": plan.budget,
        "provenance": dict(plan.provenance),
        "cases": list(plan.cases),
    }
    write_json(path, content)


def read_annotation_plan(path: Path) -> AnnotationPlan:
    """Read `annotation_plan.json`.

    Raises:
        RequestError: The file is missing, of another kind or a newer version, or fields are wrong;
            names the file and every such field.
    """
    return read_artifact(AnnotationPlan, path, kind=_KIND, version=_VERSION)
