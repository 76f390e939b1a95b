"""Find the files of cases by nnU-Net's names: images CASE_0000.ext, ..., labels CASE.ext."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.data.dataset import Case
from sparseunet.data.formats import FORMATS, format_of
from sparseunet.errors import DatasetError, Problem
from sparseunet.workspace import CONFIDENCE, DATASET_JSON, PROVENANCE

_IMAGES = "imagesTr"
_LABELS = "labelsTr"
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)
_SUFFIX_OF_OTHERS = re.compile(r"(_\d{4}|\.seg)$", re.IGNORECASE)
"""What images end in, or segmentations of 3D Slicer, where the label of a case has nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """How files are called and where paths in problems start."""

    file_ending: str
    """File ending with the dot; compared exactly."""
    num_channels: int
    root: Path


def find_images(folder: Path, naming: Naming) -> tuple[dict[str, tuple[Path, ...]], list[Problem]]:
    """Return the channel files of every case in `folder`, sorted by case, and what is wrong.

    A picture in colour counts as as many channels as it has colours. Files without a channel
    number are problems, and are returned as the only channel of their case.
    """
    paths, problems = _files(folder, naming)
    cases: dict[str, dict[int, Path]] = {}
    for path in paths:
        stem = path.name[: -len(naming.file_ending)]
        match = _NUMBERED.fullmatch(stem)
        name, channel = (match["case"], int(match["channel"])) if match else (stem, 0)
        if match is None:
            problems.append(
                _missing(
                    naming,
                    path,
                    case=name,
                    found="an image without channel number",
                    expected=f"{stem}_0000{naming.file_ending}",
                    fix="rename it",
                )
            )
        cases.setdefault(name, {})[channel] = path
    for name, channels in sorted(cases.items()):
        problems.extend(_channel_problems(folder, name, channels, naming))
    images = {
        name: tuple(path for _, path in sorted(channels.items()))
        for name, channels in sorted(cases.items())
    }
    return images, problems


def find_training_cases(
    naming: Naming, *, needs_labels: bool = True
) -> tuple[tuple[Case, ...], list[Problem]]:
    """Return every case with a file in `imagesTr` or `labelsTr`, and everything that is missing.

    Without `needs_labels` an image without label is a case that nobody has annotated yet.
    """
    images, problems = find_images(naming.root / _IMAGES, naming)
    label_paths, label_problems = _files(naming.root / _LABELS, naming)
    labels = {path.name[: -len(naming.file_ending)]: path for path in label_paths}
    problems += label_problems if needs_labels else []
    problems += _rename_labels(labels, images, naming)
    for name in sorted(images.keys() - labels.keys()) if labels and needs_labels else ():
        path = naming.root / _LABELS / f"{name}{naming.file_ending}"
        problems.append(
            _missing(
                naming,
                path,
                case=name,
                found="an image without label: this file is missing",
                expected="a label for every image",
                fix=f"add it, or move the image out of {_IMAGES}",
            )
        )
    for name in sorted(labels.keys() - images.keys()) if images else ():
        path = naming.root / _IMAGES / f"{name}_0000{naming.file_ending}"
        problems.append(
            _missing(
                naming,
                path,
                case=name,
                found="a label without image: this file is missing",
                expected="an image for every label",
                fix=f"add it, or move the label out of {_LABELS}",
            )
        )
    cases = tuple(
        Case(
            name=name,
            images=images.get(name, ()),
            label=labels.get(name),
            provenance=_beside(PROVENANCE, name, labels, naming),
            confidence=_beside(CONFIDENCE, name, labels, naming),
        )
        for name in sorted(images.keys() | labels.keys())
    )
    return cases, [*problems, *_lost_provenance(cases, naming)]


def _rename_labels(
    labels: dict[str, Path], images: Mapping[str, object], naming: Naming
) -> list[Problem]:
    """Give labels that are called as an image or a segmentation tool calls files to their cases.

    Returns:
        A problem for each: `CASE_0000.ext` or `CASE.seg.ext` in place of `CASE.ext`.
    """
    problems = []
    for name in sorted(labels.keys() - images.keys()):
        case = _SUFFIX_OF_OTHERS.sub("", name)
        if case == name or case not in images or case in labels:
            continue
        path = labels[case] = labels.pop(name)
        expected = f"{case}{naming.file_ending}"
        problems.append(
            _missing(
                naming,
                path,
                case=case,
                found=f"a label called {path.name}",
                expected=f"{expected}, the name of the case without number of a channel",
                fix=f"rename it to {expected}",
            )
        )
    return problems


