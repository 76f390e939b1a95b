"""From slices that were hidden and interpolated to a decision: fill or not, how, and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.interpolation.quality import HiddenSlices, add_up
from sparseunet.artifacts import hash_content, hash_file, read_artifact, write_json
from sparseunet.data.dataset import Dataset
from sparseunet.data.density import ENOUGH_DENSITY_3D

WORTH_IOU = 0.55
"""Least expected IoU of filled slices, over all gaps. Z25 saw interpolated labels help that agreed
with dense ones to 0.56 (ATLAS, tables 4 and 5); on MSD hippocampus at 5 %, where 0.38 was expected
over all gaps, they cost 0.05 Dice even where only the narrowest were filled
(documentation/experiments.md)."""
PREFERRED, CLEARLY = ("fused", "spline"), 0.05
"""Methods to take, the first of those looked at, unless another's IoU should be so much better."""
_SIMILAR = 1.4
"""Gaps that differ by less are one row of the report."""
_KIND = "interpolation_verdict"
_VERSION = 1
_MAKE_AGAIN = "Remove it; the method auto of sparseunet interpolate makes it again."
_EXPONENT, _EXPONENT_WEIGHT = 1.0, 0.3
"""How errors grow if hidden slices do not say, and how much weight that has against them."""
_EXPONENTS = (0.3, 2.0)
_LOWEST_IOU, _HIGHEST_IOU = 0.02, 0.995
"""Measured values beyond say no more about the curve than these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEstimate:
    """What to expect of one method in the real gaps."""

    method: str
    iou: float
    """Batched IoU of the slices that it would fill, mean over classes, in [0, 1]."""
    iou_of_class: dict[str, float]
    exponent: float
    """Exponent of the distance in the curve of `judge`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether, how and how far to interpolate a dataset."""

    method: str
    """The recommended method."""
    until_gap_mm: float
    """The widest gap whose slices are expected to be right to `WORTH_IOU`; 0 if none is."""
    density: float
    """Share of slices that are annotated, median of the cases that are annotated in part."""
    use_2d: bool
    use_3d: bool
    why_2d: str
    why_3d: str
    estimates: tuple[MethodEstimate, ...]
    """Estimates of all methods, the best first."""
    hidden: tuple[HiddenSlices, ...]
    """The hidden slices that the estimates are made from."""
    labels_hash: str | None = None
    """Of the label files that it was made from (`hash_labels`); None in files that do not say."""


def judge(
    hidden: Sequence[HiddenSlices], *, distances_mm: Mapping[float, int], density: float
) -> Verdict | None:
    """Decide from what interpolation made of hidden slices.

    The IoU of a class is taken to fall as exp(-scale · distance ** exponent) with the distance to
    the nearest annotated slice, fitted to the hidden slices, and is so brought to the distances of
    the real gaps, which are mostly shorter than those that could be tried. Another method than the
    `PREFERRED` one is taken only if it is clearly better by that. The verdicts follow Z25 §4.2: in
    2D interpolated labels helped nowhere; in 3D they helped where too few slices are annotated to
    learn from, and cost accuracy elsewhere.

    Args:
        hidden: Sums over all cases.
        distances_mm: How many slices to fill lie at each distance to the nearest annotated one.
        density: See `Verdict`.

    Returns:
        None if no slice could be hidden, or there is nothing to fill.
    """
    if not hidden or not distances_mm:
        return None
    methods = sorted({item.method for item in hidden})
    curves = {name: _Curve.fit([h for h in hidden if h.method == name]) for name in methods}
    estimates = tuple(
        sorted(
            (_estimate(name, curves[name], distances_mm) for name in methods),
            key=lambda item: -item.iou,
        )
    )
    best = _choose(estimates)
    until_gap_mm = curves[best.method].widest_gap_mm(WORTH_IOU, distances_mm)
    use_3d, why_3d = _judge_3d(best, until_gap_mm, density)
    return Verdict(
        method=best.method,
        until_gap_mm=until_gap_mm,
        density=density,
        use_2d=False,
        use_3d=use_3d,
        why_2d="In 2D, training on interpolated slices helped in none of four tasks "
        "(Zhang et al. 2025, §4.2).",
        why_3d=why_3d,
        estimates=estimates,
        hidden=tuple(hidden),
    )


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write a verdict as JSON, whole or not at all."""
    write_json(path, {"kind": _KIND, "version": _VERSION, **asdict(verdict)})


