"""Read `dataset.json` and find every problem in it.

The rules are nnU-Net's (2.8.1): required keys, background 0, consecutive label values, `ignore` the
highest, regions as lists of values with `regions_class_order`.
"""

import json
from dataclasses import dataclass
from typing import Any

from sparseunet.data.formats import FORMATS
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem
from sparseunet.workspace import DATASET_JSON

_IGNORE = "ignore"
_BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What could be understood of a `dataset.json`; None where it is missing or wrong."""

    channel_names: tuple[str, ...] | None = None
    labels: LabelSchema | None = None
    file_ending: str | None = None
    num_training: int | None = None
    problems: tuple[Problem, ...] = ()


NOTHING_DESCRIBED = Description()


def parse_labels(dataset_json: dict) -> LabelSchema:
    """Return the classes that a `dataset.json` declares.

    Raises:
        DatasetError: Everything that is wrong with `labels` and `regions_class_order`.
    """
    labels, problems = examine_labels(dataset_json)
    if problems or labels is None:
        raise DatasetError(problems)
    return labels


def examine_description(content: Any) -> Description:
    """Take apart the content of a `dataset.json`, collecting every problem."""
    if not isinstance(content, dict):
        wrong = _problem(f"a JSON {type(content).__name__}", "an object with keys", _EXAMPLE)
        return Description(problems=(wrong,))
    if _is_old_style(content):
        return Description(problems=(_old_style(content),))
    problems: list[Problem] = []
    channel_names = _channel_names(content, problems)
    file_ending = _file_ending(content, problems)
    num_training = content.get("numTraining")
    if not _is_int(num_training):
        _wrong_key(content, "numTraining", "the number of training cases", problems)
        num_training = None
    labels, label_problems = examine_labels(content)
    return Description(
        channel_names=channel_names,
        labels=labels,
        file_ending=file_ending,
        num_training=num_training,
        problems=(*problems, *label_problems),
    )


def examine_labels(content: dict) -> tuple[LabelSchema | None, list[Problem]]:
    """Return the classes as far as they can be understood, and every problem with them."""
    problems: list[Problem] = []
    declared = content.get("labels")
    if not isinstance(declared, dict) or not declared:
        _wrong_key(content, "labels", '{"background": 0, "name": 1, ...}', problems)
        return None, problems
    values_of: dict[str, tuple[int, ...]] = {}
    for name, value in declared.items():
        values = tuple(value) if isinstance(value, list) else (value,)
        if not values or not all(_is_int(item) and item >= 0 for item in values):
            found = f"label {name!r} with the value {json.dumps(value, ensure_ascii=False)}"
            problems.append(
                _problem(found, "a whole number or a list of them", "correct the value")
            )
        else:
            values_of[name] = values
    if problems:
        return None, problems
    problems.extend(_value_problems(values_of))
    has_regions = any(len(v) > 1 for name, v in values_of.items() if name != _IGNORE)
    order = _region_order(content, values_of, problems) if has_regions else ()
    return _schema(values_of, order, has_regions=has_regions), problems


def _schema(
    values_of: dict[str, tuple[int, ...]], order: tuple[int, ...], *, has_regions: bool
) -> LabelSchema:
    foreground = {name: v for name, v in values_of.items() if name not in (_IGNORE, _BACKGROUND)}
    classes = {_BACKGROUND: 0} if has_regions else {}
    if not has_regions:
        classes = {name: v[0] for name, v in values_of.items() if name != _IGNORE}
    return LabelSchema(
        classes=classes,
        regions=foreground if has_regions else {},
        regions_class_order=order,
        ignore=values_of[_IGNORE][0] if _IGNORE in values_of else None,
    )


def _value_problems(values_of: dict[str, tuple[int, ...]]) -> list[Problem]:
    """Return problems of label values: background not 0, ignore not highest, gaps, repetitions."""
    problems = []
    if values_of.get(_BACKGROUND) != (0,):
        found = f"labels {_names(values_of)} without a background of value 0"
        problems.append(_problem(found, '"background": 0', "declare the background"))
    ignore = values_of.get(_IGNORE)
    others = {value for name, v in values_of.items() if name != _IGNORE for value in v}
    if ignore is not None and (len(ignore) > 1 or ignore[0] <= max(others, default=0)):
        renumbered = [f"{old} to {new}" for new, old in enumerate(sorted(others)) if old != new]
        renumbered.append(f"ignore to {len(others)}")
        problems.append(
            _problem(
                f"the ignore label with the value {_plain(ignore)}, other labels up to "
                f"{max(others, default=0)}",
                "ignore to be one value, the highest of all",
                f"renumber {', '.join(renumbered)} in dataset.json and in the label files",
            )
        )
        return problems
    every = sorted(others | set(ignore or ()))
    if every != list(range(len(every))):
        problems.append(
            _problem(
                f"label values {_plain(every)}, which are not consecutive",
                f"consecutive values {_plain(range(len(every)))}",
                "renumber the labels in dataset.json and in the label files",
            )
        )
    return [*problems, *_repeated(values_of)]


def _repeated(values_of: dict[str, tuple[int, ...]]) -> list[Problem]:
    """Return a problem for every value that two plain labels share."""
    seen: dict[int, str] = {}
    problems = []
    for name, values in values_of.items():
        if len(values) == 1 and values[0] in seen:
            found = f"labels {seen[values[0]]!r} and {name!r} with the same value {values[0]}"
            problems.append(_problem(found, "one value for each label", "renumber or remove one"))
        elif len(values) == 1:
            seen[values[0]] = name
    return problems


def _region_order(
    content: dict, values_of: dict[str, tuple[int, ...]], problems: list[Problem]
) -> tuple[int, ...]:
    regions = [name for name in values_of if name not in (_BACKGROUND, _IGNORE)]
    declared = {value for name in regions for value in values_of[name]}
    order = content.get("regions_class_order")
    values = order if isinstance(order, list) else []
    if len(values) != len(regions) or not all(value in declared for value in values):
        problems.append(
            _problem(
                f"regions_class_order {json.dumps(order)}",
                f"one label value for each of the {len(regions)} regions {_names(regions)}, in "
                "the order in which they are painted, from the values that regions hold",
                'add it, e.g. "regions_class_order": '
                + json.dumps([values_of[name][0] for name in regions]),
            )
        )
        return ()
    problems += _lost_values({name: values_of[name] for name in regions}, values)
    return tuple(values)


def _lost_values(regions: dict[str, tuple[int, ...]], order: list[int]) -> list[Problem]:
    """Return a problem if regions painted in their order do not give back what they were made of.

    Every value is put through: the regions that hold it are painted one over the other, each with
    its value in the order; the value that remains must lie in the same regions.

    Example: core [2] and whole [1, 2] in this order, painted with 2 and 1. A voxel of 2 lies in
    both and is painted with 2, then with 1, which is no core any more. The other way round works.
    """
    lost = _not_painted_back(regions, order)
    if not lost:
        return []
    largest_first = sorted(regions, key=lambda name: -len(regions[name]))
    better = [_value_only_here(name, largest_first, regions) for name in largest_first]
    if _not_painted_back({name: regions[name] for name in largest_first}, better):
        fix = (
            "some regions overlap, and none of them is the overlap: declare a region for it, or "
            "plain labels"
        )
    else:
        fix = (
            f"list the regions as {_names(largest_first)}, with "
            f'"regions_class_order": {json.dumps(better)}'
        )
    found = (
        f"regions {_names(regions)} with the regions_class_order {json.dumps(order)}: painted so, "
        f"a voxel of {_plain(lost)} ends in other regions than it lies in"
    )
    return [_problem(found, "each region to come after those that hold it", fix)]


def _not_painted_back(regions: dict[str, tuple[int, ...]], order: list[int]) -> list[int]:
    def holding(value: int) -> list[str]:
        return [name for name, values in regions.items() if value in values]

    lost = []
    for value in sorted({value for values in regions.values() for value in values}):
        painted = 0
        for values, paint in zip(regions.values(), order, strict=True):
            painted = paint if value in values else painted
        if holding(painted) != holding(value):
            lost.append(value)
    return lost


def _value_only_here(name: str, in_order: list[str], regions: dict[str, tuple[int, ...]]) -> int:
    """Return a value of a region that no later one holds, else its first."""
    later = {value for other in in_order[in_order.index(name) + 1 :] for value in regions[other]}
    return min(set(regions[name]) - later, default=regions[name][0])


def _channel_names(content: dict, problems: list[Problem]) -> tuple[str, ...] | None:
    declared = content.get("channel_names")
    expected = '{"0": "CT"} or {"0": "T1", "1": "T2", ...}'
    if not isinstance(declared, dict) or not declared:
        _wrong_key(content, "channel_names", expected, problems)
        return None
    keys = [str(number) for number in range(len(declared))]
    if set(declared) != set(keys):
        found = f"channel_names with the keys {_names(declared)}"
        problems.append(_problem(found, f"the keys {_names(keys)}", "renumber the channels from 0"))
        return None
    return tuple(str(declared[key]) for key in keys)


def _file_ending(content: dict, problems: list[Problem]) -> str | None:
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending:
        _wrong_key(content, "file_ending", 'e.g. ".nii.gz"', problems)
        return None
    if ending.lower() not in FORMATS:
        found, expected = f"file_ending {ending!r}", f"one of {', '.join(FORMATS)}"
        problems.append(_problem(found, expected, "convert the files, or correct the ending"))
        return None
    return ending


def _is_old_style(content: dict) -> bool:
    labels = content.get("labels")
    is_inverted = isinstance(labels, dict) and any(isinstance(v, str) for v in labels.values())
    return "channel_names" not in content and ("modality" in content or is_inverted)


def _old_style(content: dict) -> Problem:
    """Return the problem of a nnU-Net v1 or Decathlon description, with its translation."""
    labels = content.get("labels")
    translated: dict[str, Any] = {"channel_names": content.get("modality", {"0": "CT"})}
    if isinstance(labels, dict):
        translated["labels"] = {
            str(name): int(value) if str(value).isdigit() else value
            for value, name in labels.items()
        }
    translated["numTraining"] = content.get("numTraining", len(content.get("training", [])))
    translated["file_ending"] = ".nii.gz"
    return _problem(
        "the old format of nnU-Net v1 and the Medical Segmentation Decathlon (modality, labels "
        "from number to name, no file_ending)",
        "the nnU-Net v2 format: channel_names, labels from name to number, numTraining, "
        "file_ending",
        f"convert it: replace the content by {json.dumps(translated, ensure_ascii=False)}, and "
        "name images CASE_0000.nii.gz",
    )


_EXAMPLE = (
    'write {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, '
    '"numTraining": 10, "file_ending": ".nii.gz"}'
)


def missing_description(path: str) -> Problem:
    """Return the problem of a dataset folder without `dataset.json`."""
    return _problem(f"no file {path}", "a description of the dataset there", _EXAMPLE)


def broken_description(message: str) -> Problem:
    """Return the problem of a `dataset.json` that cannot be parsed."""
    return _problem(message.rstrip("."), "valid JSON", "correct the file at that place")


def _wrong_key(content: dict, key: str, expected: str, problems: list[Problem]) -> None:
    found = (
        f"{key} {json.dumps(content[key], ensure_ascii=False)}" if key in content else f"no {key}"
    )
    problems.append(_problem(found, f"{key}: {expected}", "add or correct it"))


def _problem(found: str, expected: str, fix: str) -> Problem:
    return Problem(file=DATASET_JSON, found=found, expected=expected, fix=fix)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
