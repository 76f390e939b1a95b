"""Prepare a raw dataset for training: check, fingerprint, plan, folds, ground truth, grid."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.artifacts import atomic_path, read_json, write_json
from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.dataset import Dataset, Split
from sparseunet.data.density import write_label_densities
from sparseunet.data.groups import parse_groups
from sparseunet.data.io import write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import load_dataset, parse_labels
from sparseunet.data.provenance import manual_only, read_case_annotation
from sparseunet.errors import DatasetError, RequestError
from sparseunet.fingerprint.extract import Examination, examine_dataset
from sparseunet.fingerprint.fingerprint import fingerprint_to_json
from sparseunet.machine import processors
from sparseunet.planning.nnunet_plans import budgeted_iterations, plan_from_nnunet
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.planner import PlanOptions, plan_dataset
from sparseunet.planning.splits import (
    extend_splits,
    make_splits,
    splits_from_json,
    splits_to_json,
    torn_groups,
)
from sparseunet.preprocessing.dataset import PreprocessingSummary, preprocess_dataset
from sparseunet.preprocessing.store import CaseStore
from sparseunet.workspace import (
    DATASET_JSON,
    EXAMINED,
    FINGERPRINT_JSON,
    GROUND_TRUTH,
    SPLITS_JSON,
    Workspace,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A dataset that can be trained on, as it lies in `preprocessed/DATASET` of a workspace.

    Attributes:
        workspace: Where it lies, and where runs go.
        plan: Of the dataset, with every configuration.
        dataset_json: Content of `dataset.json`.
        planned_iterations: By configuration, the length that a plan for a time budget chose.
        raw: Folder of the raw dataset; None: the workspace is asked when it is needed.
    """

    workspace: Workspace
    plan: Plan
    dataset_json: dict[str, Any]
    planned_iterations: Mapping[str, int]
    raw: Path | None = None

    @property
    def name(self) -> str:
        """`DatasetXXX_Name`."""
        return self.plan.dataset_name

    @property
    def folder(self) -> Path:
        """Folder of everything that was prepared."""
        return self.workspace.preprocessed_dataset(self.name)

    @property
    def labels(self) -> LabelSchema:
        """The classes of the dataset."""
        return parse_labels(self.dataset_json)

    @property
    def file_ending(self) -> str:
        """Ending of images and label maps, with the dot."""
        return str(self.dataset_json["file_ending"])

    @property
    def ground_truth(self) -> Path:
        """Folder of the label files as a person drew them."""
        return self.folder / GROUND_TRUTH

    def __repr__(self) -> str:
        return f"Prepared({self.name}, {', '.join(self.plan.configurations)}, in {self.folder})"

    def configuration(self, name: str) -> Configuration:
        """Return a configuration of the plan.

        Raises:
            RequestError: There is none of that name; lists those there are.
        """
        if name not in self.plan.configurations:
            raise RequestError(
                f"The plan of {self.name} has no configuration {name!r}; it has: "
                f"{', '.join(self.plan.configurations)}.",
                setting="configuration",
            )
        return self.plan.configurations[name]

    def store(self, configuration: Configuration) -> CaseStore:
        """Return the preprocessed cases of a configuration."""
        return CaseStore(self.folder / configuration.data_identifier)

    def splits(self) -> tuple[Split, ...]:
        """Return the folds.

        Raises:
            RequestError: There are none; says how to make them.
        """
        path = self.folder / SPLITS_JSON
        return splits_from_json(_read_prepared(path, self.name), source=str(path))

    def split(self, fold: int | str, cases: Sequence[str]) -> Split:
        """Return the cases of a fold: 0, 1, ..., or `all` of `cases` without validation.

        Raises:
            RequestError: There is no such fold, or it names other cases than `cases`.
        """
        if fold == "all":
            return Split(train=tuple(cases), val=())
        source = self.folder / SPLITS_JSON
        one = None if source.is_file() else _what_cannot_be_split(cases, self.dataset_json)
        if one is not None:
            raise RequestError(
                f"{self.name} has one {one}, which cannot be split into folds; train on the fold "
                "all.",
                setting="fold",
            )
        splits = self.splits()
        if not str(fold).isdigit() or int(fold) >= len(splits):
            raise RequestError(
                f"No fold {fold!r}; expected 0 to {len(splits) - 1} (from {source}) or all.",
                setting="fold",
            )
        split = splits[int(fold)]
        missing = sorted({*split.train, *split.val} - set(cases))
        if missing:
            raise RequestError(
                f"{source} names cases that are not preprocessed: {', '.join(missing)}. Run "
                f"sparseunet plan_and_preprocess -d {self.name} again."
            )
        return split

    def raw_dataset(self) -> Dataset:
        """Return the raw dataset, whose scans are segmented in validation."""
        return load_dataset(self.raw or self.workspace.raw_dataset(self.name))


