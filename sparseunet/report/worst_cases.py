"""The worst cases of an evaluation as one HTML page that needs nothing beside it."""

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.artifacts import atomic_path
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Severity
from sparseunet.evaluation.pairing import LabelPair, read_sources_beside
from sparseunet.evaluation.per_slice import find_slice_axis
from sparseunet.evaluation.scores import METRICS, CaseScores, Scores
from sparseunet.report.overlay import OverlayRow, draw_slice_overlay

_COLUMNS = ("Dice", "HD95", "ASSD", "NSD", "VolumeError")
_MARGIN_VOXELS = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; max-width: 1000px; margin: 2em auto }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .35em .9em; border-bottom: 1px solid #e2e5eb; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } p.note { color: #6e7684 }
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorstSlice:
    """The slice of a case in which most annotated voxels are wrong."""

    axis: int
    index: int
    num_wrong: int
    reference_YX: np.ndarray
    """Label map of the slice; 0 where nothing is annotated."""
    prediction_YX: np.ndarray
    wrong_YX: np.ndarray
    """bool, annotated voxels whose prediction differs."""


def write_worst_cases(
    path: Path,
    scores: Scores,
    *,
    labels: LabelSchema,
    images: Mapping[str, Path] | None = None,
    num_cases: int = 5,
    provenance: Path | None = None,
) -> None:
    """Write a page with the mean scores and, for the worst cases, their worst slice.

    Args:
        path: The HTML file, whole or not at all; pictures are inside it.
        scores: What `evaluate` returned; its files are read again.
        labels: As given to `evaluate`.
        images: Case name to the first channel of its scan; without it slices are drawn on grey.
        num_cases: How many, those of lowest mean foreground Dice first. Cases without any Dice (no
            class in either map) and cases without error are not shown.
        provenance: As given to `evaluate`.
    """
    worst = rank_cases(scores)[:num_cases]
    shown = [(case, find_worst_slice(case, labels=labels, provenance=provenance)) for case in worst]
    rows = [
        _draw_row(case, at, image=(images or {}).get(case.name))
        for case, at in shown
        if at.num_wrong
    ]
    picture = _as_png(rows, labels) if rows else None
    with atomic_path(path) as temporary:
        temporary.write_text(_page(scores, picture, num_shown=len(rows)), encoding="utf-8")


def rank_cases(scores: Scores) -> list[CaseScores]:
    """Return the cases by mean foreground Dice, the lowest first; those without are left out."""
    with_dice = [(_mean_dice(case), case) for case in scores.cases]
    defined = [(dice, case) for dice, case in with_dice if np.isfinite(dice)]
    return [case for _, case in sorted(defined, key=lambda pair: (pair[0], pair[1].name))]


def find_worst_slice(
    case: CaseScores, *, labels: LabelSchema, provenance: Path | None = None
) -> WorstSlice:
    """Return the slice with most wrong voxels; unannotated ones and unscored classes do not count.

    Slices lie across the axis of fewest voxels, which gives the largest pictures, or across the
    axis that a sparse reference was annotated across.
    """
    pair = LabelPair(name=case.name, reference=case.reference, prediction=case.prediction)
    reference_ZYX, prediction_ZYX, geometry = pair.read()
    annotation = Annotation.from_label_map(reference_ZYX, ignore=labels.ignore)
    source_ZYX = read_sources_beside(pair, provenance, geometry)
    if source_ZYX is not None:
        drawn_ZYX = annotation.annotated_ZYX & (source_ZYX == Source.MANUAL)
        annotation = Annotation(
            labels_ZYX=np.where(drawn_ZYX, reference_ZYX, 0).astype(reference_ZYX.dtype),
            source_ZYX=drawn_ZYX.astype(np.uint8),
        )
    axis = find_slice_axis(annotation.source_ZYX)
    if annotation.is_dense:
        axis = int(np.argmin(reference_ZYX.shape))
    scored = [labels.foreground[name] for name in case.classes]
    shown = sorted({value for values in scored for value in values})
    reference_ZYX, prediction_ZYX = (
        np.where(np.isin(labels_ZYX, shown), labels_ZYX, 0)
        for labels_ZYX in (annotation.labels_ZYX, prediction_ZYX)
    )
    wrong_ZYX = np.zeros(reference_ZYX.shape, bool)
    for values in scored:
        wrong_ZYX |= np.isin(reference_ZYX, values) != np.isin(prediction_ZYX, values)
    wrong_ZYX &= annotation.annotated_ZYX
    others = tuple(other for other in range(3) if other != axis)
    num_wrong = wrong_ZYX.sum(axis=others)
    index = int(np.argmax(num_wrong))
    return WorstSlice(
        axis=axis,
        index=index,
        num_wrong=int(num_wrong[index]),
        reference_YX=reference_ZYX.take(index, axis),
        prediction_YX=prediction_ZYX.take(index, axis),
        wrong_YX=wrong_ZYX.take(index, axis),
    )


