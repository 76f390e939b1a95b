"""One case whose missing labels a model fills in, and what can be said about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, read_label_map, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.provenance import manual_only, read_case_annotation, write_provenance
from sparseunet.errors import DatasetError, Severity
from sparseunet.evaluation.per_slice import CaseParts, score_parts
from sparseunet.self_training.teachers import Exposure, Fold

_PERCENT = 100
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class FillingRules:
    """Which predicted labels are accepted."""

    min_confidence: float = 0.0
    """Voxels whose label is less probable stay unannotated; in [0, 1], compared with whole percents
    that were rounded down."""
    replace_interpolated: bool = False
    """Whether a model's labels stand above interpolated ones; manual ones always stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """How much of a class is labelled in a case, and by whom."""

    manual: int
    """Voxels."""
    interpolated: int
    pseudo: int
    confidence_sum: float
    """Sum of the confidence of pseudo-labelled voxels, each in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletedCase:
    """Result of completing one case."""

    case: str
    folds: tuple[Fold, ...]
    """Folds whose networks predicted the case."""
    exposure: Exposure
    classes: dict[str, ClassCounts]
    """Counts of background and all classes or regions."""
    num_unsure: int
    """Voxels left unannotated because their label was not probable enough."""
    num_outside_annotated_classes: int
    """Voxels left unannotated because their class is not among the case's annotated classes."""
    agreement: CaseParts
    """Of the model's labels with the manual ones, where there are any; before these were put back.
    Classes outside the case's annotated classes are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedFiles:
    """Predicted files of one case."""

    labels: Path
    confidence: Path
    """File of the confidence in whole percent."""
    folds: tuple[Fold, ...]
    exposure: Exposure


def read_kept_annotation(
    case: Case, labels: LabelSchema, rules: FillingRules
) -> tuple[Annotation, Geometry]:
    """Read the labels of a case that predicted labels must not replace, and their grid.

    These are the manual and, unless the rules say otherwise, the interpolated ones. Labels that an
    earlier model gave are left out; a case without label file has none.

    Raises:
        DatasetError: A file is damaged, or labels and scan do not lie on one grid.
    """
    geometry = read_geometry(case.images[0])
    if case.label is None:
        empty_ZYX = np.zeros(geometry.shape, np.uint8)
        return Annotation(labels_ZYX=empty_ZYX, source_ZYX=empty_ZYX), geometry
    annotation, own_geometry = read_case_annotation(case, labels)
    problems = compare_grids(
        own_geometry,
        geometry,
        case=case.name,
        file=str(case.label),
        reference_file=case.images[0].name,
    )
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise DatasetError(problems)
    dropped_ZYX = annotation.source_ZYX == Source.PSEUDO
    if rules.replace_interpolated:
        dropped_ZYX |= annotation.source_ZYX == Source.INTERPOLATED
    kept = replace(
        annotation,
        labels_ZYX=np.where(dropped_ZYX, 0, annotation.labels_ZYX).astype(
            annotation.labels_ZYX.dtype
        ),
        source_ZYX=np.where(dropped_ZYX, Source.NONE, annotation.source_ZYX).astype(np.uint8),
    )
    return kept, own_geometry


def complete_case(
    case: Case,
    predicted: PredictedFiles,
    files: Case,
    *,
    labels: LabelSchema,
    ignore: int,
    rules: FillingRules,
    annotated_classes: Sequence[str] | None = None,
) -> CompletedCase:
    """Fill in a model's labels where none stand, and write labels, provenance and confidence.

    Args:
        case: The files as they are.
        predicted: On the grid of the scan.
        files: Where label, provenance and confidence go.
        labels: The classes of the dataset.
        ignore: The value that voxels get that stay unannotated.
        rules: Which labels are taken.
        annotated_classes: Classes or regions that were annotated in this case; None for all.
            Predicted labels of other classes are not taken.

    Raises:
        DatasetError: A file is damaged, or they do not lie on one grid.
    """
    kept, geometry = read_kept_annotation(case, labels, rules)
    predicted_ZYX, _ = read_label_map(predicted.labels)
    percent_ZYX, _ = read_label_map(predicted.confidence)
    free_ZYX = ~kept.annotated_ZYX
    known_ZYX = np.isin(predicted_ZYX, _values(labels, annotated_classes))
    sure_ZYX = percent_ZYX + _ROUNDING >= _PERCENT * rules.min_confidence
    dtype = np.result_type(kept.labels_ZYX, predicted_ZYX, np.min_scalar_type(ignore))
    filled = replace(kept, labels_ZYX=kept.labels_ZYX.astype(dtype)).fill(
        predicted_ZYX,
        known_ZYX & sure_ZYX,
        source=Source.PSEUDO,
        confidence_ZYX=percent_ZYX.astype(np.float32) / np.float32(_PERCENT),
    )
    assert files.label is not None
    assert files.provenance is not None
    assert files.confidence is not None
    write_label_map(files.label, filled.to_label_map(ignore=ignore), geometry)
    write_provenance(filled, geometry, provenance=files.provenance, confidence=files.confidence)
    drawn = manual_only(kept)
    scored = labels.foreground
    if annotated_classes is not None:
        scored = {name: values for name, values in scored.items() if name in annotated_classes}
    return CompletedCase(
        case=case.name,
        folds=predicted.folds,
        exposure=predicted.exposure,
        classes=_count(filled, labels),
        num_unsure=int(np.count_nonzero(free_ZYX & known_ZYX & ~sure_ZYX)),
        num_outside_annotated_classes=int(np.count_nonzero(free_ZYX & ~known_ZYX)),
        agreement=score_parts(
            drawn.labels_ZYX,
            predicted_ZYX,
            source_ZYX=drawn.source_ZYX,
            classes=scored,
            case=case.name,
        ),
    )


def _values(labels: LabelSchema, annotated_classes: Sequence[str] | None) -> list[int]:
    """Return the label values that a case may hold."""
    if annotated_classes is None:
        return list(labels.values)
    named = {value for name in annotated_classes for value in labels.foreground[name]}
    return sorted({0, *named}) if named else []


def _count(annotation: Annotation, labels: LabelSchema) -> dict[str, ClassCounts]:
    counts = {}
    for name, values in {"background": (0,), **labels.foreground}.items():
        source_ZYX = np.where(
            np.isin(annotation.labels_ZYX, values), annotation.source_ZYX, np.uint8(Source.NONE)
        )
        pseudo_ZYX = source_ZYX == Source.PSEUDO
        confidence_ZYX = annotation.confidence_ZYX
        counts[name] = ClassCounts(
            manual=int(np.count_nonzero(source_ZYX == Source.MANUAL)),
            interpolated=int(np.count_nonzero(source_ZYX == Source.INTERPOLATED)),
            pseudo=int(np.count_nonzero(pseudo_ZYX)),
            confidence_sum=float(
                0.0
                if confidence_ZYX is None
                else confidence_ZYX.sum(where=pseudo_ZYX, dtype=np.float64)
            ),
        )
    return counts