def prepare(
    dataset: Dataset | Path | str,
    *,
    workspace: Workspace | Path | str,
    configurations: Sequence[str] | None = None,
    options: PlanOptions | None = None,
    num_workers: int | None = None,
) -> Prepared:
    """Check, measure, plan and preprocess a raw dataset; what is up to date is not done again.

    The same as `sparseunet plan_and_preprocess`.

    Args:
        dataset: The raw dataset, or its folder.
        workspace: Where the result goes, or its root folder.
        configurations: `2d`, `3d_fullres`, ...; None for all that are planned.
        options: How to plan; None for nnU-Net's rules.
        num_workers: Cases in memory at the same time; None for one per processor.

    Raises:
        DatasetError: The check rejects the dataset; holds every problem.
        RequestError: The plan lacks a configuration, or `options` do not fit.
    """
    folder = dataset.folder if isinstance(dataset, Dataset) else Path(dataset)
    place = workspace if isinstance(workspace, Workspace) else Workspace.at(Path(workspace))
    num_workers = num_workers or processors()
    examination = examine(place, folder, num_workers=num_workers)
    found = examination.dataset
    if found is None:
        raise DatasetError(examination.report.problems)
    plan = plan_dataset(place, found, options=options, fingerprint=examination.fingerprint)
    preprocess(place, found, plan=plan, names=configurations, num_workers=num_workers)
    return Prepared(
        workspace=place,
        plan=plan,
        dataset_json=found.description,
        planned_iterations={},
        raw=found.folder,
    )


