"""Read the description of a raw dataset and find its cases, without reading voxels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.description import (
    NOTHING_DESCRIBED,
    broken_description,
    examine_description,
    missing_description,
    parse_labels,
)
from sparseunet.data.find import (
    Naming,
    find_images,
    find_listed_cases,
    find_loose_scans,
    find_training_cases,
)
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError
from sparseunet.workspace import DATASET_JSON

__all__ = [
    "Survey",
    "find_scans",
    "load_dataset",
    "load_scan_folder",
    "parse_labels",
    "survey_dataset",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A raw dataset as far as it can be understood, with every problem of its description."""

    folder: Path
    channel_names: tuple[str, ...]
    """Empty if unknown."""
    labels: LabelSchema | None
    """Classes of the dataset; None if the description is wrong."""
    file_ending: str
    """Empty if unknown."""
    cases: tuple[Case, ...]
    """Every case of which there is a file; images or label may be missing."""
    description: dict
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> "Survey":
        """Return what a survey of a dataset without any problem gives."""
        return cls(
            folder=dataset.folder,
            channel_names=dataset.channel_names,
            labels=dataset.labels,
            file_ending=dataset.file_ending,
            cases=dataset.cases,
            description=dataset.description,
            problems=(),
        )

    def without_cases(self) -> "Survey":
        """Return what is known about the dataset as a whole, which is small enough to send."""
        return replace(self, cases=(), description={}, problems=())

    def to_dataset(self) -> Dataset:
        """Return the dataset, if it is described as it should be.

        Raises:
            DatasetError: Every problem of the description and every missing file.
        """
        if self.problems or self.labels is None:
            raise DatasetError(self.problems)
        return Dataset(
            folder=self.folder,
            name=self.folder.name,
            channel_names=self.channel_names,
            labels=self.labels,
            file_ending=self.file_ending,
            cases=self.cases,
            description=self.description,
        )


def load_dataset(folder: Path | str, *, needs_labels: bool = True) -> Dataset:
    """Read `dataset.json` and list the training cases of a raw dataset in nnU-Net's layout.

    Cases come from `imagesTr` and `labelsTr`, or from the entry `dataset` of the description,
    whose paths are relative to `folder`. Voxels are not looked at.

    Args:
        folder: The dataset folder.
        needs_labels: Whether every image in `imagesTr` must have a label. Where it need not,
            `labelsTr` may be missing too: that is a dataset before annotation.

    Raises:
        DatasetError: Every problem of the description and every missing file.
    """
    return survey_dataset(Path(folder), needs_labels=needs_labels).to_dataset()


def survey_dataset(folder: Path, *, needs_labels: bool = True) -> Survey:
    """Understand as much of a raw dataset as possible, collecting problems instead of raising."""
    folder = folder.resolve()
    content, problems = _read_description(folder)
    described = NOTHING_DESCRIBED if problems else examine_description(content)
    problems += described.problems
    cases: tuple[Case, ...] = ()
    if described.channel_names is not None and described.file_ending is not None:
        naming = Naming(
            file_ending=described.file_ending,
            num_channels=len(described.channel_names),
            root=folder,
        )
        cases, missing = _find_cases(
            content, naming, described.num_training, needs_labels=needs_labels
        )
        problems += missing
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
    naming = Naming(file_ending=file_ending, num_channels=num_channels, root=folder)
    images, problems = find_images(folder, naming)
    if problems:
        raise DatasetError(problems)
    return tuple(Case(name=name, images=files, label=None) for name, files in images.items())


def load_scan_folder(folder: Path | str) -> Dataset:
    """Return the scans of a folder that no `dataset.json` describes, as a dataset without classes.

    Its name is the folder's. See `find_loose_scans` for what the files may be called.

    Raises:
        DatasetError: No folder, no scan, or files that can be understood in several ways.
    """
    folder = Path(folder).resolve()
    file_ending, cases = find_loose_scans(folder)
    return Dataset(
        folder=folder,
        name=folder.name,
        channel_names=tuple(str(number) for number in range(len(cases[0].images))),
        labels=LabelSchema(classes={"background": 0}, regions={}),
        file_ending=file_ending,
        cases=cases,
        description={},
    )


def _read_description(folder: Path) -> tuple[Any, list[Problem]]:
    path = folder / DATASET_JSON
    if not path.is_file():
        return None, [missing_description(str(path))]
    try:
        return read_json(path), []
    except RequestError as error:
        return None, [broken_description(str(error))]


def _find_cases(
    content: dict, naming: Naming, num_training: int | None, *, needs_labels: bool
) -> tuple[tuple[Case, ...], list[Problem]]:
    listed = content.get("dataset")
    cases, problems = (
        find_training_cases(naming, needs_labels=needs_labels)
        if listed is None
        else find_listed_cases(listed, naming)
    )
    if cases and num_training is not None and num_training != len(cases):
        wrong_number = Problem(
            file=DATASET_JSON,
            found=f"numTraining {num_training}, but {len(cases)} cases in the folder",
            expected="the number of cases there are",
            fix=f"write {len(cases)}, or add the missing cases",
        )
        problems = [*problems, wrong_number]
    return cases, problems
