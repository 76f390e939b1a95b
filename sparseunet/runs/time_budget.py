"""What a training under a time budget chooses, recorded so that the next one chooses the same."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.planning.plan import Configuration
from sparseunet.runs.record import RunRecord, read_record
from sparseunet.training.recipe import Recipe
from sparseunet.training.step import Hardware
from sparseunet.training.time_budget import fit_into_budget
from sparseunet.workspace import RUN_JSON

logger = logging.getLogger(__name__)

_SAME = ("configuration", "data", "time_budget_min")
"""Of the identity: runs that agree in these chose for the same plan, data and time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What fits into the time.

    Attributes:
        configuration: Network, patch and batch.
        recipe: With the number of steps.
        record: For `run.json`.
    """

    configuration: Configuration
    recipe: Recipe
    record: dict[str, Any]


def choose_for_budget(
    configuration: Configuration,
    *,
    labels: LabelSchema,
    recipe: Recipe,
    hardware: Hardware,
    minutes: float,
    runs: Path,
    identity: Mapping[str, Any],
) -> Fitted:
    """Choose what this machine can train in the time; as an earlier run of the same plan chose.

    Measuring depends on what else the machine does. So the first choice is kept in `run.json`, and
    every later run of the same plan, data, time, device, precision and threads takes it over.

    Args:
        configuration: As planned, overrides applied.
        labels: The dataset's classes.
        recipe: Its length is replaced.
        hardware: What is measured.
        minutes: The whole time.
        runs: Folder of the runs of this dataset and configuration.
        identity: Of the run that is asked for.

    Raises:
        RequestError: The time is too short, or several processes, parts or a compiler are used.
    """
    if hardware.processes.count > 1 or hardware.num_parts > 1:
        raise RequestError(
            "A time budget measures one process and whole batches. Start the run so, stop it after "
            "its first epoch, and go on in several processes or parts; or give a number of "
            "iterations instead.",
            setting="time_budget",
        )
    if hardware.compiles:
        raise RequestError(
            "A time budget measures several networks, and each would have to be compiled first. "
            "Do not compile, or give a number of iterations instead.",
            setting="time_budget",
        )
    machine = _describe_machine(hardware)
    earlier = _find_earlier(runs, identity, machine)
    if earlier is not None and earlier.recipe is not None:
        logger.info("Taking the network and the number of steps that %s chose", earlier.run_id)
        chosen, iterations = earlier.configuration, earlier.recipe.num_iterations
        record = dict(earlier.time_budget or {})
    else:
        logger.info("Measuring this machine ...")
        fitted = fit_into_budget(
            configuration,
            labels=labels,
            recipe=recipe,
            hardware=hardware,
            budget_s=60 * minutes,
        )
        chosen, iterations = fitted.configuration, fitted.iterations
        record = {"minutes": minutes, "machine": machine, "step_s": fitted.step_s}
    per_epoch = min(recipe.steps_per_epoch, max(1, iterations // 20))
    return Fitted(
        configuration=chosen,
        recipe=replace(recipe, iterations=iterations, iterations_per_epoch=per_epoch),
        record=record,
    )


def _describe_machine(hardware: Hardware) -> dict[str, Any]:
    device = hardware.device
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "precision": DTYPE_NAMES[hardware.dtype],
        "threads": torch.get_num_threads(),
    }


def _find_earlier(
    runs: Path, identity: Mapping[str, Any], machine: Mapping[str, Any]
) -> RunRecord | None:
    """Return the first run, by name, that chose for the same plan on the same machine."""
    for path in sorted(runs.glob(f"*/*/{RUN_JSON}")):
        record = read_record(path.parent)
        same = all(record.identity.get(key) == identity.get(key) for key in _SAME)
        if same and (record.time_budget or {}).get("machine") == machine:
            return record
    return None
