"""Derive the plans of all networks from a dataset's fingerprint.

Either for a dataset of the workspace (-d), or from files alone (--fingerprint, --dataset-json, -o).
"""

import argparse
import logging
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.cli.environment import resolve_workspace
from sparseunet.errors import RequestError
from sparseunet.workspace import FINGERPRINT_JSON, Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.make_plan import PlannerName
    from sparseunet.planning.plan import Configuration, Plan

logger = logging.getLogger(__name__)

_PLANNERS = ("default", "ResEncM", "ResEncL", "ResEncXL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("-d", "--dataset", nargs="+", metavar="ID", help="ids, names or paths")
    add_planner_arguments(parser)
    files = parser.add_argument_group("from files instead of a dataset")
    files.add_argument("--fingerprint", type=Path, metavar="FILE", help="dataset_fingerprint.json")
    files.add_argument("--dataset-json", type=Path, metavar="FILE", help="dataset.json")
    files.add_argument(
        "--dataset-name", metavar="NAME", help="default: the folder that holds dataset.json"
    )
    files.add_argument("-o", "--output", type=Path, metavar="FILE", help="plans file to write")


def add_planner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide how to plan, for every verb that plans."""
    parser.add_argument(
        "-pl",
        "--planner",
        choices=_PLANNERS,
        default="default",
        help="default: plain U-Net for 8 GB; ResEncM, L, XL: residual encoder for 8, 24, 40 GB",
    )
    parser.add_argument(
        "-gpu_memory_target",
        "--gpu-memory-target",
        type=float,
        metavar="GB",
        help="memory to plan for in place of the planner's own; name the plans as well",
    )
    parser.add_argument(
        "-overwrite_target_spacing",
        "--overwrite-target-spacing",
        nargs=3,
        type=float,
        metavar=("Z", "Y", "X"),
        help="spacing in mm, in the axis order of the files; name the plans as well",
    )
    parser.add_argument(
        "-overwrite_plans_name",
        "--overwrite-plans-name",
        metavar="NAME",
        help="name of the plans file in place of the planner's own",
    )


def run(arguments: argparse.Namespace) -> int:
    """Plan every dataset asked for, or one pair of files."""
    options = planner_options(arguments)
    from_files = (arguments.fingerprint, arguments.dataset_json, arguments.output)
    if arguments.dataset and not any(from_files):
        from sparseunet.data.load import load_dataset

        workspace = resolve_workspace(arguments.workspace)
        for name in arguments.dataset:
            dataset = load_dataset(workspace.raw_dataset(name))
            plan = plan_dataset(workspace, dataset, **options)
            print(describe_plan(plan))
            print(workspace.plans_file(plan.dataset_name, plan.plans_name))
        return 0
    if arguments.dataset or not all(from_files):
        raise RequestError(
            "Give either -d, or all of --fingerprint, --dataset-json and -o (found "
            + (", ".join(_given(arguments)) or "neither")
            + ")."
        )
    print(describe_plan(_plan_files(arguments, options)))
    print(arguments.output)
    return 0


def planner_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn the options of `add_planner_arguments` into arguments of `plan_dataset`."""
    changed = arguments.gpu_memory_target, arguments.overwrite_target_spacing
    if any(changed) and arguments.overwrite_plans_name is None:
        raise RequestError(
            "Another memory or target spacing makes other plans than the planner's name stands "
            "for; give them a name with --overwrite-plans-name."
        )
    return {
        "planner": arguments.planner,
        "gpu_memory_gb": arguments.gpu_memory_target,
        "target_spacing_mm": arguments.overwrite_target_spacing,
        "plans_name": arguments.overwrite_plans_name,
    }


def plan_dataset(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    planner: "PlannerName" = "default",
    fingerprint: "Fingerprint | None" = None,
    target_spacing_mm: Sequence[float] | None = None,
    gpu_memory_gb: float | None = None,
    plans_name: str | None = None,
) -> "Plan":
    """Plan a dataset and write its plans file.

    Configurations that a person added to an existing plans file are kept, those of the planner are
    replaced.

    Args:
        workspace: Where the fingerprint lies and the plans go.
        dataset: What is planned for.
        planner: See `make_plan`, like the last three.
        fingerprint: The dataset's; None reads the stored one.
        target_spacing_mm: Along the file's (z, y, x).
        gpu_memory_gb: In place of the planner's own.
        plans_name: In place of the planner's own.

    Raises:
        RequestError: There is no fingerprint, or it is of another number of cases.
    """
    from sparseunet.planning.make_plan import make_plan

    if fingerprint is None:
        fingerprint = _read_fingerprint(workspace, dataset)
    plan = make_plan(
        fingerprint,
        dataset_json=dataset.description,
        dataset_name=dataset.name,
        planner=planner,
        target_spacing_mm=target_spacing_mm,
        gpu_memory_gb=gpu_memory_gb,
        plans_name=plans_name,
    )
    return _write_plan(workspace.plans_file(dataset.name, plan.plans_name), plan, fingerprint)


def describe_plan(plan: "Plan") -> str:
    """Return the plan as a table for a person, with the reason for each configuration."""
    first = next(iter(plan.configurations.values()))
    masked = "" if not any(first.use_mask_for_norm) else ", inside the nonzero mask only"
    order = ("z", "y", "x")
    axes = ", ".join(order[axis] for axis in plan.transpose_forward)
    lines = [
        f"{plan.dataset_name}: {plan.plans_name} (planner {plan.planner})",
        f"  normalization {', '.join(first.normalization)}{masked}; axes of the plan: {axes}",
        "",
    ]
    head = ("configuration", "spacing mm", "median shape", "patch", "batch", "stages", "features")
    rows = [head, *(_row(configuration) for configuration in plan.configurations.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    reasons = ["why", *(_reason(item, plan) for item in plan.configurations.values())]
    for row, reason in zip(rows, reasons, strict=True):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {cells}  {reason}")
    return "\n".join(lines)


def _row(configuration: "Configuration") -> tuple[str, ...]:
    features = configuration.network.features_per_stage
    return (
        configuration.name,
        _times(configuration.spacing_mm),
        _times(configuration.median_shape),
        _times(configuration.patch_size),
        str(configuration.batch_size),
        str(len(configuration.network.strides)),
        f"{features[0]}-{features[-1]}",
    )


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _reason(configuration: "Configuration", plan: "Plan") -> str:
    if configuration.name == "3d_cascade_fullres":
        return "refines the result of 3d_lowres with the network of 3d_fullres"
    edges = zip(configuration.patch_size, configuration.median_shape, strict=True)
    share = prod(min(1.0, edge / size) for edge, size in edges)
    thing = "slice" if configuration.dimensions == 2 else "image"
    if share >= 1:
        seen = f"the patch holds a whole median {thing}"
    else:
        seen = f"the largest patch that fits in memory holds {share:.0%} of the median {thing}"
    if configuration.name == "3d_lowres":
        full = plan.configurations["3d_fullres"]
        coarser = configuration.spacing_mm[-1] / full.spacing_mm[-1]
        return f"{coarser:.2g} times coarser in plane, so that {seen}"
    return seen


def _plan_files(arguments: argparse.Namespace, options: dict[str, Any]) -> "Plan":
    from sparseunet.artifacts import read_json
    from sparseunet.fingerprint.fingerprint import fingerprint_from_json
    from sparseunet.planning.make_plan import make_plan

    content = read_json(arguments.fingerprint)
    fingerprint = fingerprint_from_json(content, source=str(arguments.fingerprint))
    dataset_json = read_json(arguments.dataset_json)
    if not isinstance(dataset_json, dict):
        raise RequestError(f"{arguments.dataset_json} must hold an object, e.g. {{...}}.")
    name = arguments.dataset_name or arguments.dataset_json.resolve().parent.name
    plan = make_plan(fingerprint, dataset_json=dataset_json, dataset_name=name, **options)
    return _write_plan(arguments.output, plan, fingerprint)


def _given(arguments: argparse.Namespace) -> list[str]:
    flags = {
        "-d": arguments.dataset,
        "--fingerprint": arguments.fingerprint,
        "--dataset-json": arguments.dataset_json,
        "-o": arguments.output,
    }
    return [flag for flag, value in flags.items() if value]


def _read_fingerprint(workspace: Workspace, dataset: "Dataset") -> "Fingerprint":
    from sparseunet.artifacts import read_json
    from sparseunet.fingerprint.fingerprint import fingerprint_from_json

    path = workspace.preprocessed_dataset(dataset.name) / FINGERPRINT_JSON
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist; run sparseunet extract_fingerprint -d {dataset.name} first."
        )
    fingerprint = fingerprint_from_json(read_json(path), source=str(path))
    if len(fingerprint.spacings_mm) != len(dataset.cases):
        raise RequestError(
            f"{path} is of {len(fingerprint.spacings_mm)} cases, the dataset has "
            f"{len(dataset.cases)}; run sparseunet extract_fingerprint -d {dataset.name} again."
        )
    return fingerprint


def _write_plan(path: Path, plan: "Plan", fingerprint: "Fingerprint") -> "Plan":
    """Write the plans file and return what it now says."""
    from sparseunet.artifacts import hash_content, read_json, write_json
    from sparseunet.fingerprint.fingerprint import fingerprint_to_json
    from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet

    ours = {
        "intensity_source": fingerprint.intensity_source,
        "num_foreground_voxels": fingerprint.num_foreground_voxels,
        "num_foreground_cases": fingerprint.num_foreground_cases,
        "fingerprint_hash": hash_content(fingerprint_to_json(fingerprint)),
    }
    content = plan_to_nnunet(plan, sparseunet=ours)
    before = read_json(path) if path.is_file() else {}
    kept = _added_by_hand(before)
    content["configurations"].update(kept)
    written = plan_from_nnunet(content, source=str(path))
    if kept:
        logger.warning("%s: kept the configurations %s.", path, ", ".join(kept))
    if before and hash_content(before) != hash_content(content):
        logger.warning("%s: replaced; it held another plan.", path)
    write_json(path, content)
    return written


def _added_by_hand(before: Any) -> dict[str, Any]:
    """Return the configurations of a plans file that no planner makes."""
    from sparseunet.planning.make_plan import PLANNED_CONFIGURATIONS

    configurations = before.get("configurations", {}) if isinstance(before, dict) else {}
    return {
        name: configuration
        for name, configuration in configurations.items()
        if name not in PLANNED_CONFIGURATIONS
    }