def load_prepared(
    workspace: Workspace | Path | str,
    dataset: Dataset | Path | str,
    *,
    plans_name: str = "nnUNetPlans",
) -> Prepared:
    """Return what `prepare` or the commands left in a workspace.

    Args:
        workspace: Where it lies.
        dataset: Id, name or path, or what was loaded from there.
        plans_name: Which of its plans.

    Raises:
        RequestError: The dataset is not prepared; says how.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace.at(Path(workspace))
    name = dataset.name if isinstance(dataset, Dataset) else place.dataset_name(str(dataset))
    plans_file = place.plans_file(name, plans_name)
    content = _read_prepared(plans_file, name)
    plan = plan_from_nnunet(content, source=str(plans_file))
    iterations = {each: budgeted_iterations(content, each) for each in plan.configurations}
    return Prepared(
        workspace=place,
        plan=plan,
        dataset_json=_read_prepared(place.preprocessed_dataset(name) / DATASET_JSON, name),
        planned_iterations={
            each: number for each, number in iterations.items() if number is not None
        },
    )


def examine(
    workspace: Workspace, folder: Path, *, num_workers: int, redo: bool = False
) -> Examination:
    """Check and measure a raw dataset, and keep what was found in the workspace.

    Of a dataset that is accepted, `dataset_fingerprint.json`, `label_density.json` and a copy of
    `dataset.json` are written to the preprocessed dataset.

    Args:
        workspace: Where to store it.
        folder: The raw dataset.
        num_workers: Cases in memory at the same time.
        redo: Look at every case again, even at those that have not changed.
    """
    target = workspace.preprocessed_dataset(folder.resolve().name)
    examination = examine_dataset(
        folder, num_workers=num_workers, records=target / EXAMINED, redo=redo
    )
    if examination.dataset is not None and examination.fingerprint is not None:
        content = fingerprint_to_json(examination.fingerprint, data_hash=examination.data_hash)
        write_json(target / DATASET_JSON, examination.dataset.description)
        write_json(target / FINGERPRINT_JSON, content)
        write_label_densities(
            workspace.label_density_file(examination.dataset.name),
            examination.densities,
            data_hash=examination.data_hash,
        )
    return examination


def preprocess(
    workspace: Workspace,
    dataset: Dataset,
    *,
    plan: Plan,
    names: Sequence[str] | None,
    num_workers: int,
) -> list[tuple[Configuration, PreprocessingSummary]]:
    """Preprocess a dataset for some configurations, and write its folds and ground truth.

    Args:
        workspace: Where the results go.
        dataset: The raw dataset.
        plan: The dataset's.
        names: Configurations of the plan; None for all. Those that share preprocessed data count
            once.
        num_workers: Cases in memory at the same time.

    Raises:
        RequestError: The plan does not have one of the configurations.
        DatasetError: Some cases failed, and the others are done; or annotation.json is wrong.
    """
    configurations = _choose(plan, names)
    annotated_classes = read_annotated_classes(dataset)
    folder = workspace.preprocessed_dataset(dataset.name)
    write_json(folder / DATASET_JSON, dataset.description)
    _write_splits(folder / SPLITS_JSON, dataset)
    _link_ground_truth(folder / GROUND_TRUTH, dataset)
    summaries = preprocess_dataset(
        dataset,
        plan=plan,
        configurations=configurations,
        folder=folder,
        num_workers=num_workers,
        annotated_classes=annotated_classes,
    )
    return list(zip(configurations, summaries, strict=True))


def _read_prepared(path: Path, dataset_name: str) -> Any:
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist. Prepare the dataset first: sparseunet plan_and_preprocess -d "
            f"{dataset_name}"
        )
    return read_json(path)


def _choose(plan: Plan, names: Sequence[str] | None) -> list[Configuration]:
    """Return the configurations, without those that share the preprocessed data of another."""
    unknown = [name for name in names or () if name not in plan.configurations]
    if unknown:
        raise RequestError(
            f"{plan.plans_name} of {plan.dataset_name} has no configuration {', '.join(unknown)}; "
            f"it has: {', '.join(plan.configurations)}."
        )
    chosen = [plan.configurations[name] for name in names or plan.configurations]
    return list({item.data_identifier: item for item in reversed(chosen)}.values())[::-1]


def _what_cannot_be_split(cases: Sequence[str], description: Mapping[str, Any]) -> str | None:
    """Return `case` or `group` if there is only one, which no folds can be made of."""
    groups = parse_groups(description, list(cases))
    if len(cases if groups is None else set(groups.values())) >= 2:
        return None
    return "case" if groups is None else "group of cases"


def _write_splits(path: Path, dataset: Dataset) -> None:
    """Split the cases for cross-validation; splits that are there are brought up to date."""
    names = {case.name for case in dataset.cases}
    groups = parse_groups(dataset.description, sorted(names))
    given = next((file for file in (path, dataset.folder / SPLITS_JSON) if file.is_file()), None)
    if given is None:
        if (one := _what_cannot_be_split(sorted(names), dataset.description)) is not None:
            logger.warning("%s has one %s and so no folds; train on fold all.", dataset.name, one)
        else:
            write_json(path, splits_to_json(make_splits(sorted(names), groups=groups)))
        return
    splits = splits_from_json(read_json(given), source=str(given))
    found = {name for split in splits for name in (*split.train, *split.val)}
    if found != names:
        splits = extend_splits(splits, sorted(names), groups=groups)
        logger.warning(
            "%s: new cases were added to the folds (%s), cases that are gone were removed (%s); "
            "all others stay where they were.",
            path,
            ", ".join(sorted(names - found)) or "none",
            ", ".join(sorted(found - names)) or "none",
        )
    if given != path or found != names:
        write_json(path, splits_to_json(splits))
    divided_groups = torn_groups(splits, groups or {})
    if divided_groups:
        logger.warning(
            "%s trains and validates on the same group of dataset.json in some fold (%s), so "
            "validation scores are too high; remove the file and run this again to make other "
            "folds, and train again.",
            given,
            ", ".join(divided_groups[:5]) + ", ..." * (len(divided_groups) > 5),
        )


def _link_ground_truth(folder: Path, dataset: Dataset) -> None:
    """Link or copy the label files, and remove those of cases that are gone.

    Of cases whose labels were not all drawn by a person, those that were are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = {
        f"{case.name}{dataset.file_ending}": case.label
        for case in dataset.cases
        if case.label is not None
    }
    for path in folder.iterdir():
        if path.name.endswith(dataset.file_ending) and path.name not in labels:
            path.unlink()
    for case in dataset.cases:
        if case.label is not None and case.provenance is not None:
            del labels[f"{case.name}{dataset.file_ending}"]
            annotation, geometry = read_case_annotation(case, dataset.labels)
            drawn_ZYX = manual_only(annotation).to_label_map(ignore=dataset.labels.ignore)
            write_label_map(folder / f"{case.name}{dataset.file_ending}", drawn_ZYX, geometry)
    for name, label in labels.items():
        target = folder / name
        if target.exists() and target.samefile(label):
            continue
        with atomic_path(target) as temporary:
            try:
                os.link(label.resolve(), temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(label, temporary)