def read_verdict(path: Path) -> Verdict:
    """Read a verdict.

    Raises:
        RequestError: The file is missing, of another kind or version, or a field is wrong.
    """
    return read_artifact(Verdict, path, kind=_KIND, version=_VERSION, hint=_MAKE_AGAIN)


def hash_labels(dataset: Dataset) -> str:
    """Return a hash over the names and the label files of all cases, provenance included."""
    return hash_content(
        {case.name: [hash_file(file) for file in case.label_files] for case in dataset.cases}
    )


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return the verdict for a person, in Markdown: two sentences and two tables."""
    names = list(verdict.estimates[0].iou_of_class)
    lines = [
        f"- 2D: {'use' if verdict.use_2d else 'do not use'} interpolated labels. {verdict.why_2d}",
        f"- 3D: {'use' if verdict.use_3d else 'do not use'} interpolated labels. {verdict.why_3d}",
        f"- If at all: {verdict.method}, in gaps of up to {verdict.until_gap_mm:g} mm.",
        "",
        f"| expected IoU of filled slices | mean | {' | '.join(names)} |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for item in verdict.estimates:
        values = " | ".join(f"{item.iou_of_class[name]:.2f}" for name in names)
        lines.append(f"| {item.method} | {item.iou:.2f} | {values} |")
    lines += [
        "",
        f"Measured on annotated slices that {verdict.method} did not see:",
        "",
        "| class | gap | slices | Dice | IoU |",
        "| --- | --- | --- | --- | --- |",
    ]
    for gap, rows in _grouped([row for row in verdict.hidden if row.method == verdict.method]):
        total = add_up([[replace(row, gap_mm=None, distance_mm=0.0) for row in rows]])[0]
        lines.append(
            f"| {total.class_name} | {gap} | {total.num_slices} | {total.dice:.2f} | "
            f"{total.iou:.2f} |"
        )
    return lines


def _grouped(hidden: Sequence[HiddenSlices]) -> list[tuple[str, list[HiddenSlices]]]:
    """Return rows of the same class and of gaps of similar width, with the widths in words."""
    groups: list[list[HiddenSlices]] = []
    for row in hidden:
        first = groups[-1][0] if groups else None
        same_class = first is not None and row.class_name == first.class_name
        if first is not None and same_class and _is_similar(row.gap_mm, first.gap_mm):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [(_width(rows[0].gap_mm, rows[-1].gap_mm), rows) for rows in groups]


def _is_similar(gap_mm: float | None, other_mm: float | None) -> bool:
    if gap_mm is None or other_mm is None:
        return gap_mm == other_mm
    return gap_mm <= _SIMILAR * other_mm


def _width(first_mm: float | None, last_mm: float | None) -> str:
    if first_mm is None:
        return "beyond the last slice"
    return f"{first_mm:g} mm" if first_mm == last_mm else f"{first_mm:g} to {last_mm:g} mm"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Curve:
    """IoU of each class = exp(-scale · distance ** exponent)."""

    scale: dict[str, float]
    exponent: float

    @classmethod
    def fit(cls, hidden: Sequence[HiddenSlices]) -> "_Curve":
        """Fit one exponent and a scale per class, by what is between two slices if there is any."""
        between = [item for item in hidden if item.gap_mm is not None] or list(hidden)
        points = {
            name: _by_distance([item for item in between if item.class_name == name])
            for name in sorted({item.class_name for item in between if item.either})
        }
        exponent = _common_exponent(list(points.values()))
        scale = {
            name: float(np.exp(np.average(np.log(loss / mm**exponent), weights=weight)))
            for name, (mm, loss, weight) in points.items()
        }
        return cls(scale=scale, exponent=exponent)

    def iou(self, distance_mm: float, name: str) -> float:
        return float(np.exp(-self.scale[name] * distance_mm**self.exponent))

    def mean_iou(self, distances_mm: Mapping[float, int], name: str) -> float:
        """Return the expected batched IoU over slices at these distances."""
        count = sum(distances_mm.values())
        return sum(n * self.iou(mm, name) for mm, n in distances_mm.items()) / count

    def widest_gap_mm(self, least: float, distances_mm: Mapping[float, int]) -> float:
        """Return twice the largest distance at which the mean over classes is good enough."""
        good = [
            mm
            for mm in distances_mm
            if np.mean([self.iou(mm, name) for name in self.scale]) >= least
        ]
        return 2 * max(good, default=0.0)


_Points = tuple[np.ndarray, np.ndarray, np.ndarray]


def _by_distance(hidden: Sequence[HiddenSlices]) -> _Points:
    """Return distance, -log IoU and number of voxels, one each per distance."""
    distances = sorted({item.distance_mm for item in hidden if item.either})
    both = [sum(h.both for h in hidden if h.distance_mm == mm) for mm in distances]
    either = [sum(h.either for h in hidden if h.distance_mm == mm) for mm in distances]
    iou = np.clip(np.array(both) / np.array(either), _LOWEST_IOU, _HIGHEST_IOU)
    return np.array(distances), -np.log(iou), np.array(either, float)


def _common_exponent(points: Sequence[_Points]) -> float:
    """Return the slope of the logarithms of loss over distance, within classes."""
    covariance, variance = _EXPONENT_WEIGHT * _EXPONENT, _EXPONENT_WEIGHT
    for mm, loss, weight in points:
        share = weight / weight.sum()
        x, y = np.log(mm), np.log(loss)
        x, y = x - share @ x, y - share @ y
        covariance += float(share @ (x * y))
        variance += float(share @ (x * x))
    return float(np.clip(covariance / variance, *_EXPONENTS))


def _estimate(method: str, curve: _Curve, distances_mm: Mapping[float, int]) -> MethodEstimate:
    iou_of_class = {name: curve.mean_iou(distances_mm, name) for name in curve.scale}
    return MethodEstimate(
        method=method,
        iou=float(np.mean(list(iou_of_class.values()))) if iou_of_class else 0.0,
        iou_of_class=iou_of_class,
        exponent=curve.exponent,
    )


def _choose(estimates: Sequence[MethodEstimate]) -> MethodEstimate:
    preferred = [item for name in PREFERRED for item in estimates if item.method == name]
    best = estimates[0]
    return preferred[0] if preferred and preferred[0].iou > best.iou - CLEARLY else best


def _judge_3d(best: MethodEstimate, until_gap_mm: float, density: float) -> tuple[bool, str]:
    found = (
        f"{density:.0%} of the slices are annotated, and {best.method} is expected to give the "
        f"others with an IoU of {best.iou:.2f}"
    )
    if not until_gap_mm or best.iou < WORTH_IOU:
        return False, (
            f"{found}: too little to learn from (at least {WORTH_IOU} is asked for). Below it, "
            "interpolated labels cost accuracy even in the narrowest gaps (MSD hippocampus)."
        )
    if density >= ENOUGH_DENSITY_3D:
        return False, (
            f"{found}; with {ENOUGH_DENSITY_3D:.0%} or more, 3D networks learn from the annotated "
            "slices alone, and interpolated ones cost accuracy in two tasks of four "
            "(Zhang et al. 2025, §4.2)."
        )
    return True, (
        f"{found}; with fewer than {ENOUGH_DENSITY_3D:.0%}, a 3D network may not learn from the "
        "annotated slices alone, and interpolated ones then help "
        "(Zhang et al. 2025, §4.2)."
    )
