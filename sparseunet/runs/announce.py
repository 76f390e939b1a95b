"""What a training tells while it runs, through the log of the package."""

import logging
from dataclasses import dataclass

from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.planning.plan import Configuration
from sparseunet.progress import format_duration
from sparseunet.runs.request import TrainingRequest
from sparseunet.runs.run import Run
from sparseunet.training.epoch import peak_memory
from sparseunet.training.forecast import forecast_training, format_forecast, write_forecast
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import LogEntry
from sparseunet.training.step import Hardware
from sparseunet.workspace import FORECAST_JSON

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedRun:
    """A run with its record: what is trained, and on what.

    Attributes:
        run: Where.
        dataset_name: `DatasetXXX_Name`.
        configuration: As recorded.
        recipe: As recorded.
        hardware: Of this call, with the precision that is recorded.
        is_new: Whether nothing was trained before.
    """

    run: Run
    dataset_name: str
    configuration: Configuration
    recipe: Recipe
    hardware: Hardware
    is_new: bool


def announce(opened: OpenedRun) -> None:
    """Log what is trained, on what, and where."""
    configuration, hardware = opened.configuration, opened.hardware
    if not opened.is_new:
        logger.info("Going on with %s", opened.run.fold_folder)
    logger.info(
        "%s %s fold %s: %d iterations of batch %d, patch %s, %s, %d base features, %s, %s%s",
        opened.dataset_name,
        configuration.name,
        opened.run.fold,
        opened.recipe.num_iterations,
        configuration.batch_size,
        "×".join(map(str, opened.recipe.training_patch or configuration.patch_size)),
        configuration.network.architecture,
        configuration.network.features_per_stage[0],
        hardware.device,
        DTYPE_NAMES[hardware.dtype],
        _division(hardware),
    )
    logger.info("Run folder: %s", opened.run.fold_folder)


def _division(hardware: Hardware) -> str:
    """Return how each batch is divided, as the end of a line; "" for not at all."""
    processes = f", {hardware.processes.count} processes" * (hardware.processes.count > 1)
    return processes + f", each batch in {hardware.num_parts} parts" * (hardware.num_parts > 1)


def tell_forecast(request: TrainingRequest, opened: OpenedRun) -> None:
    """Log and keep what the network will see; nothing where nothing is annotated."""
    forecast = forecast_training(
        request.store,
        request.split.train,
        configuration=opened.configuration,
        labels=request.prepared.labels,
        recipe=opened.recipe,
    )
    if forecast is None:
        return
    write_forecast(opened.run.fold_folder / FORECAST_JSON, forecast)
    for line in format_forecast(forecast):
        logger.info("%s", line)
    for warning in forecast.warnings:
        logger.warning("%s", warning)


def tell_pace(opened: OpenedRun, step_s: float, left: int) -> None:
    """Log how long a step takes, what that means for the rest, and how much memory is used."""
    memory = " and ".join(
        f"{mib / 1024:.1f} GiB of {'GPU memory' if 'gpu' in name else 'memory'}"
        for name, mib in peak_memory(opened.hardware.device).items()
        if mib is not None
    )
    per_epoch = opened.recipe.steps_per_epoch
    logger.info(
        "A step takes %.3g s: an epoch of %d %s, the %d steps left %s, without validation.%s",
        step_s,
        per_epoch,
        format_duration(step_s * per_epoch),
        left,
        format_duration(step_s * left),
        f" Used so far: {memory}." if memory else "",
    )


def epoch_line(entry: LogEntry, epochs: int) -> str:
    """Return what an epoch was like, in a line."""
    scores = ", ".join(
        f"{name} {score:.3f}" if score is not None else f"{name} –"
        for name, score in entry["pseudo_dice"].items()
    )
    loss = entry["train_loss"]
    duration_s = entry["duration_s"] + entry.get("val_duration_s", 0)
    return (
        f"epoch {entry['epoch']}/{epochs}: loss "
        f"{'–' if loss is None else format(loss, '.3f')}, pseudo Dice {scores}, "
        f"{format_duration(duration_s)}, "
        f"{format_duration(duration_s * (epochs - entry['epoch']))} left"
    )
