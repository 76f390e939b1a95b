"""Score a folder of predictions against a folder of references."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.data.annotation import Source
from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.find_labels import find_labels
from sparseunet.evaluation.metrics import DEFAULT_TOLERANCE_MM, find_values, score_label_maps
from sparseunet.evaluation.pairing import (
    LabelPair,
    find_pairs,
    for_each_pair,
    read_sources_beside,
)
from sparseunet.evaluation.reference_annotation import (
    ReferenceAnnotation,
    find_reference_annotation,
)
from sparseunet.evaluation.scores import CaseScores, Scores
from sparseunet.evaluation.summary import scores_to_csv, scores_to_json
from sparseunet.machine import processors

_logger = logging.getLogger(__name__)


def evaluate(
    references: Path | str,
    predictions: Path | str,
    *,
    labels: LabelSchema | None = None,
    file_ending: str | None = None,
    num_workers: int | None = None,
    cases: Sequence[str] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    annotation: ReferenceAnnotation | None = None,
) -> Scores:
    """Score every case of a folder of reference label maps.

    Only voxels that a person annotated in the reference count.

    Args:
        references: Folder of label maps named CASE + file_ending.
        predictions: Folder of label maps of the same names; others are left out with a warning.
        labels: What to score, and the value of unannotated reference voxels; None takes the
            `dataset.json` beside the predictions, or in or above the references.
        file_ending: With the dot, e.g. `.nii.gz`; None as `labels`.
        num_workers: Threads; None for one per processor.
        cases: Names of the cases to score; all references by default.
        tolerance_mm: Of the normalised surface Dice.
        annotation: What no person drew, and classes that nobody looked for; None takes what lies
            beside the references of a raw dataset, if anything does.

    Raises:
        RequestError: There is no reference, or predictions are missing; lists every missing file.
        DatasetError: A file cannot be read, or a prediction has another shape or spacing than its
            reference; lists every such file. Another origin or direction is logged: voxels are
            matched by index, as everywhere.
    """
    references, predictions = Path(references), Path(predictions)
    if labels is None or file_ending is None:
        found = find_labels(
            [predictions, references, references.resolve().parent],
            label_maps=references,
            dataset_json=None,
            values=None,
            ignore=None,
        )
        labels, file_ending = labels or found[0], file_ending or found[1]
    known = annotation or find_reference_annotation(
        references, annotation=None, provenance=None, labels=labels, file_ending=file_ending
    )
    pairs = find_pairs(references, predictions, file_ending=file_ending, cases=cases)

    def score(pair: LabelPair) -> CaseScores:
        return _score_case(
            pair,
            labels=labels,
            tolerance_mm=tolerance_mm,
            annotation=known,
        )

    results = for_each_pair(pairs, score, num_workers=num_workers or processors(), label="Scoring")
    undeclared = [case for case in results if case.undeclared_values]
    if undeclared:
        _logger.warning(
            "%d references hold values that belong to no class and count as background, e.g. %s in "
            "%s; if they mark unannotated voxels, declare the ignore label",
            len(undeclared),
            ", ".join(map(str, undeclared[0].undeclared_values)),
            undeclared[0].reference,
        )
    wrong_predictions = [case for case in results if case.undeclared_predicted_values]
    if wrong_predictions:
        _logger.warning(
            "%d predictions hold values that belong to no class and count as background, e.g. %s "
            "in %s; were they made for other classes?",
            len(wrong_predictions),
            ", ".join(map(str, wrong_predictions[0].undeclared_predicted_values)),
            wrong_predictions[0].prediction,
        )
    return Scores(classes=labels.foreground, cases=results, tolerance_mm=tolerance_mm)


def write_scores(path: Path, scores: Scores) -> None:
    """Write `summary.json` and, beside it, a table with one row per case and class (`.csv`)."""
    write_json(path, scores_to_json(scores))
    with atomic_path(path.with_suffix(".csv")) as temporary:
        temporary.write_text(scores_to_csv(scores), encoding="utf-8", newline="")


def _score_case(
    pair: LabelPair,
    *,
    labels: LabelSchema,
    tolerance_mm: float,
    annotation: ReferenceAnnotation,
) -> CaseScores:
    """Score one prediction in the voxels that a person annotated.

    Reference voxels that provenance says are not manual become unannotated; classes that were not
    annotated in the case are left out.
    """
    reference_ZYX, prediction_ZYX, geometry = pair.read()
    found, predicted = (set(find_values(map_).tolist()) for map_ in (reference_ZYX, prediction_ZYX))
    declared = {*labels.values, labels.ignore}
    classes, ignore = labels.foreground, labels.ignore
    annotated_classes = annotation.classes.get(pair.name)
    if annotated_classes is not None:
        classes = {name: values for name, values in classes.items() if name in annotated_classes}
    source_ZYX = read_sources_beside(pair, annotation.provenance, geometry)
    if source_ZYX is not None:
        if ignore is None:
            ignore = max(*labels.values, *found) + 1
        reference_ZYX = np.where(
            source_ZYX == Source.MANUAL,
            reference_ZYX,
            np.promote_types(reference_ZYX.dtype, np.min_scalar_type(ignore)).type(ignore),
        )
    return CaseScores(
        name=pair.name,
        reference=pair.reference,
        prediction=pair.prediction,
        classes=score_label_maps(
            reference_ZYX,
            prediction_ZYX,
            classes=classes,
            spacing_mm=geometry.spacing_mm,
            ignore=ignore,
            tolerance_mm=tolerance_mm,
        ),
        is_sparse=ignore is not None and bool((reference_ZYX == ignore).any()),
        not_annotated=tuple(name for name in labels.foreground if name not in classes),
        undeclared_values=tuple(sorted(found - declared)),
        undeclared_predicted_values=tuple(sorted(predicted - declared)),
    )
