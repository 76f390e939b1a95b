"""Bring every case on the grid of each network: crop, normalise, resample, store.

Cases whose files and settings have not changed since the last time are left as they are, and an
interrupted run goes on where it stopped. Also puts beside them what training needs: dataset.json,
the folds (an existing splits_final.json is kept; new cases are added to it) and the ground truth.
"""

import argparse
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import DATASET_JSON, GROUND_TRUTH, SPLITS_JSON, Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.planning.plan import Configuration, Plan
    from sparseunet.preprocessing.dataset import PreprocessingSummary

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="ids, names or paths"
    )
    parser.add_argument(
        "-pl",
        "-plans_name",
        "--plans-name",
        default="nnUNetPlans",
        metavar="NAME",
        help="name of the plans file (default: %(default)s)",
    )
    add_preprocessing_arguments(parser)


def add_preprocessing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every verb that preprocesses."""
    parser.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        metavar="NAME",
        help="2d, 3d_fullres, ... (default: all that the plan has)",
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Preprocess every dataset asked for."""
    from sparseunet.artifacts import read_json
    from sparseunet.data.load import load_dataset
    from sparseunet.planning.nnunet_plans import plan_from_nnunet

    workspace = resolve_workspace(arguments.workspace)
    for name in arguments.dataset:
        dataset = load_dataset(workspace.raw_dataset(name))
        plans_file = workspace.plans_file(dataset.name, arguments.plans_name)
        if not plans_file.is_file():
            raise RequestError(
                f"{plans_file} does not exist. Run sparseunet plan_experiment -d {name} first, or "
                "name other plans with --plans-name."
            )
        preprocess_configurations(
            workspace,
            dataset,
            plan=plan_from_nnunet(read_json(plans_file), source=str(plans_file)),
            names=arguments.configuration,
            num_workers=arguments.num_workers,
        )
    return 0


def preprocess_configurations(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    plan: "Plan",
    names: Sequence[str] | None,
    num_workers: int,
) -> None:
    """Preprocess a dataset for some configurations, print what was done, and prepare training.

    Args:
        workspace: Where the results go.
        dataset: The raw dataset.
        plan: The dataset's.
        names: Configurations of the plan; None for all.
        num_workers: Cases in memory at the same time.

    Raises:
        RequestError: The plan does not have one of the configurations.
        DatasetError: Some cases failed, and the others are done; or annotation.json is wrong.
    """
    from sparseunet.annotation.annotated_classes import read_annotated_classes
    from sparseunet.artifacts import write_json
    from sparseunet.preprocessing.dataset import preprocess_dataset
    from sparseunet.progress import format_duration

    configurations = _choose(plan, names)
    annotated_classes = read_annotated_classes(dataset)
    folder = workspace.preprocessed_dataset(dataset.name)
    write_json(folder / DATASET_JSON, dataset.description)
    _write_splits(folder / SPLITS_JSON, dataset)
    _link_ground_truth(folder / GROUND_TRUTH, dataset)
    start = time.monotonic()
    summaries = preprocess_dataset(
        dataset,
        plan=plan,
        configurations=configurations,
        folder=folder,
        num_workers=num_workers,
        annotated_classes=annotated_classes,
    )
    for configuration, summary in zip(configurations, summaries, strict=True):
        print(_describe(summary, dataset))
        print(f"  {folder / configuration.data_identifier}")
    print(f"{dataset.name}: preprocessed in {format_duration(time.monotonic() - start)}")


def _choose(plan: "Plan", names: Sequence[str] | None) -> list["Configuration"]:
    """Return the configurations, without those that share the preprocessed data of another."""
    unknown = [name for name in names or () if name not in plan.configurations]
    if unknown:
        raise RequestError(
            f"{plan.plans_name} of {plan.dataset_name} has no configuration {', '.join(unknown)}; "
            f"it has: {', '.join(plan.configurations)}."
        )
    chosen = [plan.configurations[name] for name in names or plan.configurations]
    return list({item.data_identifier: item for item in reversed(chosen)}.values())[::-1]


def _describe(summary: "PreprocessingSummary", dataset: "Dataset") -> str:
    unchanged = f", {summary.num_unchanged} unchanged" if summary.num_unchanged else ""
    text = f"{dataset.name} {summary.configuration}: {summary.num_cases} cases{unchanged}"
    if summary.num_partly_annotated_cases:
        text += f", {summary.num_partly_annotated_cases} annotated for some classes only"
    if summary.num_dense_cases == summary.num_cases:
        return f"{text}, all annotated densely"
    before, after = (
        " / ".join(map(str, counts))
        for counts in (summary.annotated_slices_before, summary.annotated_slices_after)
    )
    return (
        f"{text}, {summary.num_annotated_cases} annotated ({summary.num_dense_cases} densely), "
        f"{summary.annotated_share:.2%} of all voxels; slices with annotation along z / y / x: "
        f"{before} in the files, {after} on the network's grid"
    )


def _write_splits(path: Path, dataset: "Dataset") -> None:
    """Split the cases for cross-validation; splits that are there are brought up to date."""
    from sparseunet.artifacts import read_json, write_json
    from sparseunet.data.groups import parse_groups
    from sparseunet.planning.splits import (
        extend_splits,
        make_splits,
        splits_from_json,
        splits_to_json,
        torn_groups,
    )

    names = {case.name for case in dataset.cases}
    groups = parse_groups(dataset.description, sorted(names))
    given = next((file for file in (path, dataset.folder / SPLITS_JSON) if file.is_file()), None)
    if given is None:
        if len(names if groups is None else set(groups.values())) < 2:
            one = "case" if groups is None else "group"
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
    torn = torn_groups(splits, groups or {})
    if torn:
        logger.warning(
            "%s trains and validates on the same group of dataset.json in some fold (%s), so "
            "validation scores are too high; remove the file and run this again to make other "
            "folds, and train again.",
            given,
            ", ".join(torn[:5]) + ", ..." * (len(torn) > 5),
        )


def _link_ground_truth(folder: Path, dataset: "Dataset") -> None:
    """Link or copy the label files, and remove those of cases that are gone.

    Of cases whose labels were not all drawn by a person, those that were are written.
    """
    from sparseunet.artifacts import atomic_path
    from sparseunet.data.io import write_label_map
    from sparseunet.data.provenance import manual_only, read_case_annotation

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
