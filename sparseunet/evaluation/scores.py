"""The scores of a folder of predictions, and what they say together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparseunet.evaluation.metrics import DEFAULT_TOLERANCE_MM, ClassScores
from sparseunet.evaluation.statistics import bootstrap_means, interval_95, mean_interval_95

_HVSMR = {"Dice": 1 / 2, "ASSD": -1 / 4, "HD": -1 / 30}
"""Weights of the HVSMR 2016 challenge's overall score (Z20)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number of a class in a case."""

    measure: Callable[[ClassScores], float]
    best: Literal["high", "low", "zero"] | None = None
    """Which of two values is the better one: the higher, the lower or that nearer to zero; None for
    counts."""
    perfect: float = 0.0
    """Its value where prediction and reference are equal."""
    unit: str = ""


NNUNET_METRICS = {
    "Dice": Metric(measure=lambda scores: scores.dice, best="high", perfect=1.0),
    "FN": Metric(measure=lambda scores: scores.num_false_negatives),
    "FP": Metric(measure=lambda scores: scores.num_false_positives),
    "IoU": Metric(measure=lambda scores: scores.iou, best="high", perfect=1.0),
    "TN": Metric(measure=lambda scores: scores.num_true_negatives),
    "TP": Metric(measure=lambda scores: scores.num_true_positives),
    "n_pred": Metric(measure=lambda scores: scores.num_predicted),
    "n_ref": Metric(measure=lambda scores: scores.num_reference),
}
"""What nnU-Net's `summary.json` holds, under its names."""

OUR_METRICS = {
    "HD": Metric(measure=lambda scores: scores.surfaces.hd_mm, best="low", unit="mm"),
    "HD95": Metric(measure=lambda scores: scores.surfaces.hd95_mm, best="low", unit="mm"),
    "ASSD": Metric(measure=lambda scores: scores.surfaces.assd_mm, best="low", unit="mm"),
    "AHD": Metric(
        measure=lambda scores: scores.surfaces.average_hausdorff_mm, best="low", unit="mm"
    ),
    "NSD": Metric(measure=lambda scores: scores.surfaces.surface_dice, best="high", perfect=1.0),
    "VolumeError": Metric(
        measure=lambda scores: scores.volume_difference_ml, best="zero", unit="ml"
    ),
    "RelativeVolumeError": Metric(
        measure=lambda scores: scores.volume_difference_percent, best="zero", unit="percent"
    ),
}
"""Metrics that nnU-Net does not measure."""

METRICS = NNUNET_METRICS | OUR_METRICS
SUMMARISED = ("Dice", "IoU", *OUR_METRICS)
"""The metrics whose spread over cases means something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """The scores of one case.

    Attributes:
        name: Case identifier.
        reference: File of the reference.
        prediction: File of the prediction.
        classes: By class or region name, in the order of the dataset; without those of
            `not_annotated`.
        is_sparse: Whether some voxels of the reference are unannotated: overlap is then
            measured on the others; volumes and surface distances cannot be estimated.
        not_annotated: Classes that nobody looked for in the reference, and that therefore
            have no score.
        undeclared_values: Values in the reference that belong to no class; they counted as
            background.
        undeclared_predicted_values: The same of the prediction.
    """

    name: str
    reference: Path
    prediction: Path
    classes: dict[str, ClassScores]
    is_sparse: bool
    not_annotated: tuple[str, ...] = ()
    undeclared_values: tuple[int, ...] = ()
    undeclared_predicted_values: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of a folder of predictions.

    Attributes:
        classes: Name to label values of everything scored.
        cases: Sorted by name; at least one.
        tolerance_mm: Of the normalised surface Dice.
    """

    classes: dict[str, tuple[int, ...]]
    cases: tuple[CaseScores, ...]
    tolerance_mm: float = field(default=DEFAULT_TOLERANCE_MM)

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {self.mean(name, 'Dice'):.3f}" for name in self.classes)
        return f"Scores({len(self.cases)} cases, mean Dice: {means})"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per case and class: `case`, `class` and every metric by its name.

        A class that nobody looked for in a case has no row there.
        """
        return [
            {"case": case.name, "class": name}
            | {metric: METRICS[metric].measure(scores) for metric in METRICS}
            for case in self.cases
            for name, scores in case.classes.items()
        ]

    def table(self) -> Any:
        """Return `rows` as a `pandas.DataFrame`, or as they are where pandas is not installed."""
        try:
            pandas = import_module("pandas")
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def values(self, class_name: str, metric: str) -> np.ndarray:
        """Return one class' metric (a name in `METRICS`) per case, as float64.

        It is NaN in cases in which the class is not annotated.
        """
        measure = METRICS[metric].measure
        found = [case.classes.get(class_name) for case in self.cases]
        return np.array([np.nan if one is None else measure(one) for one in found], np.float64)

    def num_not_annotated(self, class_name: str) -> int:
        """Return the number of cases in which the class is not annotated."""
        return sum(class_name in case.not_annotated for case in self.cases)

    def num_valid(self, class_name: str, metric: str) -> int:
        """Return the number of cases in which the metric is defined."""
        return int(np.isfinite(self.values(class_name, metric)).sum())

    def mean(self, class_name: str, metric: str) -> float:
        """Return the mean over the cases in which the metric is defined; NaN if there are none."""
        values = self.values(class_name, metric)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def median(self, class_name: str, metric: str) -> float:
        """Return the median over the cases in which the metric is defined; NaN without any."""
        values = self.values(class_name, metric)
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    def standard_deviation(self, class_name: str, metric: str) -> float:
        """Return the sample deviation over cases; NaN with fewer than two defined values."""
        values = self.values(class_name, metric)
        return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else float("nan")

    def interval_95(self, class_name: str, metric: str) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the mean; NaN with fewer than two values."""
        return mean_interval_95(self.values(class_name, metric))

    def foreground_mean(self, metric: str) -> float:
        """Return the mean over class means; as in nnU-Net NaN if a class is defined in no case."""
        return float(np.mean([self.mean(class_name, metric) for class_name in self.classes]))

    def foreground_interval_95(self, metric: str) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the foreground mean; NaN with fewer than two cases.

        Whole cases are drawn; a draw in which a class is defined in no case is left out.
        """
        if len(self.cases) < 2:
            return float("nan"), float("nan")
        values_NK = np.stack([self.values(name, metric) for name in self.classes], axis=1)
        return interval_95(bootstrap_means(values_NK).mean(axis=1))

    def pooled_iou(self, class_name: str) -> float:
        """Return one intersection over one union over all cases together (Z25's batched IoU)."""
        found, false, missed = (
            np.nansum(self.values(class_name, name)) for name in ("TP", "FP", "FN")
        )
        union = found + false + missed
        return float(found / union) if union else float("nan")

    @property
    def hvsmr_overall_score(self) -> float:
        """HVSMR 2016's overall score: over classes, Σ ½ Dice − ¼ ADB − 1/30 Hausdorff (Z20).

        From the means over cases, distances in mm; NaN if one of them is undefined.
        """
        return float(
            sum(
                weight * self.mean(name, metric)
                for name in self.classes
                for metric, weight in _HVSMR.items()
            )
        )
