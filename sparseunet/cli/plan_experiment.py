"""Derive the plans of all networks from a dataset's fingerprint.

Either for a dataset of the workspace (-d), or from files alone (--fingerprint, --dataset-json, -o).
Beside the plans file lies a report, PLANSNAME_report.md: why each number is what it is, what a
batch holds, whether the labels speak for 2D or 3D, and what to watch out for.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.flags import FlagNames, add_flags, flag_of, given_values
from sparseunet.cli.options import minutes
from sparseunet.errors import RequestError
from sparseunet.planning.planner import FitToTime, PlanOptions, make_adapted_plan, plan_dataset
from sparseunet.workspace import INTERPOLATION_JSON, Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.plan import Configuration, Plan

_SPELLING = FlagNames(
    flags={
        "planner": ("-pl", "--planner"),
        "gpu_memory_gb": ("-gpu_memory_target", "--gpu-memory-target"),
        "target_spacing_mm": ("-overwrite_target_spacing", "--overwrite-target-spacing"),
        "plans_name": ("-overwrite_plans_name", "--overwrite-plans-name"),
        "time_budget_min": ("--time-budget",),
        "device": ("-device", "--device"),
    },
    metavars={
        "gpu_memory_gb": "GB",
        "target_spacing_mm": ("Z", "Y", "X"),
        "time_budget_min": "TIME",
        "device": "DEVICE",
        "plans_from": "ID",
    },
    readers={"time_budget_min": minutes},
    defaults={"source_plans": "the planner's"},
)


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
    rules = ("planner", "gpu_memory_gb", "target_spacing_mm", "plans_name", "sparse_aware")
    add_flags(parser, PlanOptions, rules, _SPELLING)
    machine = parser.add_argument_group("for this machine")
    add_flags(machine, PlanOptions, ("time_budget_min", "device"), _SPELLING)
    moved = parser.add_argument_group("the plans of another dataset, for fine-tuning")
    add_flags(moved, PlanOptions, ("plans_from", "source_plans"), _SPELLING)


def run(arguments: argparse.Namespace) -> int:
    """Plan every dataset asked for, or one pair of files."""
    options = planner_options(arguments)
    from_files = (arguments.fingerprint, arguments.dataset_json, arguments.output)
    if arguments.dataset and not any(from_files):
        from sparseunet.data.load import load_dataset

        workspace = resolve_workspace(arguments.workspace)
        for name in arguments.dataset:
            dataset = load_dataset(workspace.raw_dataset(name))
            plan = plan_and_tell(workspace, dataset, **options)
            print(workspace.plans_file(plan.dataset_name, plan.plans_name))
        return 0
    if arguments.dataset or not all(from_files):
        raise RequestError(
            "Give either -d, or all of --fingerprint, --dataset-json and -o (found "
            + (", ".join(_given(arguments)) or "neither")
            + ")."
        )
    print(describe_plan(_plan_files(arguments, **options)))
    print(arguments.output)
    return 0


def planner_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn the options of `add_planner_arguments` into arguments of `plan_dataset`.

    Raises:
        RequestError: Lists every combination that means nothing.
    """
    chosen = given_values(arguments, PlanOptions)
    needs_name = (
        "gpu_memory_gb",
        "target_spacing_mm",
        "sparse_aware",
        "time_budget_min",
        "plans_from",
    )
    given = [flag_of(name, _SPELLING) for name in needs_name if name in chosen]
    problems = []
    if given and "plans_name" not in chosen:
        problems.append(
            f"{', '.join(given)} makes other plans than the planner's name stands for; give them a "
            "name with --overwrite-plans-name."
        )
    if "plans_from" in chosen and len(given) > 1:
        problems.append(f"--plans-from takes plans as they are; leave out {', '.join(given[:-1])}.")
    if "source_plans" in chosen and "plans_from" not in chosen:
        problems.append("--source-plans names plans of the dataset that --plans-from gives.")
    if "device" in chosen and "time_budget_min" not in chosen:
        problems.append("--device is what --time-budget measures; give the minutes as well.")
    if not chosen.get("time_budget_min", 1) > 0:
        problems.append(f"--time-budget must be positive, found {chosen['time_budget_min']}.")
    if problems:
        raise RequestError("\n".join(problems))
    return {"options": PlanOptions(**chosen)}


def plan_and_tell(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    options: PlanOptions | None = None,
    fingerprint: "Fingerprint | None" = None,
) -> "Plan":
    """Plan a dataset as `planner.plan_dataset` does, and print the plan."""
    plan = plan_dataset(
        workspace,
        dataset,
        options=options,
        fingerprint=fingerprint,
        fit_to_time=_fit_to_time(),
        more_to_report=interpolation_section(workspace, dataset),
    )
    print(describe_plan(plan))
    return plan


