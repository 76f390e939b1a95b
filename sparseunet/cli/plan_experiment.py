"""Derive the plans of all networks from a dataset's fingerprint.

Either for a dataset of the workspace (-d), or from files alone (--fingerprint, --dataset-json, -o).
Beside the plans file lies a report, PLANSNAME_report.md: why each number is what it is, what a
batch holds, whether the labels speak for 2D or 3D, and what to watch out for.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import minutes
from sparseunet.cli.plan_making import PlanOptions, make, move
from sparseunet.errors import RequestError
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.plan import Configuration, Plan

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
    parser.add_argument(
        "--sparse-aware",
        action="store_true",
        help="3D: shallower patches and larger batches where under a tenth of the slices is "
        "annotated; name the plans as well",
    )
    machine = parser.add_argument_group("for this machine")
    machine.add_argument(
        "--time-budget",
        type=minutes,
        metavar="TIME",
        help="measure this machine and choose network, patch, batch and iterations so that each "
        "training ends in time; name the plans as well",
    )
    machine.add_argument(
        "-device", "--device", help="what to measure: auto, cpu, cuda, cuda:1 or mps (default auto)"
    )
    moved = parser.add_argument_group("the plans of another dataset, for fine-tuning")
    moved.add_argument(
        "--plans-from",
        metavar="ID",
        help="take the plans of this dataset in place of planning; name the plans as well",
    )
    moved.add_argument(
        "--source-plans", metavar="NAME", help="which of its plans (default: the planner's)"
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
    print(describe_plan(_plan_files(arguments, **options)))
    print(arguments.output)
    return 0


def planner_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn the options of `add_planner_arguments` into arguments of `plan_dataset`.

    Raises:
        RequestError: Lists every combination that means nothing.
    """
    changed = {
        "--gpu-memory-target": arguments.gpu_memory_target,
        "--overwrite-target-spacing": arguments.overwrite_target_spacing,
        "--sparse-aware": arguments.sparse_aware,
        "--time-budget": arguments.time_budget,
        "--plans-from": arguments.plans_from,
    }
    given = [flag for flag, value in changed.items() if value not in (None, False)]
    problems = []
    if given and arguments.overwrite_plans_name is None:
        problems.append(
            f"{', '.join(given)} makes other plans than the planner's name stands for; give them a "
            "name with --overwrite-plans-name."
        )
    if arguments.plans_from is not None and len(given) > 1:
        problems.append(f"--plans-from takes plans as they are; leave out {', '.join(given[:-1])}.")
    if arguments.source_plans is not None and arguments.plans_from is None:
        problems.append("--source-plans names plans of the dataset that --plans-from gives.")
    if arguments.device is not None and arguments.time_budget is None:
        problems.append("--device is what --time-budget measures; give the minutes as well.")
    if arguments.time_budget is not None and not arguments.time_budget > 0:
        problems.append(f"--time-budget must be positive, found {arguments.time_budget}.")
    if problems:
        raise RequestError("\n".join(problems))
    return {
        "options": PlanOptions(
            planner=arguments.planner,
            gpu_memory_gb=arguments.gpu_memory_target,
            target_spacing_mm=arguments.overwrite_target_spacing,
            plans_name=arguments.overwrite_plans_name,
            sparse_aware=arguments.sparse_aware,
            time_budget_min=arguments.time_budget,
            device=arguments.device or "auto",
            plans_from=arguments.plans_from,
            source_plans=arguments.source_plans,
        )
    }


def plan_dataset(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    options: PlanOptions | None = None,
    fingerprint: "Fingerprint | None" = None,
) -> "Plan":
    """Plan a dataset, write its plans file and, beside it, the report; print what labels allow.

    Configurations that a person added to an existing plans file are kept, those of the planner are
    replaced. What is annotated is read from `label_density.json` if that is there.

    Args:
        workspace: Where the fingerprint lies and the plans go.
        dataset: What is planned for.
        options: What a person chose; None for the defaults.
        fingerprint: The dataset's; None reads the stored one.

    Raises:
        RequestError: There is no fingerprint, it is of another number of cases, plans of another
            dataset do not fit, or what is annotated is not known though it is asked for.
    """
    from sparseunet.cli.plan_files import (
        read_densities,
        read_fingerprint,
        stored_fingerprint,
        write_plan,
        write_report,
    )

    options = options or PlanOptions()
    densities = read_densities(workspace, dataset)
    if options.plans_from is not None:
        fingerprint = fingerprint or stored_fingerprint(workspace, dataset)
        plan = move(workspace, dataset, options, fingerprint)
        path = workspace.plans_file(dataset.name, plan.plans_name)
    else:
        if fingerprint is None:
            fingerprint = read_fingerprint(workspace, dataset)
        made = make(fingerprint, dataset.description, dataset.name, options, densities)
        path = workspace.plans_file(dataset.name, made.plans_name)
        plan = write_plan(path, made, fingerprint)
    write_report(
        path,
        plan,
        dataset_json=dataset.description,
        fingerprint=fingerprint,
        densities=densities,
        dataset=dataset,
    )
    return plan


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
    from sparseunet.cli.plan_files import write_plan, write_report
    from sparseunet.fingerprint.fingerprint import fingerprint_from_json

    if options.plans_from is not None:
        raise RequestError("--plans-from needs a dataset of the workspace, given with -d.")
    content = read_json(arguments.fingerprint)
    fingerprint = fingerprint_from_json(content, source=str(arguments.fingerprint))
    dataset_json = read_json(arguments.dataset_json)
    if not isinstance(dataset_json, dict):
        raise RequestError(f"{arguments.dataset_json} must hold an object, e.g. {{...}}.")
    name = arguments.dataset_name or arguments.dataset_json.resolve().parent.name
    plan = make(fingerprint, dataset_json, name, options, None)
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
