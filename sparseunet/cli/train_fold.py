"""Train what `train` was asked for: hardware, run, checkpoints on signals, and what is shown."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.cli.cascade import FirstStage
from sparseunet.cli.environment import available_cpus, has_thread_count
from sparseunet.errors import RequestError
from sparseunet.progress import format_duration
from sparseunet.workspace import FORECAST_JSON, PROGRESS_PNG, TENSORBOARD

if TYPE_CHECKING:
    import torch

    from sparseunet.planning.plan import Configuration
    from sparseunet.preprocessing.store import CaseStore
    from sparseunet.training.processes import Processes
    from sparseunet.training.recipe import Recipe
    from sparseunet.training.run import Run, RunRequest
    from sparseunet.training.run_log import OnEpoch
    from sparseunet.training.step import Hardware

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRequest:
    """What one call asks for, before anything is measured or trained."""

    run: "RunRequest"
    store: "CaseStore"
    time_budget_min: float | None
    first: FirstStage | None
    """The first stage that a cascade's second stage learns behind."""
    pretrained: Path | None
    """Checkpoint to start from."""


def train_fold(
    request: TrainingRequest,
    arguments: argparse.Namespace,
    folder: Path,
    *,
    processes: "Processes",
) -> None:
    """Train to the end, or until a signal comes, together with the other processes.

    Raises:
        TrainingInterruptedError: One came; the message holds the command to go on.
        RequestError: `folder` holds another run, or the training cannot start.
        SparseUNetError: The training failed.
    """
    from sparseunet.data.load import parse_labels
    from sparseunet.networks.device import DTYPE_NAMES
    from sparseunet.training.fit import fit
    from sparseunet.training.interruption import TrainingInterruptedError, stop_on_signals
    from sparseunet.training.run import open_run

    def hardware(recorded: str | None) -> "Hardware":
        return _hardware(arguments, processes, precision=recorded or arguments.precision)

    def fitted(chosen: "Hardware") -> tuple["Configuration", "Recipe"]:
        return _fit_to_budget(request, chosen)

    with processes.first_alone():
        run = open_run(folder, request.run, hardware=hardware, fitted=fitted)
    configuration, recipe = run.configuration, run.recipe
    if not run.is_new:
        print(f"Going on with {folder}")
    print(
        f"{request.run.plan.dataset_name} {configuration.name} fold {request.run.fold}: "
        f"{recipe.iterations} iterations of batch {configuration.batch_size}, patch "
        f"{'×'.join(map(str, configuration.patch_size))}, "
        f"{configuration.network.architecture}, "
        f"{configuration.network.features_per_stage[0]} base features, {run.hardware.device}, "
        f"{DTYPE_NAMES[run.hardware.dtype]}{_division(run.hardware)}\nRun folder: {folder}",
        flush=True,
    )
    if processes.is_first:
        _forecast(request, run)
    with ExitStack() as stack:
        on_epoch = _listeners(stack, request, run, arguments) if processes.is_first else []
        stop_signal = stack.enter_context(stop_on_signals(ends_at_second=processes.count == 1))
        try:
            fit(
                request.store,
                request.run.split,
                configuration=configuration,
                labels=parse_labels(request.run.dataset_json),
                recipe=recipe,
                hardware=run.hardware,
                folder=folder,
                on_epoch=on_epoch,
                on_pace=partial(_tell_pace, run),
                previous_stage=None if request.first is None else request.first.inputs,
                pretrained=request.pretrained,
                checkpoint_every_s=60 * arguments.checkpoint_minutes,
                stop_signal=stop_signal,
            )
        except TrainingInterruptedError as error:
            raise TrainingInterruptedError(
                f"{error}; go on with{_same_or(processes)}: {arguments.command_line}",
                signal_number=error.signal_number,
            ) from None
        number = processes.highest(stop_signal() or 0)  # one that came too late for a step
        if number:
            raise TrainingInterruptedError(
                f"stopped after the last step; end with{_same_or(processes)}: "
                f"{arguments.command_line}",
                signal_number=number,
            )


def _division(hardware: "Hardware") -> str:
    """Return how each batch is divided, as the end of a line; "" for not at all."""
    processes = f", {hardware.processes.count} processes" * (hardware.processes.count > 1)
    return processes + f", each batch in {hardware.num_parts} parts" * (hardware.num_parts > 1)


def _same_or(processes: "Processes") -> str:
    return " the same torchrun, or one process with" * (processes.count > 1)


def _forecast(request: TrainingRequest, run: "Run") -> None:
    """Print and keep what the network will see; nothing where nothing is annotated."""
    from sparseunet.data.load import parse_labels
    from sparseunet.training.forecast import forecast_training, format_forecast, write_forecast

    forecast = forecast_training(
        request.store,
        request.run.split.train,
        configuration=run.configuration,
        labels=parse_labels(request.run.dataset_json),
        recipe=run.recipe,
    )
    if forecast is not None:
        write_forecast(run.folder / FORECAST_JSON, forecast)
        print("\n".join(format_forecast(forecast)), flush=True)
        for warning in forecast.warnings:
            logger.warning("%s", warning)