def _lost_provenance(cases: Sequence[Case], naming: Naming) -> list[Problem]:
    """Return a problem for every label of which it is not said who drew it, where that is said.

    Without this, filled voxels of a case whose file is lost would count as drawn by a person.
    """
    folder = naming.root / PROVENANCE
    if not folder.is_dir():
        return []
    return [
        _missing(
            naming,
            folder / case.label.name,
            case=case.name,
            found="it is not said who drew the label: this file is missing",
            expected=f"a file for every label, as there is a folder {PROVENANCE}",
            fix=f"add it (1 where a person drew), or move {PROVENANCE} away if persons drew all",
        )
        for case in cases
        if case.label is not None and case.provenance is None
    ]


def find_loose_scans(folder: Path) -> tuple[str, tuple[Case, ...]]:
    """Return the file ending of a folder of scans without any description, and the scans.

    Where every file is called CASE_0000.ext, CASE_0001.ext, ... with the same channels in all
    cases, these are channels; otherwise every file is a scan of its own.

    Raises:
        DatasetError: No folder, no scan, scans of several endings, or names that may be channels
            of one scan as well as scans.
    """
    by_ending: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        ending = _ending(path)
        if path.is_file() and not path.name.startswith(".") and ending in FORMATS:
            by_ending.setdefault(path.name[-len(ending) :], []).append(path)
    if len(by_ending) != 1:
        there = ", ".join(f"{len(paths)} {ending}" for ending, paths in by_ending.items())
        raise DatasetError([_wrong_folder(folder, there or "no scan")])
    ((ending, paths),) = by_ending.items()
    cases: dict[str, dict[int, Path]] = {}
    for path in paths:
        match = _NUMBERED.fullmatch(path.name[: -len(ending)])
        name, channel = (match["case"], int(match["channel"])) if match else (path.name, 0)
        cases.setdefault(name, {})[channel] = path
    numbers = {tuple(sorted(channels)) for channels in cases.values()}
    are_channels = all(_NUMBERED.fullmatch(path.name[: -len(ending)]) for path in paths) and (
        numbers == {tuple(range(len(paths) // len(cases)))}
    )
    if are_channels and len(cases) == 1 and len(paths) > 1:
        found = f"{paths[0].name} to {paths[-1].name}: channels of one scan, or scans?"
        raise DatasetError([_wrong_folder(folder, found)])
    if not are_channels:
        cases = {path.name[: -len(ending)]: {0: path} for path in paths}
    return ending, tuple(
        Case(name=name, images=tuple(path for _, path in sorted(files.items())), label=None)
        for name, files in sorted(cases.items())
    )


def find_listed_cases(entry: Any, naming: Naming) -> tuple[tuple[Case, ...], list[Problem]]:
    """Return the cases of the entry `dataset` of a description, and everything that is missing.

    Args:
        entry: `{case: {"images": [path, ...], "label": path}}`, paths relative to the root.
        naming: Ending, number of channels and the dataset folder.
    """
    if not isinstance(entry, dict):
        return (), [_wrong_entry("", f"dataset: a {type(entry).__name__}")]
    cases: list[Case] = []
    problems: list[Problem] = []
    for name, files in sorted(entry.items()):
        if not is_plain_name(name):
            problems.append(_no_plain_name(name))
            continue
        images = _names(files.get("images")) if isinstance(files, dict) else []
        label = files.get("label") if isinstance(files, dict) else None
        if not images or not isinstance(label, str):
            problems.append(_wrong_entry(name, f"the entry {files!r}"))
            continue
        paths = {channel: naming.root / image for channel, image in enumerate(images)}
        absent = [path for path in (*paths.values(), naming.root / label) if not path.is_file()]
        problems += [
            _missing(
                naming,
                path,
                case=name,
                found="no such file",
                expected=f"the file that {DATASET_JSON} names",
                fix="correct the path (relative to the dataset folder) or add the file",
            )
            for path in absent
        ]
        if not absent:
            problems += _channel_problems(naming.root, name, paths, naming)
        cases.append(
            Case(
                name=name,
                images=tuple(path for path in paths.values() if path not in absent),
                label=None if naming.root / label in absent else naming.root / label,
            )
        )
    return tuple(cases), problems


def _beside(folder: str, name: str, labels: dict[str, Path], naming: Naming) -> Path | None:
    path = naming.root / folder / f"{name}{naming.file_ending}"
    return path if name in labels and path.is_file() else None


def _files(folder: Path, naming: Naming) -> tuple[list[Path], list[Problem]]:
    """Return the visible files with the ending, sorted; a problem if there are none."""
    if not folder.is_dir():
        problem = _missing(
            naming,
            folder,
            case="",
            found="no such folder",
            expected=f"a folder with {naming.file_ending} files",
            fix="create it",
        )
        return [], [problem]
    everything = sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()
    )
    paths = [path for path in everything if path.name.endswith(naming.file_ending)]
    if paths:
        return paths, []
    endings = Counter(_ending(path) for path in everything)
    there = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    problem = _missing(
        naming,
        folder,
        case="",
        found=f"no {naming.file_ending} file; there is: {there or 'nothing'}",
        expected=f"files with the file_ending {naming.file_ending}",
        fix=f"correct file_ending in {DATASET_JSON}, or convert the files",
    )
    return [], [problem]


def _ending(path: Path) -> str:
    for ending in FORMATS:
        if path.name.lower().endswith(ending):
            return path.name[-len(ending) :]
    return path.suffix or "file without ending"


def _channel_problems(
    folder: Path, case: str, channels: dict[int, Path], naming: Naming
) -> list[Problem]:
    """Return a problem for every channel file of a case that is missing or not declared."""
    missing = [number for number in range(naming.num_channels) if number not in channels]
    extra = [number for number in channels if number >= naming.num_channels]
    if missing and not extra and _has_colour_for(channels, naming.num_channels):
        return []
    declared = f"{naming.num_channels} channels, as channel_names of {DATASET_JSON} says"
    problems = [
        _missing(
            naming,
            folder / f"{case}_{number:04d}{naming.file_ending}",
            case=case,
            found=f"channel {number} is missing",
            expected=declared,
            fix="add the file",
        )
        for number in missing
    ]
    problems += [
        _missing(
            naming,
            channels[number],
            case=case,
            found=f"a channel {number}",
            expected=declared,
            fix="declare the channel, or move the file away",
        )
        for number in extra
    ]
    return problems


def _has_colour_for(channels: dict[int, Path], num_channels: int) -> bool:
    """Return whether too few pictures make up for it by colours (or will fail when read)."""
    if sorted(channels) != list(range(len(channels))):
        return False
    file_formats = {path: format_of(path) for path in channels.values()}
    if not all(file_format.may_hold_colour for file_format in file_formats.values()):
        return False
    try:
        found = sum(form.read_grid(path).num_channels for path, form in file_formats.items())
    except DatasetError:
        return True
    return found == num_channels


def _wrong_folder(folder: Path, found: str) -> Problem:
    return Problem(
        file=str(folder),
        found=found,
        expected="scans of one kind: CASE_0000.nii.gz, ... or files of any other name",
        fix=f"rename or move files, or describe them in a {DATASET_JSON}",
    )


def _names(value: Any) -> list[str]:
    """Return a list of strings, or nothing if it is anything else."""
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if is_list else []


def is_plain_name(name: str) -> bool:
    """Return whether a name from a file may become the name of a file: it stays in its folder."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")


def _no_plain_name(case: str) -> Problem:
    return Problem(
        file=DATASET_JSON,
        found=f"a case called {case!r}",
        expected="names without / and \\, because files are called after them",
        fix="rename the case in the entry dataset",
    )


def _wrong_entry(case: str, found: str) -> Problem:
    return Problem(
        case=case,
        file=DATASET_JSON,
        found=found,
        expected='"dataset": {"CASE": {"images": ["path", ...], "label": "path"}, ...}',
        fix="correct the entry",
    )


def _missing(
    naming: Naming, path: Path, *, case: str, found: str, expected: str, fix: str
) -> Problem:
    name = path.relative_to(naming.root) if path.is_relative_to(naming.root) else path
    return Problem(case=case, file=str(name), found=found, expected=expected, fix=fix)
