"""Find out on held-out cases whether keeping the largest components helps."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sparseunet.data.annotation import Source
from sparseunet.data.io import count_values, read_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError, name_some
from sparseunet.evaluation.dice import DiceTable, measure_dice
from sparseunet.evaluation.pairing import LabelPair
from sparseunet.postprocessing import KeepLargest, Postprocessing, Trial, apply_steps

FOREGROUND = "foreground"
_WHY = (
    "Between annotated voxels nobody has said what is there, so a component there may be right: "
    "whether dropping it helps cannot be measured. Take cases with dense references, all classes "
    "drawn by a person."
)


def determine_postprocessing(
    pairs: Sequence[LabelPair],
    *,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    not_dense: Mapping[str, str] | None = None,
) -> Postprocessing:
    """Decide by Dice on held-out cases which components to drop.

    First the foreground as a whole: its largest component alone stays if the foreground mean rises
    and no class falls. Then, with several classes or regions, one after the other in the order of
    the dataset: the same for the class if its own Dice rises, judged behind the steps so far.

    Args:
        pairs: Held-out predictions and references, at least one.
        labels: What is scored.
        file_ending: Of the files, with the dot.
        num_workers: Threads.
        not_dense: Case to why its reference is not dense, where something beside the label file
            says so (`find_not_dense`).

    Raises:
        RequestError: Not estimable: some reference is sparse, or none holds foreground.
        DatasetError: As `measure_dice`.

    Source: nnU-Net 2.8.1. Unlike there, classes that no reference holds are left out of the mean,
    which is undefined there.
    """
    require_dense(not_dense or {})
    everything = tuple(sorted({value for each in labels.foreground.values() for value in each}))
    foreground = KeepLargest(name=FOREGROUND, values=everything)
    before, after = _measure(pairs, labels, num_workers, [(), (foreground,)])
    require_dense(sparse_cases(before))
    if not before.occurs.any():
        raise RequestError("Not estimable: no reference holds any foreground.")
    trials = [_judge_foreground(foreground, before, after)]
    if trials[0].is_kept:
        before = after
    steps = [foreground] if trials[0].is_kept else []
    for group in _independent_steps(labels):
        variants = [(*steps, step) for step in group]
        for step, table in zip(group, _measure(pairs, labels, num_workers, variants), strict=True):
            trials.append(_judge_class(step, before, table))
            if trials[-1].is_kept:
                steps.append(step)
                before = table
    return Postprocessing(
        steps=tuple(steps),
        classes=dict(labels.foreground),
        file_ending=file_ending,
        trials=tuple(trials),
        num_cases=len(pairs),
        references=str(pairs[0].reference.parent),
    )


def sparse_cases(table: DiceTable) -> dict[str, str]:
    """Return why the reference of a case is not dense, of those that say so themselves."""
    return {
        case: "unannotated voxels"
        for case, is_sparse in zip(table.cases, table.is_sparse, strict=True)
        if is_sparse
    }


def find_not_dense(
    cases: Sequence[str], *, provenance: Path | None, file_ending: str, partly: Collection[str]
) -> dict[str, str]:
    """Return why the reference of a case is not dense, judged by the files beside its labels.

    Args:
        cases: Names.
        provenance: Folder of a `Source` per voxel, if there is one.
        file_ending: Of its files, with the dot.
        partly: Cases in which some classes only were annotated.

    Raises:
        UnreadableFileError: A file of `provenance` cannot be read.
    """
    reasons = {case: "some classes were not annotated" for case in cases if case in partly}
    for case in cases:
        if provenance is None or not (provenance / f"{case}{file_ending}").is_file():
            continue
        source_ZYX, _ = read_label_map(provenance / f"{case}{file_ending}")
        if set(count_values(source_ZYX)) - {Source.MANUAL}:
            reasons[case] = "voxels that no person labelled"
    return reasons


def require_dense(reasons: Mapping[str, str]) -> None:
    """Refuse references that are not dense.

    Raises:
        RequestError: Says of which cases, and why this matters.
    """
    if not reasons:
        return
    kinds = sorted(set(reasons.values()))
    parts = []
    for kind in kinds:
        cases = [case for case, reason in reasons.items() if reason == kind]
        parts.append(f"{kind} in {len(cases)} ({name_some(cases)})")
    raise RequestError(
        f"Postprocessing is not estimable: references are sparse, {'; '.join(parts)}. {_WHY}"
    )


def _independent_steps(labels: LabelSchema) -> list[list[KeepLargest]]:
    """Return the steps class by class, those together that cannot influence each other.

    Dropping a component of a plain class changes no other class; regions share voxels.
    """
    steps = [KeepLargest(name=name, values=values) for name, values in labels.foreground.items()]
    if len(steps) < 2:
        return []
    return [[step] for step in steps] if labels.has_regions else [steps]


def _measure(
    pairs: Sequence[LabelPair],
    labels: LabelSchema,
    num_workers: int,
    variants: Sequence[Sequence[KeepLargest]],
) -> tuple[DiceTable, ...]:
    return measure_dice(
        pairs,
        labels=labels,
        num_workers=num_workers,
        variants=[partial(apply_steps, steps=steps) for steps in variants],
        label="Trying components",
    )


def _judge_foreground(step: KeepLargest, before: DiceTable, after: DiceTable) -> Trial:
    scores = before.foreground_mean, after.foreground_mean
    fallen = [
        name
        for name, old, new in zip(
            before.classes, before.class_means, after.class_means, strict=True
        )
        if new < old
    ]
    if not scores[1] > scores[0]:
        reason = "the foreground mean does not rise"
    elif fallen:
        reason = f"the foreground mean rises, but {', '.join(fallen)} falls"
    else:
        reason = "the foreground mean rises and no class falls"
    is_kept = scores[1] > scores[0] and not fallen
    return Trial(
        step=step, dice_before=scores[0], dice_after=scores[1], is_kept=is_kept, reason=reason
    )


def _judge_class(step: KeepLargest, before: DiceTable, after: DiceTable) -> Trial:
    index = before.classes.index(step.name)
    old, new = float(before.class_means[index]), float(after.class_means[index])
    is_kept = bool(new > old)
    reason = "its Dice rises" if is_kept else "its Dice does not rise"
    if np.isnan(old):
        reason = "no case holds it"
    return Trial(step=step, dice_before=old, dice_after=new, is_kept=is_kept, reason=reason)
