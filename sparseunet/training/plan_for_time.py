"""Fit a plan to this machine: the only part of planning that measures, and so imports torch."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.reasons import TimeReasons

if TYPE_CHECKING:
    from sparseunet.training.time_budget import BudgetedTraining


logger = logging.getLogger(__name__)


def fit_plan_to_time(
    plan: Plan, *, dataset_json: Mapping[str, Any], device: str, minutes: float
) -> Plan:
    """Return the plan with networks, patches and batches that this machine trains in time.

    Every configuration gets the whole time, since each is a training of its own; the cascade's is
    that of `3d_fullres`. Measuring takes part of it. Decided by `training.time_budget`, as in
    a training under a time budget.

    Raises:
        RequestError: The device is not here, or the time is too short.
    """
    from sparseunet.data.load import parse_labels
    from sparseunet.networks.device import DTYPE_NAMES, resolve_device, resolve_precision
    from sparseunet.training.recipe import Recipe
    from sparseunet.training.step import Hardware
    from sparseunet.training.time_budget import fit_into_budget

    found = resolve_device(device)
    hardware = Hardware(
        device=found, dtype=resolve_precision("auto", found, learning=True), num_workers=0
    )
    labels = parse_labels(dict(dataset_json))
    configurations = dict(plan.configurations)
    times: dict[str, TimeReasons] = {}
    for name, configuration in plan.configurations.items():
        if configuration.previous_stage is not None:
            continue
        logger.info(f"Measuring {name} on this machine ...")
        fitted = fit_into_budget(
            configuration,
            labels=labels,
            recipe=Recipe(),
            hardware=hardware,
            budget_s=60 * minutes,
        )
        configurations[name] = fitted.configuration
        times[name] = _reasons(
            configuration, fitted, str(found), DTYPE_NAMES[hardware.dtype], minutes
        )
    for name, configuration in plan.configurations.items():
        full = configurations.get("3d_fullres")
        if configuration.previous_stage is not None and full is not None:
            configurations[name] = replace(
                configuration,
                patch_size=full.patch_size,
                batch_size=full.batch_size,
                network=full.network,
            )
            times[name] = times["3d_fullres"]
    reasons = None if plan.reasons is None else replace(plan.reasons, times=times)
    return replace(plan, configurations=configurations, reasons=reasons)


def _reasons(
    planned: Configuration,
    fitted: "BudgetedTraining",
    device: str,
    precision: str,
    minutes: float,
) -> TimeReasons:
    return TimeReasons(
        minutes=minutes,
        device=device,
        precision=precision,
        iterations=fitted.iterations,
        step_s=fitted.step_s,
        planned_patch=planned.patch_size,
        planned_batch=planned.batch_size,
        planned_features=planned.network.features_per_stage[0],
    )
