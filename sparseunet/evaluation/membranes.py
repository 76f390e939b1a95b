"""How well a membrane separates what it surrounds: the Rand F-score (Z20).

Objects are the connected pieces (across faces) of everything that is not membrane. Of all pairs of
voxels that lie in objects of the reference,

    merge   of the pairs in one predicted object, the share in one reference object
    split   of the pairs in one reference object, the share in one predicted object
    F       the harmonic mean of both

A gap of one voxel in a membrane merges two objects and costs much of the F-score, and hardly any
Dice. Restricted to the reference's objects, so that the width of the membrane matters little; a
predicted membrane voxel inside an object is an object of its own there. These are the rules of the
ISBI 2012 and SNEMI3D challenges, after which the EM data of Z20 is scored.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from sparseunet.evaluation.pairing import LabelPair, find_pairs, for_each_pair
from sparseunet.evaluation.summary import to_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class RandScores:
    """The Rand scores of one case, in [0, 1]; NaN where there is no pair of voxels to judge."""

    case: str
    merge: float
    """Rand merge score in [0, 1]; lower where objects are merged."""
    split: float
    """Rand split score in [0, 1]; lower where objects are split."""
    f_score: float


def evaluate_membranes(
    references: Path,
    predictions: Path,
    *,
    membrane: int,
    ignore: int | None,
    file_ending: str,
    num_workers: int,
    cases: Sequence[str] | None = None,
    not_annotated: Collection[str] = (),
) -> tuple[RandScores, ...]:
    """Score how well predicted membranes separate objects, for every case of a folder.

    Files and errors are those of `evaluate`.

    Args:
        references: Folder of label maps.
        predictions: Folder of label maps of the same names.
        membrane: Label value of the membrane.
        ignore: Value of unannotated reference voxels; a case that has any gets NaN, because its
            objects are not known.
        file_ending: With the dot.
        num_workers: Threads.
        cases: Names of the cases to score; all references by default.
        not_annotated: Cases in which nobody looked for the membrane; they get NaN.
    """
    pairs = find_pairs(references, predictions, file_ending=file_ending, cases=cases)

    def score(pair: LabelPair) -> RandScores:
        reference_ZYX, prediction_ZYX, _ = pair.read()
        is_sparse = ignore is not None and bool((reference_ZYX == ignore).any())
        if is_sparse or pair.name in not_annotated:
            return RandScores(case=pair.name, merge=np.nan, split=np.nan, f_score=np.nan)
        objects = [find_objects(labels != membrane) for labels in (reference_ZYX, prediction_ZYX)]
        return score_objects(*objects, case=pair.name)

    return for_each_pair(pairs, score, num_workers=num_workers, label="Comparing objects")


def find_objects(inside_ZYX: np.ndarray) -> np.ndarray:
    """Number the pieces of a bool mask that are connected across faces from 1; 0 is outside."""
    objects_ZYX, _ = ndimage.label(inside_ZYX)
    return np.asarray(objects_ZYX)


def score_objects(
    reference_ZYX: np.ndarray, prediction_ZYX: np.ndarray, *, case: str = ""
) -> RandScores:
    """Compare two maps of numbered objects, 0 being none, on the objects of the reference."""
    is_object = reference_ZYX > 0
    reference, prediction = reference_ZYX[is_object], prediction_ZYX[is_object]
    num_predicted = int(prediction.max(initial=0)) + 1
    codes = reference.astype(np.int64) * num_predicted + prediction
    _, sizes = np.unique(codes[prediction > 0], return_counts=True)
    together = _num_pairs(sizes)
    in_prediction = _num_pairs(np.bincount(prediction[prediction > 0]))
    in_reference = _num_pairs(np.bincount(reference))
    either = in_prediction + in_reference
    return RandScores(
        case=case,
        merge=together / in_prediction if in_prediction else np.nan,
        split=together / in_reference if in_reference else np.nan,
        f_score=2 * together / either if either else np.nan,
    )


def rand_to_json(scores: Sequence[RandScores], *, membrane: str) -> dict[str, Any]:
    """Return the scores of all cases and their means over the cases that have any."""
    valid = [each for each in scores if np.isfinite(each.f_score)]
    return {
        "kind": "rand_scores",
        "version": 1,
        "membrane": membrane,
        "n_valid": len(valid),
        "mean": {
            name: float(np.mean([getattr(each, name) for each in valid])) if valid else np.nan
            for name in ("merge", "split", "f_score")
        },
        "cases": list(scores),
    }


def rand_to_csv(scores: Sequence[RandScores]) -> str:
    """Return a table with one row per case."""
    rows = [[each.case, each.merge, each.split, each.f_score] for each in scores]
    return to_csv(["case", "merge", "split", "f_score"], rows)


def _num_pairs(sizes: np.ndarray) -> float:
    """Return how many pairs of voxels lie in one object."""
    return float(np.sum(sizes.astype(np.float64) * (sizes - 1.0)) / 2)
