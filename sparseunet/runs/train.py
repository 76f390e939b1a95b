"""Train one fold of a run: settle what is asked for, open the run's folder, fit, validate."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sparseunet.errors import RequestError
from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.preprocessing.prepare import Prepared
from sparseunet.progress import shows_bar
from sparseunet.runs.announce import OpenedRun, announce, epoch_line, tell_forecast, tell_pace
from sparseunet.runs.cascade import pass_to_next_stage
from sparseunet.runs.hardware import HardwareOptions, choose_hardware
from sparseunet.runs.held_out import segment_held_out
from sparseunet.runs.record import (
    RunRecord,
    current_versions,
    has_record,
    read_record,
    require_same_run,
    write_record,
)
from sparseunet.runs.request import Start, TrainingRequest, resolve_request
from sparseunet.runs.run import Run
from sparseunet.runs.settings import Overrides
from sparseunet.runs.time_budget import choose_for_budget
from sparseunet.training.fit import fit
from sparseunet.training.interruption import StopSignal, TrainingInterruptedError
from sparseunet.training.processes import ALONE, Processes
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import LogEntry, OnEpoch
from sparseunet.training.tracking import write_tensorboard, write_wandb
from sparseunet.workspace import CHECKPOINT_FINAL, TENSORBOARD

logger = logging.getLogger(__name__)

OnEpochOfRun = Callable[[Run, Sequence[LogEntry]], None]
"""Called after every epoch with the run and its log, the line of this epoch last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """What a training does besides learning; none of it changes the weights.

    Attributes:
        checkpoint_minutes: Least time between two checkpoints; 0 writes one after every epoch.
        on_epoch: Called after every epoch with the run and its log.
        stop_signal: Asked before every step; a signal number ends training with a checkpoint.
        tensorboard: Whether curves are written for TensorBoard.
        wandb: Project of Weights & Biases that curves are sent to; None for none.
        processes: Which of several processes this is.
    """

    checkpoint_minutes: float = 10.0
    on_epoch: OnEpochOfRun | None = None
    stop_signal: StopSignal = lambda: None
    tensorboard: bool = False
    wandb: str | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if not 0 <= self.checkpoint_minutes < float("inf"):
            raise RequestError(
                f"The time between checkpoints must be 0 minutes or more, found "
                f"{self.checkpoint_minutes}.",
                setting="checkpoint_minutes",
            )


