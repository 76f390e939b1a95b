"""Which folds of a model label which case, and whether they learned from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sparseunet.errors import RequestError, name_some
from sparseunet.runs.record import has_record, read_record
from sparseunet.workspace import fold_folder

Fold = int | str
LearnedFrom = Mapping[Fold, frozenset[str] | None]
"""Fold to the names of the cases that it was trained on; None where they are not recorded."""
Exposure = Literal["seen in training", "out of fold", "unknown"]
"""Whether any of the folds that label a case was trained on it."""


def training_cases(model_folder: Path, folds: Sequence[Fold]) -> dict[Fold, frozenset[str] | None]:
    """Return which cases each fold was trained on, by `run.json`.

    nnU-Net's model folders do not say, nor do runs made of them.
    """
    found: dict[Fold, frozenset[str] | None] = {}
    for fold in folds:
        folder = fold_folder(model_folder, fold)
        split = read_record(folder).split if has_record(folder) else None
        found[fold] = None if split is None else frozenset(split.train)
    return found


def assign_folds(
    cases: Sequence[str], learned_from: LearnedFrom, *, out_of_fold: bool
) -> dict[tuple[Fold, ...], list[str]]:
    """Return the folds that label a case, to the cases that they label.

    All folds label every case. With `out_of_fold` those that were not trained on it do: of a
    cross-validation one, and all of them where a case is new.

    Raises:
        RequestError: With `out_of_fold`: nobody recorded what a fold was trained on, or every fold
            was trained on some case; names them.
    """
    everyone = tuple(learned_from)
    if not out_of_fold:
        return {everyone: list(cases)}
    silent = [fold for fold, names in learned_from.items() if names is None]
    if silent:
        raise RequestError(
            f"Nothing says which cases the folds {_join(silent)} were trained on (a model of "
            "nnU-Net does not), so none can be labelled out of fold.",
            setting="out_of_fold",
        )
    assigned: dict[tuple[Fold, ...], list[str]] = {}
    for case in cases:
        folds = tuple(fold for fold, names in learned_from.items() if case not in (names or ()))
        assigned.setdefault(folds, []).append(case)
    seen_by_all = assigned.get((), [])
    if seen_by_all:
        raise RequestError(
            f"{len(seen_by_all)} of {len(cases)} cases were trained on by every fold there is "
            f"({_join(everyone)}): {name_some(seen_by_all)}. Train the folds that "
            "validate on them to the end, or label with all folds.",
            setting="out_of_fold",
        )
    return assigned


def exposure(case: str, folds: Sequence[Fold], learned_from: LearnedFrom) -> Exposure:
    """Return whether any of the folds was trained on the case."""
    names = [learned_from[fold] for fold in folds]
    if any(case in (known or ()) for known in names):
        return "seen in training"
    return "unknown" if None in names else "out of fold"


def _join(folds: Sequence[Fold]) -> str:
    return " ".join(map(str, folds))
