"""Which cases each fold trains on and which it validates on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparseunet.data.dataset import Split
from sparseunet.errors import RequestError


def make_splits(
    case_names: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    num_folds: int = 5,
    seed: int = 12345,
) -> tuple[Split, ...]:
    """Split cases for cross-validation; every case is validated on exactly once.

    The sorted names are shuffled and cut into `num_folds` parts, the first ones one case longer if
    it does not divide. With fewer cases than folds there are as many folds as cases. With groups
    the same happens to groups, in the order of their first cases: those of one group, such as the
    scans of one patient, are always together, and folds hold equally many groups instead of cases.

    Args:
        case_names: In any order.
        groups: Case to the group it belongs to, for every case; None: each is a group of its own.
        num_folds: At most; two or more.
        seed: Of the shuffle.

    Raises:
        RequestError: There are fewer than two cases or groups, fewer than two folds, or a name
            occurs twice.

    Source: nnU-Net 2.8.1 (scikit-learn's shuffled KFold over sorted identifiers), equal to it where
    every group has one case.
    """
    names = sorted(case_names)
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RequestError(
            f"A case cannot be split twice; found more than once: {', '.join(twice)}."
        )
    members = _members(names, groups)
    if len(members) < 2:
        found = f"{len(names)}" if groups is None else f"{len(names)} in {len(members)} group"
        raise RequestError(
            f"Cross-validation needs at least two cases{' of different groups' * bool(groups)}, "
            f"found {found}. Add cases, or train on all of them (fold `all`)."
        )
    if num_folds < 2:
        raise RequestError(f"Cross-validation needs at least two folds, found {num_folds}.")
    order = np.arange(len(members))
    np.random.RandomState(seed).shuffle(order)  # the stream that scikit-learn draws from
    splits = []
    for part in np.array_split(order, min(num_folds, len(members))):
        held_out = {name for index in part.tolist() for name in members[index]}
        splits.append(
            Split(
                train=tuple(name for name in names if name not in held_out),
                val=tuple(name for name in names if name in held_out),
            )
        )
    return tuple(splits)


def extend_splits(
    splits: Sequence[Split],
    case_names: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
) -> tuple[Split, ...]:
    """Bring splits up to the cases there are; what was assigned stays where it is.

    A new case of a known group goes, in every fold, where its group is; where the fold tears the
    group apart (see `torn_groups`), to the validation cases. Of a cross-validation (every case
    validated on in exactly one fold) each other new group, in the order of its first case, is
    validated on in the fold that validates on fewest, and trained on in the others. Of other splits
    it is trained on in every fold. Cases that are gone leave all folds. Without `groups` every case
    is a group of its own.
    """
    known = {name for split in splits for name in (*split.train, *split.val)}
    held_out = [name for split in splits for name in split.val]
    is_cross_validation = len(splits) > 1 and sorted(held_out) == sorted(known)
    present = set(case_names)
    train = [[name for name in split.train if name in present] for split in splits]
    val = [[name for name in split.val if name in present] for split in splits]
    for group in _members(sorted(present), groups):
        new = [name for name in group if name not in known]
        old = present.intersection(group) & known
        smallest = min(range(len(val)), key=lambda fold: len(val[fold]))
        for fold in range(len(splits)):
            is_held_out = not old.isdisjoint(val[fold])
            if not old:
                is_held_out = is_cross_validation and fold == smallest
            (val if is_held_out else train)[fold].extend(new)
    return tuple(
        Split(train=tuple(sorted(trained)), val=tuple(sorted(validated)))
        for trained, validated in zip(train, val, strict=True)
    )


def torn_groups(splits: Sequence[Split], groups: Mapping[str, str]) -> list[str]:
    """Return, sorted, the groups that some fold both trains on and validates on."""
    torn: set[str] = set()
    for split in splits:
        trained, validated = (
            {groups[name] for name in names if name in groups} for names in (split.train, split.val)
        )
        torn |= trained & validated
    return sorted(torn)


def _members(names: Sequence[str], groups: Mapping[str, str] | None) -> list[list[str]]:
    """Return the sorted names of each group, in the order of the groups' first names."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        members[name if groups is None else groups[name]].append(name)
    return list(members.values())


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
