"""Find the cases of a raw dataset, or the scans in any folder, without reading voxels."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.description import (
    broken_description,
    examine_description,
    missing_description,
    parse_labels,
)
from sparseunet.data.formats import FORMATS, format_of
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.workspace import DATASET_JSON

__all__ = ["Survey", "find_scans", "load_dataset", "parse_labels", "survey_dataset"]

IMAGES_FOLDER = "imagesTr"
LABELS_FOLDER = "labelsTr"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A raw dataset as far as it can be understood, with every problem of its description."""

    folder: Path
    channel_names: tuple[str, ...]
    """Empty if unknown."""
    labels: LabelSchema | None
    file_ending: str
    """Empty if unknown."""
    cases: tuple[Case, ...]
    """Every case of which there is a file; images or label may be missing."""
    description: dict
    problems: tuple[Problem, ...]


def load_dataset(folder: Path) -> Dataset:
    """Read `dataset.json` and list the training cases of a raw dataset in nnU-Net's layout.

    Cases come from `imagesTr` and `labelsTr`, or from the entry `dataset` of the description,
    whose paths are relative to `folder`. Voxels are not looked at.

    Raises:
        DatasetError: Every problem of the description and every missing file.
    """
    survey = survey_dataset(folder)
    if survey.problems or survey.labels is None:
        raise DatasetError(survey.problems)
    return Dataset(
        folder=survey.folder,
        name=survey.folder.name,
        channel_names=survey.channel_names,
        labels=survey.labels,
        file_ending=survey.file_ending,
        cases=survey.cases,
        description=survey.description,
    )


def survey_dataset(folder: Path) -> Survey:
    """Understand as much of a raw dataset as possible, collecting problems instead of raising."""
    folder = folder.resolve()
    content, unreadable = _read_description(folder)
    if unreadable is not None:
        return _empty_survey(folder, [unreadable])
    described = examine_description(content)
    problems = list(described.problems)
    cases: tuple[Case, ...] = ()
    if described.channel_names is not None and described.file_ending is not None:
        finder = _Finder(described.file_ending, len(described.channel_names), folder, problems)
        explicit = content.get("dataset")
        cases = finder.listed(explicit) if explicit else finder.training_cases()
        num_training = described.num_training
        if cases and num_training is not None and num_training != len(cases):
            problems.append(_wrong_number(num_training, len(cases)))
    return Survey(
        folder=folder,
        channel_names=described.channel_names or (),
        labels=described.labels,
        file_ending=described.file_ending or "",
        cases=cases,
        description=content if isinstance(content, dict) else {},
        problems=tuple(problems),
    )


def find_scans(folder: Path, *, file_ending: str, num_channels: int) -> tuple[Case, ...]:
    """Return the scans CASE_0000.ext, CASE_0001.ext, ... in a folder, sorted by name, unlabelled.

    Raises:
        DatasetError: No scan at all, files without a channel number, missing or extra channels.
    """
    problems: list[Problem] = []
    finder = _Finder(file_ending, num_channels, folder, problems)
    images = finder.images(folder)
    if problems:
        raise DatasetError(problems)
    return tuple(Case(name=name, images=files, label=None) for name, files in images.items())
