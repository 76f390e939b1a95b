"""Whether one folder of predictions is better than another, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparseunet.errors import RequestError
from sparseunet.evaluation.scores import METRICS, SUMMARISED, Scores
from sparseunet.evaluation.statistics import (
    NUM_DRAWS,
    SEED,
    holm,
    mean_interval_95,
    wilcoxon_p,
)
from sparseunet.evaluation.summary import to_csv

DEFAULT_METRICS = ("Dice", "HD95", "NSD")
FEWEST_PAIRS = 6
"""With fewer unequal pairs no outcome of the test reaches p < .05: 2 / 2⁵ = .0625."""
RULES = {
    "difference": "B less A; of volume errors, without their signs",
    "rightly_empty": "the reference lacks the class, one of both predicted it: the other counts as "
    "perfect (Dice and NSD 1, distances and volume error 0)",
    "left_out": "cases where the metric is defined for neither",
    "interval_95": f"percentile bootstrap of the mean difference, {NUM_DRAWS} draws of cases, "
    f"seed {SEED}",
    "p": "Wilcoxon's signed-rank test, two-sided; equal pairs are left out",
    "p_holm": "corrected after Holm for all tests of this comparison",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedComparison:
    """One metric of one class, compared over the cases of both folders."""

    class_name: str
    metric: str
    num_pairs: int
    """Cases that entered; the others have no value in either folder."""
    num_rightly_empty: int
    """Of these, cases without the class in the reference where exactly one folder predicted it."""
    mean_a: float
    """Over the pairs; so are all that follow. NaN without any pair."""
    mean_b: float
    mean_difference: float
    """Mean difference, B minus A."""
    interval_95: tuple[float, float]
    """Of the mean difference; NaN with fewer than two pairs."""
    num_b_better: int
    num_b_worse: int
    num_equal: int
    p: float
    """p-value; NaN without any pair."""
    p_holm: float

    @property
    def is_too_small(self) -> bool:
        """Whether no outcome could have reached p < .05."""
        return self.num_b_better + self.num_b_worse < FEWEST_PAIRS


def compare_scores(
    scores_a: Scores, scores_b: Scores, *, metrics: Sequence[str] = DEFAULT_METRICS
) -> tuple[PairedComparison, ...]:
    """Compare two sets of scores on the same cases, for every class and metric.

    Args:
        scores_a: Of the first folder.
        scores_b: Of the second folder, against the same references.
        metrics: Names in `SUMMARISED`. Every one of them is a test that Holm's correction counts.

    Raises:
        RequestError: Cases or classes differ (names those in one set only), or there is no such
            metric.
    """
    unknown = [name for name in metrics if name not in SUMMARISED]
    if unknown or not metrics:
        raise RequestError(
            f"No metric {', '.join(unknown) or 'at all'}; expected some of {', '.join(SUMMARISED)}."
        )
    _require_same(
        "cases", [case.name for case in scores_a.cases], [case.name for case in scores_b.cases]
    )
    _require_same("classes", list(scores_a.classes), list(scores_b.classes))
    found = [
        _compare(scores_a, scores_b, class_name=class_name, metric=metric)
        for class_name in scores_a.classes
        for metric in dict.fromkeys(metrics)
    ]
    corrected = holm([each.p for each in found])
    return tuple(replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True))


def comparison_to_json(
    comparisons: Sequence[PairedComparison], *, folder_a: str, folder_b: str, num_cases: int
) -> dict[str, Any]:
    """Return the comparison with its rules and what was compared."""
    return {
        "kind": "comparison",
        "version": 1,
        "a": folder_a,
        "b": folder_b,
        "num_cases": num_cases,
        "definitions": RULES,
        "comparisons": list(comparisons),
    }


def differences_to_csv(
    scores_a: Scores, scores_b: Scores, comparisons: Sequence[PairedComparison]
) -> str:
    """Return a table with A, B and their difference per case, class and metric."""
    rows = []
    for each in comparisons:
        pairs = _paired_values(
            scores_a,
            scores_b,
            class_name=each.class_name,
            metric=each.metric,
        )
        names = [case.name for case in scores_a.cases]
        for name, a, b in zip(names, pairs.a.tolist(), pairs.b.tolist(), strict=True):
            rows.append([name, each.class_name, each.metric, a, b, b - a])
    return to_csv(["case", "class", "metric", "a", "b", "difference"], rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    a: np.ndarray
    b: np.ndarray
    num_rightly_empty: int


def _require_same(what: str, of_a: list[str], of_b: list[str]) -> None:
    if of_a == of_b:
        return
    only_a = ", ".join(name for name in of_a if name not in of_b) or "none"
    only_b = ", ".join(name for name in of_b if name not in of_a) or "none"
    raise RequestError(
        f"The two folders have different {what}, so they cannot be compared case by case: only in "
        f"A: {only_a}; only in B: {only_b}. Predict what is missing, or name common ones."
    )


def _paired_values(scores_a: Scores, scores_b: Scores, *, class_name: str, metric: str) -> _Pairs:
    """Return both values of every case, perfect for the one that is rightly empty; else NaN."""
    a, b = scores_a.values(class_name, metric), scores_b.values(class_name, metric)
    if METRICS[metric].best == "zero":
        a, b = np.abs(a), np.abs(b)
    has_no_reference = np.array(
        [
            class_name in case.classes and case.classes[class_name].num_reference == 0
            for case in scores_a.cases
        ]
    )
    only_one = has_no_reference & (np.isfinite(a) != np.isfinite(b))
    a = np.where(only_one & ~np.isfinite(a), METRICS[metric].perfect, a)
    b = np.where(only_one & ~np.isfinite(b), METRICS[metric].perfect, b)
    return _Pairs(a=a, b=b, num_rightly_empty=int(only_one.sum()))


def _compare(
    scores_a: Scores, scores_b: Scores, *, class_name: str, metric: str
) -> PairedComparison:
    pairs = _paired_values(scores_a, scores_b, class_name=class_name, metric=metric)
    is_pair = np.isfinite(pairs.a) & np.isfinite(pairs.b)
    a, b = pairs.a[is_pair], pairs.b[is_pair]
    differences = b - a
    gains = differences if METRICS[metric].best == "high" else -differences
    return PairedComparison(
        class_name=class_name,
        metric=metric,
        num_pairs=len(differences),
        num_rightly_empty=pairs.num_rightly_empty,
        mean_a=float(a.mean()) if a.size else np.nan,
        mean_b=float(b.mean()) if a.size else np.nan,
        mean_difference=float(differences.mean()) if a.size else np.nan,
        interval_95=mean_interval_95(differences),
        num_b_better=int((gains > 0).sum()),
        num_b_worse=int((gains < 0).sum()),
        num_equal=int((gains == 0).sum()),
        p=wilcoxon_p(differences) if a.size else np.nan,
        p_holm=np.nan,
    )
