"""Scores of single slices, and by who drew the reference: what can be said of sparse references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.pairing import (
    LabelPair,
    find_pairs,
    for_each_pair,
    read_sources_beside,
)
from sparseunet.evaluation.summary import to_csv
from sparseunet.evaluation.surfaces import Classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Voxels of one class in one part of a case."""

    both: int
    """Voxels of the class in reference and prediction."""
    only_predicted: int
    only_reference: int

    @property
    def dice(self) -> float:
        """Dice in [0, 1]; NaN if the class is in neither."""
        all_ = 2 * self.both + self.only_predicted + self.only_reference
        return 2 * self.both / all_ if all_ else float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceScores:
    """The scores of one slice that holds annotation; of classes that were looked for."""

    case: str
    axis: int
    """The slice lies across this axis of (z, y, x)."""
    index: int
    num_annotated: int
    """Annotated voxels of the slice; only these are compared."""
    share_annotated: float
    """Share of the voxels of the slice that are annotated."""
    sources: tuple[str, ...]
    """Who drew them, e.g. `("manual",)`."""
    classes: dict[str, Overlap]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseParts:
    """The scores of the parts of one case."""

    case: str
    slices: tuple[SliceScores, ...]
    by_source: dict[str, dict[str, Overlap]]
    """Source to class to overlap on that source's voxels."""


def evaluate_slices(
    references: Path,
    predictions: Path,
    *,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    provenance: Path | None = None,
    cases: Sequence[str] | None = None,
    annotated_classes: Mapping[str, Sequence[str]] | None = None,
) -> tuple[CaseParts, ...]:
    """Score every slice that holds annotation, and the voxels of every source of annotation.

    Files and errors are those of `evaluate`.

    Args:
        references: Folder of label maps.
        predictions: Folder of label maps of the same names.
        labels: What to score, and the value of unannotated reference voxels.
        file_ending: With the dot.
        num_workers: Threads.
        provenance: Folder with a `Source` per voxel in files named as the references; a case
            without such a file counts as drawn by a person.
        cases: Names of the cases to score; all references by default.
        annotated_classes: As in `evaluate`.
    """
    pairs = find_pairs(references, predictions, file_ending=file_ending, cases=cases)

    def score(pair: LabelPair) -> CaseParts:
        reference_ZYX, prediction_ZYX, geometry = pair.read()
        annotation = Annotation.from_label_map(reference_ZYX, ignore=labels.ignore)
        source_ZYX = annotation.source_ZYX
        stated_ZYX = read_sources_beside(pair, provenance, geometry)
        if stated_ZYX is not None:
            source_ZYX = np.where(source_ZYX == Source.NONE, source_ZYX, stated_ZYX)
        case_classes = (annotated_classes or {}).get(pair.name, tuple(labels.foreground))
        return score_parts(
            annotation.labels_ZYX,
            prediction_ZYX,
            source_ZYX=source_ZYX,
            classes={
                name: values for name, values in labels.foreground.items() if name in case_classes
            },
            case=pair.name,
        )

    return for_each_pair(pairs, score, num_workers=num_workers, label="Scoring slices")


def score_parts(
    reference_ZYX: np.ndarray,
    prediction_ZYX: np.ndarray,
    *,
    source_ZYX: np.ndarray,
    classes: Classes,
    case: str,
) -> CaseParts:
    """Score the annotated slices and the sources of one case.

    Args:
        reference_ZYX: Unsigned label map.
        prediction_ZYX: Unsigned label map of the same shape.
        source_ZYX: `Source` per voxel of the reference; where it is none nothing is compared.
        classes: What to score.
        case: Its name.
    """
    axis = find_slice_axis(source_ZYX)
    sides = [np.moveaxis(array, axis, 0) for array in (reference_ZYX, prediction_ZYX, source_ZYX)]
    slices = []
    for index, (reference, prediction, source) in enumerate(zip(*sides, strict=True)):
        annotated = source != Source.NONE
        if annotated.any():
            slices.append(
                SliceScores(
                    case=case,
                    axis=axis,
                    index=index,
                    num_annotated=int(annotated.sum()),
                    share_annotated=float(annotated.mean()),
                    sources=tuple(_name(value) for value in np.unique(source[annotated])),
                    classes=_count(reference[annotated], prediction[annotated], classes),
                )
            )
    by_source = {
        _name(value): _count(
            reference_ZYX[source_ZYX == value], prediction_ZYX[source_ZYX == value], classes
        )
        for value in np.unique(source_ZYX)
        if value != Source.NONE
    }
    return CaseParts(case=case, slices=tuple(slices), by_source=by_source)


