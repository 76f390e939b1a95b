"""From what a person asked for to a plan: by the rules, adapted, or taken from another dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparseunet.errors import RequestError
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.data.density import LabelDensity
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.make_plan import PlannerName
    from sparseunet.planning.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """What a person may choose about planning; the defaults are nnU-Net's rules."""

    planner: "PlannerName" = "default"
    gpu_memory_gb: float | None = None
    target_spacing_mm: Sequence[float] | None = None
    """Along the file's (z, y, x)."""
    plans_name: str | None = None
    sparse_aware: bool = False
    time_budget_min: float | None = None
    device: str = "auto"
    """What a time budget is measured on."""
    plans_from: str | None = None
    """Dataset whose plans are taken."""
    source_plans: str | None = None
    """Name of the plans taken; None for the planner's."""


def make(
    fingerprint: "Fingerprint",
    dataset_json: Mapping[str, Any],
    dataset_name: str,
    options: PlanOptions,
    densities: "Sequence[LabelDensity] | None",
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
                f"--sparse-aware needs to know what is annotated in {dataset_name}, which "
                "label_density.json beside the fingerprint says. Plan with -d after sparseunet "
                f"extract_fingerprint -d {dataset_name}."
            )
        plan = adapt_to_sparse_labels(plan, densities)
    if options.time_budget_min is not None:
        from sparseunet.cli.plan_for_time import fit_plan_to_time

        plan = fit_plan_to_time(
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
    from sparseunet.cli.plan_files import write_plan_content
    from sparseunet.planning.memory import PLANNERS
    from sparseunet.planning.move_plan import move_plan

    assert options.plans_from is not None
    assert options.plans_name is not None
    source = workspace.dataset_name(options.plans_from)
    name = options.source_plans or PLANNERS[options.planner].plans_name
    path = workspace.plans_file(source, name)
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist. Plan the source first (sparseunet plan_experiment -d "
            f"{source}), or name its plans with --source-plans."
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