def _mean_dice(case: CaseScores) -> float:
    defined = [each.dice for each in case.classes.values() if np.isfinite(each.dice)]
    return float(np.mean(defined)) if defined else float("nan")


def _draw_row(case: CaseScores, at: WorstSlice, *, image: Path | None) -> OverlayRow:
    geometry = read_geometry(case.reference)
    image_YX = np.zeros(at.reference_YX.shape, np.float32)
    if image is not None:
        image_YX = _read_slice(image, geometry, case, at)
    box = _box_around((at.reference_YX > 0) | (at.prediction_YX > 0) | at.wrong_YX)
    either_YX = np.where(at.reference_YX > 0, at.reference_YX, at.prediction_YX)
    spacing_mm = [step for axis, step in enumerate(geometry.spacing_mm) if axis != at.axis]
    return OverlayRow(
        title=f"{case.name}\nDice {_mean_dice(case):.3f}\nslice {at.index} across "
        f"{'zyx'[at.axis]}\n{at.num_wrong} voxels wrong",
        image_YX=image_YX[box],
        overlays={
            "Reference": at.reference_YX[box],
            "Prediction": at.prediction_YX[box],
            "Wrong voxels": np.where(at.wrong_YX, either_YX, 0)[box],
        },
        spacing_mm=(spacing_mm[0], spacing_mm[1]),
    )


def _read_slice(path: Path, geometry: Geometry, case: CaseScores, at: WorstSlice) -> np.ndarray:
    scan = read_image([path])
    problems = compare_grids(
        scan.geometry,
        geometry,
        case=case.name,
        file=str(path),
        reference_file=f"the reference {case.reference}",
    )
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise DatasetError(problems)
    return scan.voxels_CZYX[0].take(at.index, at.axis)


def _box_around(mask_YX: np.ndarray) -> tuple[slice, slice]:
    """Return the rectangle around a mask with a margin; it is not empty."""
    bounds = []
    for axis in (0, 1):
        found = np.flatnonzero(mask_YX.any(axis=1 - axis))
        first, last = int(found[0]), int(found[-1])
        bounds.append(slice(max(0, first - _MARGIN_VOXELS), last + 1 + _MARGIN_VOXELS))
    return bounds[0], bounds[1]


def _as_png(rows: Sequence[OverlayRow], labels: LabelSchema) -> bytes:
    names = {} if labels.has_regions else {value: name for name, value in labels.classes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "worst.png"
        draw_slice_overlay(path, rows, class_names=names or None)
        return path.read_bytes()


def _page(scores: Scores, picture: bytes | None, *, num_shown: int) -> str:
    figure = "<p>No case has a wrong voxel.</p>"
    if picture is not None:
        encoded = base64.b64encode(picture).decode("ascii")
        figure = (
            '<p class="note">Wrong voxels have the colour of the class that the reference has '
            "there or, where it has none, the prediction.</p>\n"
            f'<img alt="worst slices" src="data:image/png;base64,{encoded}">'
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head><body><h1>Evaluation</h1>\n{_table(scores)}\n"
        f'<p class="note">{len(scores.cases)} cases. Mean over cases, in brackets the 95 % '
        f"bootstrap interval. NSD within {scores.tolerance_mm:g} mm."
        f"{html.escape(_not_annotated(scores))}</p>\n"
        f"<h2>The {num_shown} worst cases, each in its worst slice</h2>\n{figure}</body></html>\n"
    )


def _not_annotated(scores: Scores) -> str:
    counts = {name: scores.num_not_annotated(name) for name in scores.classes}
    found = ", ".join(f"{name} in {count} cases" for name, count in counts.items() if count)
    return f" Not annotated, and left out: {found}." if found else ""


def _table(scores: Scores) -> str:
    head = "".join(f"<th>{name} {METRICS[name].unit}</th>" for name in _COLUMNS)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(scores, name, metric)}</td>" for metric in _COLUMNS)
        + "</tr>\n"
        for name in scores.classes
    )
    return f"<table><tr><th>class</th>{head}</tr>\n{body}</table>"


def _cell(scores: Scores, class_name: str, metric: str) -> str:
    mean = scores.mean(class_name, metric)
    if not np.isfinite(mean):
        return "–"
    digits = 2 if METRICS[metric].unit else 3
    low, high = scores.interval_95(class_name, metric)
    interval = f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return f"{mean:.{digits}f}{interval}"
