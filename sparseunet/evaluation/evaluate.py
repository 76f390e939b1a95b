"""Score a folder of predictions against a folder of references."""

import csv
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, read_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.evaluation.metrics import ClassScores, find_values, score_label_maps
from sparseunet.progress import track

_logger = logging.getLogger(__name__)

NNUNET_METRICS: dict[str, Callable[[ClassScores], float]] = {
    "Dice": lambda scores: scores.dice,
    "FN": lambda scores: scores.num_false_negatives,
    "FP": lambda scores: scores.num_false_positives,
    "IoU": lambda scores: scores.iou,
    "TN": lambda scores: scores.num_true_negatives,
    "TP": lambda scores: scores.num_true_positives,
    "n_pred": lambda scores: scores.num_predicted,
    "n_ref": lambda scores: scores.num_reference,
}
"""What nnU-Net's `summary.json` holds, under its names."""

DISTANCE_METRICS: dict[str, Callable[[ClassScores], float]] = {
    "HD95": lambda scores: scores.hd95_mm,
    "ASSD": lambda scores: scores.assd_mm,
}
"""What nnU-Net does not measure, in mm."""

METRICS = NNUNET_METRICS | DISTANCE_METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """The scores of one case."""

    name: str
    reference: Path
    prediction: Path
    classes: dict[str, ClassScores]
    """By class or region name, in the order of the dataset."""
    is_sparse: bool
    """Whether some voxels of the reference are unannotated: overlap is then measured on the others
    and surface distances cannot be estimated."""
    undeclared_values: tuple[int, ...] = ()
    """Values in the reference that belong to no class; they counted as background."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of a folder of predictions."""

    classes: dict[str, tuple[int, ...]]
    """Name to label values of everything scored."""
    cases: tuple[CaseScores, ...]
    """Sorted by name; at least one."""

    def values(self, class_name: str, metric: str) -> np.ndarray:
        """Return one class' metric (a name in `METRICS`) per case, as float64."""
        measure = METRICS[metric]
        return np.array([measure(case.classes[class_name]) for case in self.cases], np.float64)

    def mean(self, class_name: str, metric: str) -> float:
        """Return the mean over the cases in which the metric is defined; NaN if there are none."""
        values = self.values(class_name, metric)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def standard_deviation(self, class_name: str, metric: str) -> float:
        """Return the sample deviation over cases; NaN with fewer than two defined values."""
        values = self.values(class_name, metric)
        return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else float("nan")

    def foreground_mean(self, metric: str) -> float:
        """Return the mean over class means; as in nnU-Net NaN if a class is defined in no case."""
        return float(np.mean([self.mean(class_name, metric) for class_name in self.classes]))

    def pooled_iou(self, class_name: str) -> float:
        """Return one intersection over one union over all cases together (Z25's batched IoU)."""
        found, false, missed = (self.values(class_name, name).sum() for name in ("TP", "FP", "FN"))
        union = found + false + missed
        return float(found / union) if union else float("nan")