def train(  # noqa: PLR0913 - every setting of the command is a keyword here
    prepared: Prepared,
    configuration: str,
    fold: int | str = "all",
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    preset: str = "nnunet",
    architecture: str | Callable[..., Any] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    base_features: int | None = None,
    time_budget_min: float | None = None,
    pretrained_weights: str | Path | Run | None = None,
    previous_stage_run: str | None = None,
    run: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    num_workers: int | None = None,
    compile: bool = False,  # noqa: A002 - the name of the flag
    accumulate: int = 1,
    save_probabilities: bool = False,
    on_epoch: OnEpochOfRun | None = None,
    stop_signal: StopSignal = lambda: None,
    checkpoint_minutes: float = 10.0,
) -> Run:
    """Train one fold and validate it; the same as `sparseunet train`.

    The same call again goes on where an interrupted training stopped, and does nothing where it
    had finished. Another recipe, plan or data is another run in a folder of its own.

    Args:
        prepared: From `prepare` or `load_prepared`.
        configuration: `2d`, `3d_fullres`, ...
        fold: 0 to 4, or `all`: train on every case and validate on none.
        recipe: How to train; a mapping gives some fields of `Recipe`, None leaves all open.
        preset: A paper's network, patch, batch and recipe; what else is given changes it.
        architecture: Another network than planned: a name, or a function that builds one.
        patch_size: Voxels per axis, slowest first, in place of the planned ones.
        batch_size: Patches per step, in place of the planned number.
        base_features: Features at full resolution, in place of the planned number.
        time_budget_min: Minutes; network, patch, batch and steps are chosen to end in time.
        pretrained_weights: A checkpoint, or a run: all weights but the heads are the start.
        previous_stage_run: Second stage of a cascade: name of the first stage's run.
        run: Name of the run; None makes one from recipe, plan and data.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        num_workers: Processes that make batches; None lets the machine decide.
        compile: Whether torch compiles the network.
        accumulate: Parts in which a batch passes the network, for less memory.
        save_probabilities: Whether probabilities of validation cases are kept.
        on_epoch: Called after every epoch with the run and its log.
        stop_signal: Asked before every step; a signal number ends training with a checkpoint.
        checkpoint_minutes: Least time between two checkpoints.

    Raises:
        RequestError: The request cannot be met, or the name is that of another run.
        TrainingInterruptedError: `stop_signal` gave a number; called again, training goes on.
        SparseUNetError: The training failed; its last checkpoint is kept.
    """
    overrides = Overrides(
        preset=preset,
        architecture=architecture,
        patch_size=patch_size,
        batch_size=batch_size,
        base_features=base_features,
    )
    request = resolve_request(
        prepared,
        configuration,
        fold,
        recipe=recipe,
        overrides=overrides,
        start=Start(
            run=run,
            time_budget_min=time_budget_min,
            pretrained_weights=pretrained_weights,
            previous_stage_run=previous_stage_run,
        ),
    )
    hardware = HardwareOptions(
        device=device,
        precision=precision,
        num_workers=num_workers,
        compile=compile,
        accumulate=accumulate,
    )
    options = TrainingOptions(
        checkpoint_minutes=checkpoint_minutes, on_epoch=on_epoch, stop_signal=stop_signal
    )
    trained = train_request(request, hardware=hardware, options=options)
    validate(request, device=device, save_probabilities=save_probabilities)
    return trained


def train_request(
    request: TrainingRequest,
    *,
    hardware: HardwareOptions | None = None,
    options: TrainingOptions | None = None,
) -> Run:
    """Train to the end, or until a signal comes, together with the other processes if there are.

    A fold that has finished is left as it is.

    Raises:
        TrainingInterruptedError: A signal came; called again, training goes on.
        RequestError: The folder holds another run, or the training cannot start.
        SparseUNetError: The training failed.
    """
    hardware, options = hardware or HardwareOptions(), options or TrainingOptions()
    folder = request.run.fold_folder
    if (folder / CHECKPOINT_FINAL).is_file():
        require_same_run(read_record(folder), request.identity, folder)
        logger.info("%s has finished already; nothing to do.", folder)
        return request.run
    with options.processes.first_alone():
        opened = _open(request, hardware, options.processes)
    announce(opened)
    if options.processes.is_first:
        tell_forecast(request, opened)
    with ExitStack() as stack:
        is_first = options.processes.is_first
        on_epoch = _listeners(stack, request, opened, options) if is_first else []
        fit(
            request.store,
            request.split,
            configuration=opened.configuration,
            labels=request.prepared.labels,
            recipe=opened.recipe,
            hardware=opened.hardware,
            folder=folder,
            on_epoch=on_epoch,
            on_pace=partial(tell_pace, opened),
            previous_stage=None if request.first is None else request.first.inputs,
            pretrained=request.pretrained,
            checkpoint_every_s=60 * options.checkpoint_minutes,
            stop_signal=options.stop_signal,
        )
    number = options.processes.highest(options.stop_signal() or 0)
    if number:  # one that came too late for a step
        raise TrainingInterruptedError("stopped after the last step", signal_number=number)
    return request.run


