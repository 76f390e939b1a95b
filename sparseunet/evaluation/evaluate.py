"""Score a folder of predictions against a folder of references."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.metrics import DEFAULT_TOLERANCE_MM, find_values, score_label_maps
from sparseunet.evaluation.pairing import LabelPair, find_pairs, for_each_pair
from sparseunet.evaluation.scores import CaseScores, Scores
from sparseunet.evaluation.summary import scores_to_csv, scores_to_json

_logger = logging.getLogger(__name__)


def evaluate(
    references: Path,
    predictions: Path,
    *,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    cases: Sequence[str] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> Scores:
    """Score every case of a folder of reference label maps.

    Only voxels that are annotated in the reference count.

    Args:
        references: Folder of label maps named CASE + file_ending.
        predictions: Folder of label maps of the same names; others are left out with a warning.
        labels: What to score, and the value of unannotated reference voxels.
        file_ending: With the dot, e.g. `.nii.gz`.
        num_workers: Threads.
        cases: Names of the cases to score; all references by default.
        tolerance_mm: Of the normalised surface Dice.

    Raises:
        RequestError: There is no reference, or predictions are missing; lists every missing file.
        DatasetError: A file cannot be read, or a prediction has another shape or spacing than its
            reference; lists every such file. Another origin or direction is logged: voxels are
            matched by index, as everywhere.
    """
    pairs = find_pairs(references, predictions, file_ending=file_ending, cases=cases)

    def score(pair: LabelPair) -> CaseScores:
        return _score_case(pair, labels=labels, tolerance_mm=tolerance_mm)

    results = for_each_pair(pairs, score, num_workers=num_workers, label="Scoring")
    undeclared = [case for case in results if case.undeclared_values]
    if undeclared:
        _logger.warning(
            "%d references hold values that belong to no class and count as background, e.g. %s in "
            "%s; if they mark unannotated voxels, declare the ignore label",
            len(undeclared),
            ", ".join(map(str, undeclared[0].undeclared_values)),
            undeclared[0].reference,
        )
    return Scores(classes=labels.foreground, cases=results, tolerance_mm=tolerance_mm)


def write_scores(path: Path, scores: Scores) -> None:
    """Write `summary.json` and, beside it, a table with one row per case and class (`.csv`)."""
    write_json(path, scores_to_json(scores))
    with atomic_path(path.with_suffix(".csv")) as temporary:
        temporary.write_text(scores_to_csv(scores), encoding="utf-8", newline="")


def _score_case(pair: LabelPair, *, labels: LabelSchema, tolerance_mm: float) -> CaseScores:
    reference_ZYX, prediction_ZYX, geometry = pair.read()
    found = set(find_values(reference_ZYX).tolist())
    return CaseScores(
        name=pair.name,
        reference=pair.reference,
        prediction=pair.prediction,
        classes=score_label_maps(
            reference_ZYX,
            prediction_ZYX,
            classes=labels.foreground,
            spacing_mm=geometry.spacing_mm,
            ignore=labels.ignore,
            tolerance_mm=tolerance_mm,
        ),
        is_sparse=labels.ignore in found,
        undeclared_values=tuple(sorted(found - {*labels.values, labels.ignore})),
    )
