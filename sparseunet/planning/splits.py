"""Which cases each fold trains on and which it validates on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparseunet.data.dataset import Split
from sparseunet.errors import RequestError


def make_splits(
    case_names: Sequence[str], *, num_folds: int = 5, seed: int = 12345
) -> tuple[Split, ...]:
    """Split cases for cross-validation; every case is validated on exactly once.

    The sorted names are shuffled and cut into `num_folds` parts, the first ones one case longer if
    it does not divide. With fewer cases than folds there are as many folds as cases.

    Raises:
        RequestError: There are fewer than two cases, fewer than two folds, or a name occurs twice.

    Source: nnU-Net 2.8.1 (scikit-learn's shuffled KFold over sorted identifiers), equal to it.
    """
    names = sorted(case_names)
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RequestError(
            f"A case cannot be split twice; found more than once: {', '.join(twice)}."
        )
    if len(names) < 2:
        raise RequestError(
            f"Cross-validation needs at least two cases, found {len(names)}. Add cases, or train "
            "on all of them (fold `all`)."
        )
    if num_folds < 2:
        raise RequestError(f"Cross-validation needs at least two folds, found {num_folds}.")
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)  # the stream that scikit-learn draws from
    splits = []
    for part in np.array_split(order, min(num_folds, len(names))):
        held_out = set(part.tolist())
        splits.append(
            Split(
                train=tuple(name for index, name in enumerate(names) if index not in held_out),
                val=tuple(name for index, name in enumerate(names) if index in held_out),
            )
        )
    return tuple(splits)


def extend_splits(splits: Sequence[Split], case_names: Sequence[str]) -> tuple[Split, ...]:
    """Bring splits up to the cases there are; what was assigned stays where it is.

    Of a cross-validation (every case validated on in exactly one fold) each new case, in the order
    of names, is validated on in the fold that validates on fewest, and trained on in the others. Of
    other splits new cases are trained on in every fold. Cases that are gone leave all folds.
    """
    known = {name for split in splits for name in (*split.train, *split.val)}
    held_out = [name for split in splits for name in split.val]
    is_cross_validation = len(splits) > 1 and sorted(held_out) == sorted(known)
    present = set(case_names)
    train = [[name for name in split.train if name in present] for split in splits]
    val = [[name for name in split.val if name in present] for split in splits]
    for name in sorted(present - known):
        chosen = min(range(len(val)), key=lambda fold: len(val[fold]))
        for fold in range(len(splits)):
            is_held_out = is_cross_validation and fold == chosen
            (val if is_held_out else train)[fold].append(name)
    return tuple(
        Split(train=tuple(sorted(trained)), val=tuple(sorted(validated)))
        for trained, validated in zip(train, val, strict=True)
    )


def splits_to_json(splits: Sequence[Split]) -> list[dict[str, list[str]]]:
    """Return the splits in the form of nnU-Net's `splits_final.json`."""
    return [{"train": list(split.train), "val": list(split.val)} for split in splits]


def splits_from_json(content: Any, *, source: str = "the splits file") -> tuple[Split, ...]:
    """Read nnU-Net's form.

    Raises:
        RequestError: Lists every fold that has no `train` and `val`, or a case in both.
    """
    if not isinstance(content, list) or not content:
        raise RequestError(f'{source} must be a list of {{"train": [...], "val": [...]}}.')
    problems, splits = [], []
    for fold, item in enumerate(content):
        train, val = (_names(item, key) for key in ("train", "val"))
        if train is None or val is None:
            problems.append(f'fold {fold} needs "train" and "val", each a list of case names')
            continue
        if both := sorted(set(train) & set(val)):
            problems.append(f"fold {fold} trains and validates on {', '.join(both)}")
        splits.append(Split(train=train, val=val))
    if problems:
        raise RequestError(f"{source} is wrong: " + "; ".join(problems) + ".")
    return tuple(splits)


def _names(item: Any, key: str) -> tuple[str, ...] | None:
    names = item.get(key) if isinstance(item, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