def find_slice_axis(source_ZYX: np.ndarray) -> int:
    """Return the axis across which annotated slices are filled best, z if several are (dense)."""
    annotated_ZYX = source_ZYX != Source.NONE
    fills = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        shares = annotated_ZYX.mean(axis=others)
        fills.append(float(shares[shares > 0].mean()) if (shares > 0).any() else 0.0)
    return int(np.argmax(fills))


def parts_to_json(cases: Sequence[CaseParts], *, class_names: Sequence[str]) -> dict[str, Any]:
    """Return means over slices, pooled overlap by source, and every slice."""
    slices = [each for case in cases for each in case.slices]
    sources = sorted({source for case in cases for source in case.by_source})
    return {
        "kind": "slice_scores",
        "version": 1,
        "num_slices": len(slices),
        "mean_slice_dice": {
            name: _mean([each.classes[name].dice for each in slices if name in each.classes])
            for name in class_names
        },
        "num_slices_with_class": {
            name: sum(
                name in each.classes and bool(np.isfinite(each.classes[name].dice))
                for each in slices
            )
            for name in class_names
        },
        "by_source": {
            source: {name: _pool(cases, source, name) for name in class_names} for source in sources
        },
        "slices": [
            {
                "case": each.case,
                "axis": each.axis,
                "slice": each.index,
                "annotated_share": each.share_annotated,
                "sources": each.sources,
                "Dice": {name: overlap.dice for name, overlap in each.classes.items()},
            }
            for each in slices
        ],
    }


def slices_to_csv(cases: Sequence[CaseParts]) -> str:
    """Return a table with one row per annotated slice and class."""
    header = [
        "case",
        "axis",
        "slice",
        "sources",
        "annotated_share",
        "class",
        "Dice",
        "TP",
        "FP",
        "FN",
    ]
    rows = [
        [
            each.case,
            each.axis,
            each.index,
            "+".join(each.sources),
            each.share_annotated,
            name,
            overlap.dice,
            overlap.both,
            overlap.only_predicted,
            overlap.only_reference,
        ]
        for case in cases
        for each in case.slices
        for name, overlap in each.classes.items()
    ]
    return to_csv(header, rows)


def _count(reference: np.ndarray, prediction: np.ndarray, classes: Classes) -> dict[str, Overlap]:
    found = {}
    for name, values in classes.items():
        is_reference, is_predicted = np.isin(reference, values), np.isin(prediction, values)
        found[name] = Overlap(
            both=int((is_reference & is_predicted).sum()),
            only_predicted=int((is_predicted & ~is_reference).sum()),
            only_reference=int((is_reference & ~is_predicted).sum()),
        )
    return found


def _pool(cases: Sequence[CaseParts], source: str, class_name: str) -> Mapping[str, float]:
    overlaps = [
        case.by_source[source][class_name]
        for case in cases
        if class_name in case.by_source.get(source, {})
    ]
    pooled = Overlap(
        both=sum(each.both for each in overlaps),
        only_predicted=sum(each.only_predicted for each in overlaps),
        only_reference=sum(each.only_reference for each in overlaps),
    )
    return {
        "pooled_Dice": pooled.dice,
        "TP": pooled.both,
        "FP": pooled.only_predicted,
        "FN": pooled.only_reference,
    }


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _name(value: int) -> str:
    return Source(int(value)).name.lower()