def validate(request: TrainingRequest, *, device: str, save_probabilities: bool = False) -> None:
    """Segment and score the validation cases of a finished fold.

    For a next stage of a cascade its training cases are segmented where it has no others. Nothing
    is done where nothing is missing.
    """
    prepared, configuration = request.prepared, request.configuration
    if not request.split.val and configuration.next_stage is None:
        return
    folder = request.run.fold_folder
    files = segment_held_out(
        prepared,
        folder,
        request.split,
        fold=request.fold,
        device=device,
        previous_stage=None if request.first is None else request.first.held_out,
        save_probabilities=save_probabilities,
    )
    if configuration.next_stage is not None:
        pass_to_next_stage(prepared, configuration, folder, files)


def _open(request: TrainingRequest, hardware: HardwareOptions, processes: Processes) -> OpenedRun:
    """Return the run that is there as it was recorded, or record it as a new one.

    Raises:
        RequestError: The folder holds a run of another recipe, plan or data.
    """
    folder = request.run.fold_folder
    if has_record(folder):
        record = read_record(folder)
        require_same_run(record, request.identity, folder)
        _tell_other_code(record, folder)
        recorded = replace(hardware, precision=record.precision or hardware.precision)
        return OpenedRun(
            run=request.run,
            dataset_name=request.prepared.name,
            configuration=record.configuration,
            recipe=record.recipe or request.recipe,
            hardware=choose_hardware(recorded, processes),
            is_new=False,
        )
    chosen = choose_hardware(hardware, processes)
    configuration, recipe, budget = request.configuration, request.recipe, None
    if request.time_budget_min is not None:
        fitted = choose_for_budget(
            configuration,
            labels=request.prepared.labels,
            recipe=recipe,
            hardware=chosen,
            minutes=request.time_budget_min,
            runs=request.run.folder.parent,
            identity=request.identity,
        )
        configuration, recipe, budget = fitted.configuration, fitted.recipe, fitted.record
    write_record(
        folder,
        RunRecord(
            run_id=request.run_id,
            dataset_name=request.prepared.name,
            fold=request.fold,
            plan=request.prepared.plan,
            configuration=configuration,
            recipe=recipe,
            mirror_axes=recipe.mirrored_axes,
            split=request.split,
            identity=request.identity,
            dataset_json=request.prepared.dataset_json,
            precision=DTYPE_NAMES[chosen.dtype],
            previous_stage=None if request.first is None else request.first.record,
            pretrained_weights=None if request.pretrained is None else str(request.pretrained),
            time_budget=budget,
            versions=current_versions(),
        ),
    )
    return OpenedRun(
        run=request.run,
        dataset_name=request.prepared.name,
        configuration=configuration,
        recipe=recipe,
        hardware=chosen,
        is_new=True,
    )


def _tell_other_code(record: RunRecord, folder: Path) -> None:
    """Warn where a run goes on with other code than it began with."""
    now = current_versions()
    changed = [
        f"{name} {record.versions[name]} → {now.get(name, 'unknown')}"
        for name in ("sparseunet", "commit", "torch")
        if name in record.versions and record.versions[name] != now.get(name)
    ]
    if changed:
        logger.warning(
            "%s goes on with other code than it began with: %s.", folder, ", ".join(changed)
        )


def _listeners(
    stack: ExitStack, request: TrainingRequest, opened: OpenedRun, options: TrainingOptions
) -> list[OnEpoch]:
    """Return what the first process calls after every epoch."""
    folder, run = request.run.fold_folder, request.run

    def show(log: Sequence[LogEntry]) -> None:
        if not shows_bar():
            logger.info("%s", epoch_line(log[-1], opened.recipe.epochs))

    listeners: list[OnEpoch] = [show]
    if options.on_epoch is not None:
        listeners.append(partial(options.on_epoch, run))
    if options.tensorboard:
        listeners.append(stack.enter_context(write_tensorboard(folder / TENSORBOARD)))
    if options.wandb is not None:
        name = "-".join((request.prepared.name, opened.configuration.name, run.name, str(run.fold)))
        sender = write_wandb(options.wandb, name=name, folder=folder, config=asdict(opened.recipe))
        listeners.append(stack.enter_context(sender))
    return listeners