def evaluate(
    references: Path,
    predictions: Path,
    *,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    cases: Sequence[str] | None = None,
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

    Raises:
        RequestError: There is no reference, or predictions are missing; lists every missing file.
        DatasetError: A file cannot be read, or a prediction has another shape or spacing than its
            reference; lists every such file. Another origin or direction is logged: voxels are
            matched by index, as everywhere.
    """
    names = _pair_files(references, predictions, file_ending=file_ending, cases=cases)
    pairs = [
        (references / (name + file_ending), predictions / (name + file_ending)) for name in names
    ]
    with ThreadPoolExecutor(num_workers) as pool:
        _raise_together(pool.map(_compare_grids, pairs))

        def score(pair: tuple[Path, Path]) -> CaseScores | list[Problem]:
            return _score_case(*pair, labels=labels, file_ending=file_ending)

        scored = list(track(pool.map(score, pairs), total=len(pairs), label="Scoring"))
    _raise_together(result for result in scored if isinstance(result, list))
    results = tuple(result for result in scored if isinstance(result, CaseScores))
    undeclared = [case for case in results if case.undeclared_values]
    if undeclared:
        _logger.warning(
            "%d references hold values that belong to no class and count as background, e.g. %s in "
            "%s; if they mark unannotated voxels, declare the ignore label",
            len(undeclared),
            ", ".join(map(str, undeclared[0].undeclared_values)),
            undeclared[0].reference,
        )
    return Scores(classes=labels.foreground, cases=results)


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


def write_scores(path: Path, scores: Scores) -> None:
    """Write `summary.json` and, beside it, a table with one row per case and class (`.csv`)."""
    write_json(path, scores_to_json(scores))
    with atomic_path(path.with_suffix(".csv")) as temporary:
        temporary.write_text(scores_to_csv(scores), encoding="utf-8", newline="")


def scores_to_csv(scores: Scores) -> str:
    """Return a table with one row per case and class; undefined values are empty cells."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    units = {metric: f"{metric}_mm" for metric in DISTANCE_METRICS}
    writer.writerow(["case", "class", "label", *(units.get(metric, metric) for metric in METRICS)])
    for case in scores.cases:
        for name, result in case.classes.items():
            numbers = [measure(result) for measure in METRICS.values()]
            cells = ["" if np.isnan(number) else number for number in numbers]
            writer.writerow([case.name, name, label_key(scores.classes[name]), *cells])
    return stream.getvalue()


def label_key(values: tuple[int, ...]) -> str:
    """Return nnU-Net's key of a class (`1`) or of a region (`(1, 2)`)."""
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def _metrics_of(
    case: CaseScores, scores: Scores, metrics: dict[str, Callable[[ClassScores], float]]
) -> dict[str, dict[str, float]]:
    return {
        label_key(scores.classes[name]): {key: measure(result) for key, measure in metrics.items()}
        for name, result in case.classes.items()
    }


def _our_summary(scores: Scores) -> dict[str, Any]:
    """Return what nnU-Net's summary has no place for."""
    keys = {name: label_key(values) for name, values in scores.classes.items()}
    return {
        "kind": "scores",
        "version": 1,
        "definitions": {
            "HD95": "mm; 95th percentile of the distances between voxel surfaces, larger direction",
            "ASSD": "mm; mean distance between voxel surfaces, both directions together",
            "one_sided": "class in one of both maps only: Dice 0, distances the image's diagonal",
            "absent": "class in neither map: every ratio and distance NaN, left out of means",
            "sparse_reference": "unannotated voxels do not count; distances not estimable, NaN",
            "pooled_IoU": "one intersection over one union over all cases together",
        },
        "num_cases": len(scores.cases),
        "num_sparse_references": sum(case.is_sparse for case in scores.cases),
        "class_names": {key: name for name, key in keys.items()},
        "foreground_mean": {metric: scores.foreground_mean(metric) for metric in DISTANCE_METRICS},
        "mean": {
            key: {
                **{metric: scores.mean(name, metric) for metric in DISTANCE_METRICS},
                "pooled_IoU": scores.pooled_iou(name),
            }
            for name, key in keys.items()
        },
        "standard_deviation": {
            key: {
                metric: scores.standard_deviation(name, metric)
                for metric in ("Dice", "IoU", *DISTANCE_METRICS)
            }
            for name, key in keys.items()
        },
        "num_cases_where": {key: _count_special(scores, name) for name, key in keys.items()},
        "metric_per_case": [
            {
                "case": case.name,
                "sparse_reference": case.is_sparse,
                "metrics": _metrics_of(case, scores, DISTANCE_METRICS),
            }
            for case in scores.cases
        ],
    }


def _count_special(scores: Scores, class_name: str) -> dict[str, int]:
    results = [case.classes[class_name] for case in scores.cases]
    return {
        "one_sided": sum(result.is_one_sided for result in results),
        "Dice_undefined": sum(bool(np.isnan(result.dice)) for result in results),
        "distance_undefined": sum(bool(np.isnan(result.hd95_mm)) for result in results),
    }


def _pair_files(
    references: Path, predictions: Path, *, file_ending: str, cases: Sequence[str] | None
) -> list[str]:
    """Return the names of the cases to score, after checking that their files are there."""
    of_references = _names_in(references, file_ending)
    of_predictions = _names_in(predictions, file_ending)
    wanted = of_references if cases is None else sorted(set(cases))
    lost = [name for name in wanted if name not in of_references]
    if lost or not wanted:
        what = ", ".join(name + file_ending for name in lost) or f"label map CASE{file_ending}"
        raise RequestError(f"No {what} in the folder of references {references}.")
    missing = [name + file_ending for name in wanted if name not in of_predictions]
    if missing:
        raise RequestError(
            f"{len(missing)} of {len(wanted)} references have no prediction in {predictions}: "
            f"{', '.join(missing)}. Predict them, or name the cases to score."
        )
    extra = [name + file_ending for name in of_predictions if name not in of_references]
    if extra:
        _logger.warning(
            "%d predictions have no reference and are left out: %s", len(extra), ", ".join(extra)
        )
    return wanted


def _names_in(folder: Path, file_ending: str) -> list[str]:
    if not folder.is_dir():
        raise RequestError(f"The folder {folder} does not exist.")
    return sorted(
        path.name.removesuffix(file_ending)
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and not path.name.startswith(".") and path.is_file()
    )


def _raise_together(problems: Iterable[list[Problem]]) -> None:
    found = [problem for of_one_case in problems for problem in of_one_case]
    errors = [problem for problem in found if problem.severity is Severity.ERROR]
    for problem in found:
        if problem not in errors:
            _logger.warning("%s", problem)
    if errors:
        raise DatasetError(errors)


def _compare_grids(pair: tuple[Path, Path]) -> list[Problem]:
    """Return what differs between the headers of a reference and its prediction."""
    reference, prediction = pair
    try:
        expected, found = read_geometry(reference), read_geometry(prediction)
    except DatasetError as error:
        return list(error.problems)
    return compare_grids(
        found,
        expected,
        case=prediction.name,
        file=str(prediction),
        reference_file=f"the reference {reference}",
    )


def _score_case(
    reference: Path, prediction: Path, *, labels: LabelSchema, file_ending: str
) -> CaseScores | list[Problem]:
    problems: list[Problem] = []
    maps = []
    for path in (reference, prediction):
        try:
            maps.append(read_label_map(path))
        except DatasetError as error:
            problems.extend(error.problems)
    if problems:
        return problems
    (reference_ZYX, geometry), (prediction_ZYX, _) = maps
    found = set(find_values(reference_ZYX).tolist())
    return CaseScores(
        name=reference.name.removesuffix(file_ending),
        reference=reference,
        prediction=prediction,
        classes=score_label_maps(
            reference_ZYX,
            prediction_ZYX,
            classes=labels.foreground,
            spacing_mm=geometry.spacing_mm,
            ignore=labels.ignore,
        ),
        is_sparse=labels.ignore in found,
        undeclared_values=tuple(sorted(found - {*labels.values, labels.ignore})),
    )
