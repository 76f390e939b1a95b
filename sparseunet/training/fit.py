"""Train one network on one split: the loop, from preprocessed cases to final weights."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from sparseunet.artifacts import remove_unfinished
from sparseunet.data.annotation import Source
from sparseunet.data.dataset import Split
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.networks.device import compile_network, keep_freed_memory
from sparseunet.planning.plan import Configuration
from sparseunet.preprocessing.previous_stage import PreviousStage
from sparseunet.preprocessing.store import CaseStore
from sparseunet.progress import track
from sparseunet.training.batches import load_batches
from sparseunet.training.checkpoints import Checkpoints
from sparseunet.training.disk import explain_full_disk, warn_if_space_is_short
from sparseunet.training.epoch import Engine, train_epoch, validate
from sparseunet.training.epoch_sums import EpochSums
from sparseunet.training.interruption import TrainingInterruptedError
from sparseunet.training.loader import MEMORY_BYTES, BatchDataset, BatchRules, summarise_cases
from sparseunet.training.lock import hold_folder
from sparseunet.training.losses import load_loss
from sparseunet.training.losses.comparison import weights_by_output
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.pretrained import load_pretrained_weights
from sparseunet.training.processes import Processes, may_fork, prepare_network
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import LogEntry, OnEpoch, read_log, summary_line, write_log
from sparseunet.training.sampling import CaseSummary, resolve_shares
from sparseunet.training.state import TrainingState, checkpoint_bytes, restore_checkpoint
from sparseunet.training.step import Hardware
from sparseunet.workspace import CHECKPOINT_LATEST

logger = logging.getLogger(__name__)

OnPace = Callable[[float, int], None]
"""Called once with the mean seconds of a step and the number of steps that are left."""
_PACE_STEPS = 5
"""Steps that are timed for it, after one that warms up."""
_CHECKPOINTS_AT_ONCE = 3
"""The latest, the one that replaces it, and the weights alone, best and final."""


def fit(  # noqa: PLR0913 - a cascade's second stage has one more input than other networks
    store: CaseStore,
    split: Split,
    *,
    configuration: Configuration,
    labels: LabelSchema,
    recipe: Recipe,
    hardware: Hardware,
    folder: Path,
    on_epoch: Sequence[OnEpoch] = (),
    on_pace: OnPace | None = None,
    previous_stage: PreviousStage | None = None,
    pretrained: Path | None = None,
    checkpoint_every_s: float = 600.0,
    stop_signal: Callable[[], int | None] = lambda: None,
) -> Path:
    """Train to the end, going on from the last checkpoint in `folder` if there is one.

    Args:
        store: Preprocessed cases of the configuration.
        split: Cases to train on, and to watch (may be none: then there are no best weights).
        configuration: Network, patch and batch.
        labels: The dataset's classes.
        recipe: How to train.
        hardware: Device, precision and workers.
        folder: Receives checkpoints and `log.jsonl`, one line per epoch.
        on_epoch: Each called with the whole log after each epoch, e.g. to draw it.
        on_pace: Called after the first steps with the time that they took.
        previous_stage: What the first stage of a cascade predicted for these cases: input of the
            second, never a target. For the second stage only.
        pretrained: Checkpoint whose weights, but for the heads, are the start.
        checkpoint_every_s: Least time between two checkpoints; 0 writes one after every epoch.
        stop_signal: Asked before every step; a signal number ends training with a checkpoint.

    Returns:
        The file of the final weights.

    Raises:
        RequestError: No training case has any annotation, there is no such loss or class to weigh,
            the batch or the network cannot be divided among processes or parts,
            the configuration has a previous stage and its predictions are not given (or the
            reverse), pretrained weights do not fit, or another process trains in `folder`.
        TrainingInterruptedError: `stop_signal` gave one; called again, training goes on.
        SparseUNetError: Loss or weights stopped being numbers, the disk is full, or batches cannot
            be made. The last checkpoint is kept.
    """
    _check_previous_stage(configuration, previous_stage)
    share = share_of_batch(configuration, hardware)
    rules = batch_rules(configuration, recipe, labels)
    training_cases = summarise_cases(store, split.train, rules)
    if not training_cases:
        raise RequestError(
            f"None of the {len(split.train)} training cases has an annotated voxel; annotate some "
            "slices, or check that the ignore value of dataset.json is right."
        )
    if hardware.device.type == "cpu":
        keep_freed_memory()
    engine = Engine(
        objective=_objective(configuration, labels, recipe, training_cases, hardware.processes),
        recipe=recipe,
        hardware=hardware,
        stop_signal=stop_signal,
    )
    state = _new_state(configuration, labels, recipe, hardware)
    writes = hardware.processes.is_first
    with hold_folder(folder) if writes else nullcontext():
        if writes:
            remove_unfinished(folder)
        _start(state, folder, pretrained, recipe, writes=writes)
        hardware.processes.require_same(
            "recipe, cases or last checkpoint",
            (state.step, recipe, configuration, hardware.dtype, split.train, split.val),
        )
        return _train(
            state,
            BatchDataset(
                store,
                training_cases,
                rules,
                previous_stage,
                memory_bytes=MEMORY_BYTES if may_fork() or not hardware.num_workers else 0,
                share=share,
            ),
            _validation_dataset(store, split, rules, previous_stage, share=share),
            engine=engine,
            checkpoints=Checkpoints(folder=folder, every_s=checkpoint_every_s, writes=writes),
            on_epoch=on_epoch,
            on_pace=on_pace,
            label=f"Training {configuration.name}",
        )


def _start(
    state: TrainingState,
    folder: Path,
    pretrained: Path | None,
    recipe: Recipe,
    *,
    writes: bool,
) -> None:
    if (folder / CHECKPOINT_LATEST).is_file():
        restore_checkpoint(state, folder / CHECKPOINT_LATEST)
        logger.info("Going on after step %d of %d", state.step, recipe.num_iterations)
        return
    if pretrained is not None:
        load_pretrained_weights(state.network, pretrained)
    if not writes:
        return
    needed_bytes = _CHECKPOINTS_AT_ONCE * checkpoint_bytes(state)
    warn_if_space_is_short(folder, needed_bytes=needed_bytes)


def _train(
    state: TrainingState,
    training: BatchDataset,
    validation: BatchDataset | None,
    *,
    engine: Engine,
    checkpoints: Checkpoints,
    on_epoch: Sequence[OnEpoch],
    on_pace: OnPace | None,
    label: str,
) -> Path:
    """Run the remaining epochs and return the file of the final weights.

    Args:
        state: Network, optimiser and counters; changed in place.
        training: Batches to learn from.
        validation: Batches of the validation cases; None for no validation.
        engine: Objective, recipe, hardware and stop signal.
        checkpoints: Where and when checkpoints are written; only the first process writes.
        on_epoch: Each called with the whole log after each epoch.
        on_pace: Called once with the time of the first steps.
        label: Label of the progress bar.

    Raises:
        TrainingInterruptedError: A signal has come; a checkpoint of the last step is written.
    """
    folder, hardware, writes = checkpoints.folder, engine.hardware, checkpoints.writes
    log = read_log(folder, epochs=state.epochs)
    steps = range(state.step, engine.recipe.num_iterations)
    batches = load_batches(
        training,
        steps=steps,
        num_workers=hardware.num_workers,
        pin_memory=hardware.device.type == "cuda",
    )
    timed_steps = _report_pace(steps, on_pace)
    progress = (
        track(timed_steps, total=len(steps), label=label, note=lambda: _score_note(log))
        if writes
        else _without_progress(steps)
    )
    with closing(batches), closing(progress):
        try:
            while state.epochs < engine.recipe.epochs:
                entry = train_epoch(
                    state, batches, engine=engine, checkpoints=checkpoints, progress=progress
                )
                if validation is not None:
                    entry |= validate(state, validation, engine=engine)
                    state.best.consider(entry["val_pseudo_dice"], state)
                    entry["val_running_dice"] = state.best.running_mean
                state.epochs, state.epoch_sums = state.epochs + 1, EpochSums()
                if not writes:
                    continue
                log.append(entry)
                write_log(folder, log)
                if checkpoints.is_due() and state.epochs < engine.recipe.epochs:
                    checkpoints.write(state)
                for call in on_epoch:
                    with explain_full_disk(folder):
                        call(log)
        except TrainingInterruptedError:
            checkpoints.write(state)
            raise
        next(progress, None)
    if writes:
        best_step = None if state.best.highest is None else state.best.step
        write_log(folder, [*log, summary_line(log, best_step=best_step)])
    final = checkpoints.finish(state)
    hardware.processes.wait()
    return final


def _report_pace(steps: range, on_pace: OnPace | None) -> Iterable[int]:
    """Yield the steps, each when it begins, and say how long the first ones took."""
    start_s = time.perf_counter()
    for done, step in enumerate(steps):
        if done == 1:
            start_s = time.perf_counter()
        if done == 1 + _PACE_STEPS and on_pace is not None:
            on_pace((time.perf_counter() - start_s) / _PACE_STEPS, len(steps) - done)
        yield step


def _score_note(log: Sequence[LogEntry]) -> str:
    """Return loss and mean pseudo Dice of the last epoch; "" before the first has ended."""
    if not log or log[-1]["train_loss"] is None:
        return ""
    scores = [score for score in log[-1]["pseudo_dice"].values() if score is not None]
    dice = f", pseudo Dice {sum(scores) / len(scores):.3f}" if scores else ""
    return f"loss {log[-1]['train_loss']:.3f}{dice}"


def _without_progress(steps: range) -> Generator[int, None, None]:
    """Yield the steps without showing progress."""
    yield from steps


def share_of_batch(configuration: Configuration, hardware: Hardware) -> slice:
    """Return which samples of each batch pass the network in this process.

    Raises:
        RequestError: There are more processes, or parts of a share, than samples.
    """
    share = hardware.processes.share(configuration.batch_size)
    smallest = configuration.batch_size // hardware.processes.count
    if not 1 <= hardware.num_parts <= smallest:
        raise RequestError(
            f"The parts of a batch must be between 1 and {smallest}, its patches of "
            f"{configuration.batch_size} in each of {hardware.processes.count} processes, found "
            f"{hardware.num_parts}.",
            setting="accumulate",
        )
    return share


def _objective(
    configuration: Configuration,
    labels: LabelSchema,
    recipe: Recipe,
    cases: Sequence[CaseSummary],
    processes: Processes,
) -> Objective:
    dense = all(case.is_dense for case in cases)
    chosen = recipe.batch_dice
    return Objective(
        labels=labels,
        strides=configuration.network.strides,
        batch_dice=(configuration.batch_dice if dense else True) if chosen is None else chosen,
        compare=load_loss(recipe.loss),
        class_weights=weights_by_output(labels, recipe.class_weights),
        enough_annotated=recipe.enough_annotated,
        total=processes.total,
    )


def _new_state(
    configuration: Configuration, labels: LabelSchema, recipe: Recipe, hardware: Hardware
) -> TrainingState:
    torch.manual_seed(recipe.seed)
    network = build_network(
        configuration.network,
        num_input_channels=num_input_channels(configuration, labels),
        num_outputs=labels.num_outputs,
        deep_supervision=True,
    ).to(hardware.device)
    if max(hardware.processes.count, hardware.num_parts) > 1:
        network = prepare_network(network, device=hardware.device, num_parts=hardware.num_parts)
    if hardware.compiles:
        compile_network(network)
    return TrainingState(
        network=network,
        optimizer=new_optimizer(network, recipe),
        scaler=torch.amp.GradScaler(hardware.device.type, enabled=hardware.dtype is torch.float16),
    )


def _check_previous_stage(configuration: Configuration, given: PreviousStage | None) -> None:
    if (configuration.previous_stage is None) != (given is None):
        raise RequestError(
            f"Configuration {configuration.name} has "
            + (
                "no previous stage, but predictions of one are given; leave them out."
                if configuration.previous_stage is None
                else f"the previous stage {configuration.previous_stage}; give its predictions."
            )
        )


def batch_rules(configuration: Configuration, recipe: Recipe, labels: LabelSchema) -> BatchRules:
    """Return how the batches of a training are drawn.

    Raises:
        RequestError: A patch share is of no class; lists what there is.
    """
    return BatchRules(
        patch_size=recipe.training_patch or configuration.patch_size,
        batch_size=configuration.batch_size,
        foreground_share=recipe.foreground_share,
        augmentation=recipe.augmentation,
        mirror_axes=recipe.mirrored_axes,
        blank_outside=any(configuration.use_mask_for_norm),
        trust=trust_table(recipe.trust),
        seed=recipe.seed,
        stream=0,
        previous_values=labels.foreground_values,
        patch_shares=resolve_shares(recipe.patch_shares, labels),
        case_weighting=recipe.case_weighting,
        sampler=recipe.sampler,
    )


def trust_table(trust: Mapping[str, float]) -> dict[Source, float]:
    """Return the trust by `Source` from names as they stand in `run.json`."""
    return {Source[name.upper()]: value for name, value in trust.items()}


def _validation_dataset(
    store: CaseStore,
    split: Split,
    rules: BatchRules,
    previous_stage: PreviousStage | None,
    *,
    share: slice,
) -> BatchDataset | None:
    cases = summarise_cases(store, split.val, rules)
    if not cases:
        return None
    unchanged = replace(rules, augmentation="none", stream=1)
    return BatchDataset(store, cases, unchanged, previous_stage, share=share)
