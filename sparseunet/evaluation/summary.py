"""Scores as nnU-Net's `summary.json`, with what it lacks beside it, and as a table."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np

from sparseunet.evaluation.scores import (
    METRICS,
    NNUNET_METRICS,
    OUR_METRICS,
    SUMMARISED,
    CaseScores,
    Metric,
    Scores,
)
from sparseunet.evaluation.statistics import NUM_DRAWS, SEED

DEFINITIONS = {
    "HD": "mm; largest distance between voxel surfaces",
    "HD95": "mm; 95th percentile of the distances between voxel surfaces, larger direction",
    "ASSD": "mm; mean distance between voxel surfaces, both directions together; also called ADB",
    "AHD": "mm; average Hausdorff: mean of the mean distances of the two directions",
    "NSD": "share of surface voxels within tolerance_mm of the other surface",
    "VolumeError": "ml; predicted less reference volume",
    "RelativeVolumeError": "per cent; predicted less reference volume over the reference's",
    "pooled_IoU": "one intersection over one union over all cases together",
    "hvsmr_overall_score": "sum over classes of Dice/2 - ASSD/4 - HD/30, from the means",
    "interval_95": f"percentile bootstrap of the mean, {NUM_DRAWS} draws of cases, seed {SEED}",
    "n_valid": "number of cases behind a mean",
    "one_sided": "class in one of both maps only: Dice and NSD 0, distances the image's diagonal",
    "absent": "class in neither map: every ratio, volume and distance NaN, left out of means",
    "not_annotated": "class that nobody looked for in the case: not scored, left out of everything",
    "sparse_reference": "unannotated voxels do not count; volumes and distances not estimable, NaN",
}


def scores_to_json(scores: Scores) -> dict[str, Any]:
    """Return nnU-Net's `summary.json`, with what it lacks beside it under `sparseunet`.

    Undefined values are NaN (written as `NaN`, as nnU-Net does).
    """
    return {
        "foreground_mean": {metric: scores.foreground_mean(metric) for metric in NNUNET_METRICS},
        "mean": {
            label_key(values): {metric: scores.mean(name, metric) for metric in NNUNET_METRICS}
            for name, values in scores.classes.items()
        },
        "metric_per_case": [
            {
                "metrics": _metrics_of(case, scores, NNUNET_METRICS),
                "prediction_file": str(case.prediction),
                "reference_file": str(case.reference),
            }
            for case in scores.cases
        ],
        "sparseunet": _our_summary(scores),
    }


def scores_to_csv(scores: Scores) -> str:
    """Return a table with one row per case and class; undefined values are empty cells.

    The last column says `not annotated` where nobody looked for the class in the case.
    """
    columns = [f"{name}_{metric.unit}" if metric.unit else name for name, metric in METRICS.items()]
    rows = [
        [case.name, name, label_key(scores.classes[name]), *_numbers(case, name)]
        for case in scores.cases
        for name in scores.classes
    ]
    return to_csv(["case", "class", "label", *columns, "note"], rows)


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; NaN and None are empty cells."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            ["" if isinstance(cell, float) and np.isnan(cell) else cell for cell in row]
        )
    return stream.getvalue()


def label_key(values: tuple[int, ...]) -> str:
    """Return nnU-Net's key of a class (`1`) or of a region (`(1, 2)`)."""
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def _numbers(case: CaseScores, class_name: str) -> list[Any]:
    """Return every metric, and a note."""
    result = case.classes.get(class_name)
    if result is None:
        return [*(float("nan") for _ in METRICS), "not annotated"]
    return [*(metric.measure(result) for metric in METRICS.values()), ""]


def _metrics_of(
    case: CaseScores, scores: Scores, metrics: Mapping[str, Metric]
) -> dict[str, dict[str, float]]:
    """Return the metrics by class; of a class that is not annotated all are NaN.

    nnU-Net's own tools take means over the cases that way, and leave NaN out.
    """

    def measure(name: str, metric: Metric) -> float:
        result = case.classes.get(name)
        return float("nan") if result is None else metric.measure(result)

    return {
        label_key(values): {key: measure(name, metric) for key, metric in metrics.items()}
        for name, values in scores.classes.items()
    }


def _our_summary(scores: Scores) -> dict[str, Any]:
    """Return what nnU-Net's summary has no place for."""
    keys = {name: label_key(values) for name, values in scores.classes.items()}

    def by_class(measure: Any) -> dict[str, dict[str, Any]]:
        return {
            key: {metric: measure(name, metric) for metric in SUMMARISED}
            for name, key in keys.items()
        }

    return {
        "kind": "scores",
        "version": 2,
        "definitions": DEFINITIONS,
        "tolerance_mm": scores.tolerance_mm,
        "num_cases": len(scores.cases),
        "num_sparse_references": sum(case.is_sparse for case in scores.cases),
        "class_names": {key: name for name, key in keys.items()},
        "hvsmr_overall_score": scores.hvsmr_overall_score,
        "foreground_mean": {metric: scores.foreground_mean(metric) for metric in OUR_METRICS},
        "foreground_interval_95": {
            metric: scores.foreground_interval_95(metric) for metric in SUMMARISED
        },
        "mean": {
            key: {
                **{metric: scores.mean(name, metric) for metric in OUR_METRICS},
                "pooled_IoU": scores.pooled_iou(name),
            }
            for name, key in keys.items()
        },
        "standard_deviation": by_class(scores.standard_deviation),
        "median": by_class(scores.median),
        "interval_95": by_class(scores.interval_95),
        "n_valid": by_class(scores.num_valid),
        "num_cases_where": {key: _count_special(scores, name) for name, key in keys.items()},
        "metric_per_case": [
            {
                "case": case.name,
                "sparse_reference": case.is_sparse,
                "not_annotated": [keys[name] for name in case.not_annotated],
                "metrics": _metrics_of(case, scores, OUR_METRICS),
            }
            for case in scores.cases
        ],
    }


def _count_special(scores: Scores, class_name: str) -> dict[str, int]:
    results = [case.classes[class_name] for case in scores.cases if class_name in case.classes]
    return {
        "not_annotated": scores.num_not_annotated(class_name),
        "missed": sum(result.is_one_sided and not result.num_predicted for result in results),
        "invented": sum(result.is_one_sided and not result.num_reference for result in results),
        "absent": sum(result.num_predicted == 0 == result.num_reference for result in results),
    }