def _fit_to_time() -> FitToTime:
    """Return what measures networks, which alone imports torch, and only when it is called."""

    def fit(plan: "Plan", **how: Any) -> "Plan":
        from sparseunet.training.plan_for_time import fit_plan_to_time

        return fit_plan_to_time(plan, **how)

    return fit


def interpolation_section(workspace: Workspace, dataset: "Dataset") -> str:
    """Return what is known about interpolating the labels; nothing if nobody asked."""
    from sparseunet.annotation.interpolation.verdict import (
        hash_labels,
        read_verdict,
        verdict_lines,
    )

    path = workspace.preprocessed_dataset(dataset.name) / INTERPOLATION_JSON
    if not path.is_file():
        return ""
    verdict = read_verdict(path)
    lines = verdict_lines(verdict)
    if verdict.labels_hash != hash_labels(dataset):
        stale = (
            "Whether interpolated labels would help is not known: labels have changed since; run"
        )
        lines = [f"{stale} `sparseunet interpolate -d {dataset.name} --method auto` again."]
    return "\n".join(["", "## Interpolation", "", *lines, ""])


def describe_plan(plan: "Plan") -> str:
    """Return the plan as a table for a person, and below it the rules that made it, if known."""
    from sparseunet.planning import plan_sentences as say

    first = next(iter(plan.configurations.values()))
    masked = "" if not any(first.use_mask_for_norm) else ", inside the nonzero mask only"
    axes = ", ".join(say.AXES[axis] for axis in plan.transpose_forward)
    lines = [
        f"{plan.dataset_name}: {plan.plans_name} (planner {plan.planner})",
        f"  normalization {', '.join(first.normalization)}{masked}; axes of the plan: {axes}",
        "",
    ]
    head = ("configuration", "spacing mm", "median shape", "patch", "batch", "stages", "features")
    rows = [head, *(_row(configuration) for configuration in plan.configurations.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    lines.append("")
    if plan.reasons is not None:
        lines.append("  " + say.spacing_sentence(plan.reasons))
        lines.append("  " + say.low_resolution_sentence(plan.reasons))
    for name, configuration in plan.configurations.items():
        if configuration.previous_stage is not None:
            lines.append(f"  {name}: refines the result of {configuration.previous_stage}.")
            continue
        why = [say.patch_sentence(configuration, plan), say.batch_sentence(configuration, plan)]
        if name == "3d_lowres":
            why.insert(0, say.grid_sentence(configuration, plan))
        lines.append(f"  {name}: {' '.join(why)}")
    return "\n".join(lines)


def _row(configuration: "Configuration") -> tuple[str, ...]:
    from sparseunet.planning.plan_sentences import times

    features = configuration.network.features_per_stage
    return (
        configuration.name,
        times(configuration.spacing_mm),
        times(configuration.median_shape),
        times(configuration.patch_size),
        str(configuration.batch_size),
        str(len(configuration.network.strides)),
        f"{features[0]}-{features[-1]}",
    )


def _plan_files(arguments: argparse.Namespace, *, options: PlanOptions) -> "Plan":
    from sparseunet.artifacts import read_json
    from sparseunet.fingerprint.fingerprint import fingerprint_from_json
    from sparseunet.planning.plan_files import write_plan, write_report

    if options.plans_from is not None:
        raise RequestError("--plans-from needs a dataset of the workspace, given with -d.")
    content = read_json(arguments.fingerprint)
    fingerprint = fingerprint_from_json(content, source=str(arguments.fingerprint))
    dataset_json = read_json(arguments.dataset_json)
    if not isinstance(dataset_json, dict):
        raise RequestError(f"{arguments.dataset_json} must hold an object, e.g. {{...}}.")
    name = arguments.dataset_name or arguments.dataset_json.resolve().parent.name
    plan = make_adapted_plan(
        fingerprint, dataset_json, name, options, None, fit_to_time=_fit_to_time()
    )
    written = write_plan(arguments.output, plan, fingerprint)
    write_report(
        arguments.output,
        written,
        dataset_json=dataset_json,
        fingerprint=fingerprint,
        densities=None,
    )
    return written


def _given(arguments: argparse.Namespace) -> list[str]:
    flags = {
        "-d": arguments.dataset,
        "--fingerprint": arguments.fingerprint,
        "--dataset-json": arguments.dataset_json,
        "-o": arguments.output,
    }
    return [flag for flag, value in flags.items() if value]