def _listeners(
    stack: ExitStack, request: TrainingRequest, run: "Run", arguments: argparse.Namespace
) -> "list[OnEpoch]":
    """Return what is called after every epoch."""
    from dataclasses import asdict

    from sparseunet.report.figures import draw_training_curves
    from sparseunet.training.tracking import write_tensorboard, write_wandb

    def show(log: Sequence[dict[str, Any]]) -> None:
        draw_training_curves(log, run.folder / PROGRESS_PNG)
        if not sys.stdout.isatty():
            print(_epoch_line(log[-1], run.recipe.epochs), flush=True)

    listeners: list[OnEpoch] = [show]
    if arguments.tensorboard:
        listeners.append(stack.enter_context(write_tensorboard(run.folder / TENSORBOARD)))
    if arguments.wandb is not None:
        asked = request.run
        name = "-".join(
            (asked.plan.dataset_name, run.configuration.name, asked.run_id, str(asked.fold))
        )
        listeners.append(
            stack.enter_context(
                write_wandb(
                    arguments.wandb, name=name, folder=run.folder, config=asdict(run.recipe)
                )
            )
        )
    return listeners


def _hardware(
    arguments: argparse.Namespace, processes: "Processes", *, precision: str
) -> "Hardware":
    import torch

    from sparseunet.networks.device import require_compiler, resolve_device, resolve_precision
    from sparseunet.training.step import Hardware

    device, workers, cpus = (
        _own_device(resolve_device(arguments.device), processes),
        arguments.num_workers,
        available_cpus(),
    )
    if workers is None:
        workers = 1 if device.type == "cpu" else max(1, min(12, cpus - 1))
    if device.type == "cpu" and not has_thread_count():
        torch.set_num_threads(compute_threads(cpus, workers))
    if arguments.compile:
        require_compiler(device)
    return Hardware(
        device=device,
        dtype=resolve_precision(precision, device, learning=True),
        num_workers=workers,
        processes=processes,
        compiles=arguments.compile,
        num_parts=arguments.accumulate,
    )


def _own_device(device: "torch.device", processes: "Processes") -> "torch.device":
    """Return the device of this process: of several, each has a GPU of its own."""
    import torch

    if processes.count == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise RequestError(
            f"Several processes train on cuda, a GPU each, or on cpu, found -device {device}."
        )
    if processes.local_rank >= torch.cuda.device_count():
        raise RequestError(
            f"This machine has {torch.cuda.device_count()} GPUs, too few for process "
            f"{processes.local_rank + 1}; start fewer with --nproc-per-node, or give -device cpu."
        )
    own = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(own)
    return own


def compute_threads(cpus: int, num_workers: int) -> int:
    """Return how many threads a CPU computes with: a processor for each worker is left.

    Two processors both compute, since one worker rarely needs a whole one.
    """
    return max(1, min(cpus, 2), cpus - num_workers)


def _fit_to_budget(
    request: TrainingRequest, hardware: "Hardware"
) -> tuple["Configuration", "Recipe"]:
    asked = request.run
    if request.time_budget_min is None:
        return asked.configuration, asked.recipe
    if hardware.processes.count > 1 or hardware.num_parts > 1:
        raise RequestError(
            "--time-budget measures one process and whole batches. Start the run so, stop it "
            "after its first epoch, and go on in several processes or with --accumulate; or leave "
            "the budget out and give --iterations."
        )
    if hardware.compiles:
        raise RequestError(
            "--time-budget measures several networks, and each would have to be compiled first. "
            "Leave --compile out, or give --iterations."
        )
    from sparseunet.data.load import parse_labels
    from sparseunet.training.time_budget import fit_into_budget

    print("Measuring this machine ...", flush=True)
    fitted = fit_into_budget(
        asked.configuration,
        labels=parse_labels(asked.dataset_json),
        recipe=asked.recipe,
        hardware=hardware,
        budget_s=60 * request.time_budget_min,
    )
    per_epoch = min(asked.recipe.iterations_per_epoch, max(1, fitted.iterations // 20))
    recipe = replace(asked.recipe, iterations=fitted.iterations, iterations_per_epoch=per_epoch)
    return fitted.configuration, recipe


def _tell_pace(run: "Run", step_s: float, left: int) -> None:
    from sparseunet.training.epoch import peak_memory

    memory = " and ".join(
        f"{mib / 1024:.1f} GiB of {'GPU memory' if 'gpu' in name else 'memory'}"
        for name, mib in peak_memory(run.hardware.device).items()
        if mib is not None
    )
    print(
        f"A step takes {step_s:.3g} s: an epoch of {run.recipe.iterations_per_epoch} "
        f"{format_duration(step_s * run.recipe.iterations_per_epoch)}, the {left} steps left "
        f"{format_duration(step_s * left)}, without validation"
        + (f". Used so far: {memory}." if memory else "."),
        flush=True,
    )


def _epoch_line(entry: dict[str, Any], epochs: int) -> str:
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
