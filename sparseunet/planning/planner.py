"""From what a person asked for to a plan: by the rules, adapted, or taken from another dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparseunet.errors import RequestError
from sparseunet.planning.plan_files import (
    read_densities,
    read_fingerprint,
    stored_fingerprint,
    write_plan,
    write_plan_content,
    write_report,
)
from sparseunet.planning.planners import PLANNERS, PlannerName
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.data.density import LabelDensity
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """What a person may choose about planning; the defaults are nnU-Net's rules.

    Attributes:
        planner: Plain U-Net for 8 GB (`default`), or residual encoder for 8, 24 or 40 GB
            (`ResEncM`, `ResEncL`, `ResEncXL`).
        gpu_memory_gb: Memory to plan for in place of the planner's own; name the plans as well.
        target_spacing_mm: Spacing in mm along the files' (z, y, x); name the plans as well.
        plans_name: Name of the plans file in place of the planner's own.
        sparse_aware: 3D: shallower patches and larger batches where under a tenth of the slices is
            annotated; name the plans as well.
        time_budget_min: Time in which each training must end; network, patch, batch and iterations
            are chosen by measuring this machine. Name the plans as well.
        device: What a time budget is measured on: auto, cpu, cuda, cuda:1 or mps.
        plans_from: Take the plans of this dataset in place of planning; name the plans as well.
        source_plans: Which of its plans.
    """

    planner: PlannerName = "default"
    gpu_memory_gb: float | None = None
    target_spacing_mm: tuple[float, float, float] | None = None
    plans_name: str | None = None
    sparse_aware: bool = False
    time_budget_min: float | None = None
    device: str = "auto"
    plans_from: str | None = None
    source_plans: str | None = None


FitToTime = Callable[..., "Plan"]
"""Takes a plan and, by keyword, `dataset_json`, `device` and `minutes`; returns the plan with
networks that this machine trains in that time (`training.plan_for_time.fit_plan_to_time`)."""


def plan_dataset(
    workspace: Workspace,
    dataset: "Dataset",
    *,
    options: PlanOptions | None = None,
    fingerprint: "Fingerprint | None" = None,
    fit_to_time: "FitToTime | None" = None,
    more_to_report: str = "",
) -> "Plan":
    """Plan a dataset, write its plans file and, beside it, the report; log what labels allow.

    Configurations that a person added to an existing plans file are kept, those of the planner are
    replaced. What is annotated is read from `label_density.json` if that is there.

    Args:
        workspace: Where the fingerprint lies and the plans go.
        dataset: What is planned for.
        options: What a person chose; None for the defaults.
        fingerprint: The dataset's; None reads the stored one.
        fit_to_time: Needed where `options` has a time budget.
        more_to_report: Last section of the report, in Markdown.

    Raises:
        RequestError: There is no fingerprint, it is of another number of cases, plans of another
            dataset do not fit, or what is annotated is not known though it is asked for.
    """
    options = options or PlanOptions()
    densities = read_densities(workspace, dataset)
    if options.plans_from is not None:
        fingerprint = fingerprint or stored_fingerprint(workspace, dataset)
        plan = move(workspace, dataset, options, fingerprint)
        path = workspace.plans_file(dataset.name, plan.plans_name)
    else:
        if fingerprint is None:
            fingerprint = read_fingerprint(workspace, dataset)
        made = make_adapted_plan(
            fingerprint,
            dataset.description,
            dataset.name,
            options,
            densities,
            fit_to_time=fit_to_time,
        )
        path = workspace.plans_file(dataset.name, made.plans_name)
        plan = write_plan(path, made, fingerprint)
    write_report(
        path,
        plan,
        dataset_json=dataset.description,
        fingerprint=fingerprint,
        densities=densities,
        more=more_to_report,
    )
    return plan


def make_adapted_plan(
    fingerprint: "Fingerprint",
    dataset_json: Mapping[str, Any],
    dataset_name: str,
    options: PlanOptions,
    densities: "Sequence[LabelDensity] | None",
    *,
    fit_to_time: "FitToTime | None" = None,
) -> "Plan":
    """Plan by nnU-Net's rules, then adapt to sparse labels and to the machine if asked to.

    Raises:
        RequestError: See `make_plan`; what is annotated is not known though it is asked for, or the
            device is not here, or the time too short.
    """
    from sparseunet.planning.make_plan import make_plan

    same_grid = options.gpu_memory_gb is None and options.target_spacing_mm is None
    adapted = options.sparse_aware or options.time_budget_min is not None
    plan = make_plan(
        fingerprint,
        dataset_json=dataset_json,
        dataset_name=dataset_name,
        planner=options.planner,
        target_spacing_mm=options.target_spacing_mm,
        gpu_memory_gb=options.gpu_memory_gb,
        # Adapting leaves the grid alone, so the planner's own preprocessed folders serve.
        plans_name=None if adapted and same_grid else options.plans_name,
    )
    if options.plans_name is not None:
        plan = replace(plan, plans_name=options.plans_name)
    if options.sparse_aware:
        from sparseunet.planning.sparse_aware import adapt_to_sparse_labels

        if densities is None:
            raise RequestError(
                "Planning for sparse labels needs to know what is annotated in "
                f"{dataset_name}, which "
                "label_density.json beside the fingerprint says. Plan with -d after sparseunet "
                f"extract_fingerprint -d {dataset_name}.",
                setting="sparse_aware",
            )
        plan = adapt_to_sparse_labels(plan, densities)
    if options.time_budget_min is not None:
        if fit_to_time is None:
            raise RequestError(
                "A plan for a time budget has to measure networks; give what does, "
                "training.plan_for_time.fit_plan_to_time.",
                setting="fit_to_time",
            )
        plan = fit_to_time(
            plan,
            dataset_json=dataset_json,
            device=options.device,
            minutes=options.time_budget_min,
        )
    return plan


def move(
    workspace: Workspace,
    dataset: "Dataset",
    options: PlanOptions,
    fingerprint: "Fingerprint | None",
) -> "Plan":
    """Take the plans of another dataset, write them as this one's, and return them.

    Raises:
        RequestError: There are no such plans, or they do not fit.
    """
    from sparseunet.artifacts import read_json
    from sparseunet.planning.move_plan import move_plan

    assert options.plans_from is not None
    assert options.plans_name is not None
    source = workspace.dataset_name(options.plans_from)
    name = options.source_plans or PLANNERS[options.planner].plans_name
    path = workspace.plans_file(source, name)
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist. Plan the source first (sparseunet plan_experiment -d "
            f"{source}), or name its plans.",
            setting="source_plans",
        )
    target = workspace.plans_file(dataset.name, options.plans_name)
    if target == path:
        raise RequestError(f"{path} is both source and target; choose another dataset or name.")
    content = move_plan(
        read_json(path),
        dataset_name=dataset.name,
        dataset_json=dataset.description,
        plans_name=options.plans_name,
        flat=fingerprint is not None
        and all(shape[0] == 1 for shape in fingerprint.shapes_after_crop),
    )
    return write_plan_content(target, content)
