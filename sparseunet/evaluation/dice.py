"""Dice alone, of folders of predictions: what decisions between them are made by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.metrics import count_label_pairs, count_overlap
from sparseunet.evaluation.pairing import LabelPair, for_each_pair

Variant = Callable[[np.ndarray], np.ndarray]
"""Label map to label map of the same shape."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DiceTable:
    """Dice of every class in every case. Voxels without reference label do not count."""

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    dice_NK: np.ndarray
    """float64, cases × classes; NaN where a class is in neither map, as in nnU-Net."""
    num_reference_NK: np.ndarray
    """int64, voxels of the class in the reference."""
    is_sparse: tuple[bool, ...]
    """By case, whether voxels of its reference are unannotated."""

    @property
    def occurs(self) -> np.ndarray:
        """bool, by class: whether some reference holds it. Others say nothing about a model."""
        return self.num_reference_NK.sum(axis=0) > 0

    @property
    def class_means(self) -> np.ndarray:
        """float64, by class: the mean over cases in which Dice is defined; NaN without any."""
        is_defined_NK = np.isfinite(self.dice_NK)
        sums = np.where(is_defined_NK, self.dice_NK, 0.0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return sums / is_defined_NK.sum(axis=0)

    @property
    def foreground_mean(self) -> float:
        """Mean over the means of the classes that occur in some reference; NaN if none does.

        nnU-Net 2.8.1 takes all classes, which is the same number where every class occurs.
        """
        return float(np.mean(self.class_means[self.occurs])) if self.occurs.any() else float("nan")

    @property
    def case_means(self) -> np.ndarray:
        """float64, by case: the mean over its classes in which Dice is defined; NaN without any."""
        is_defined_NK = np.isfinite(self.dice_NK) & self.occurs
        sums = np.where(is_defined_NK, self.dice_NK, 0.0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return sums / is_defined_NK.sum(axis=1)


def measure_dice(
    pairs: Sequence[LabelPair],
    *,
    labels: LabelSchema,
    num_workers: int,
    variants: Sequence[Variant] = (lambda labels_ZYX: labels_ZYX,),
    label: str = "Scoring",
) -> tuple[DiceTable, ...]:
    """Score every case once per variant of its prediction, reading it once.

    Args:
        pairs: At least one; may come from several folders.
        labels: What to score, and the value of unannotated reference voxels.
        num_workers: Threads.
        variants: What to do with a prediction before it is scored; nothing by default.
        label: Of the progress.

    Raises:
        DatasetError: As `for_each_pair`.
    """

    def score(pair: LabelPair) -> tuple[list[list[tuple[int, int, int, int]]], bool]:
        reference_ZYX, prediction_ZYX, _ = pair.read()
        counts = []
        for variant in variants:
            found = count_label_pairs(reference_ZYX, variant(prediction_ZYX))
            annotated = {key: count for key, count in found.items() if key[0] != labels.ignore}
            counts.append(
                [count_overlap(annotated, set(values)) for values in labels.foreground.values()]
            )
        is_sparse = labels.ignore is not None and bool((reference_ZYX == labels.ignore).any())
        return counts, is_sparse

    done = for_each_pair(pairs, score, num_workers=num_workers, label=label)
    counts_VNKC = np.array([counts for counts, _ in done], np.int64).swapaxes(0, 1)
    return tuple(
        _to_table(counts_NKC, pairs, labels, [is_sparse for _, is_sparse in done])
        for counts_NKC in counts_VNKC
    )


def _to_table(
    counts_NKC: np.ndarray,
    pairs: Sequence[LabelPair],
    labels: LabelSchema,
    is_sparse: Sequence[bool],
) -> DiceTable:
    found_NK, false_NK, missed_NK = (counts_NKC[..., index] for index in range(3))
    with np.errstate(invalid="ignore"):
        dice_NK = 2 * found_NK / (2 * found_NK + false_NK + missed_NK)
    return DiceTable(
        cases=tuple(pair.name for pair in pairs),
        classes=tuple(labels.foreground),
        dice_NK=dice_NK,
        num_reference_NK=found_NK + missed_NK,
        is_sparse=tuple(is_sparse),
    )
