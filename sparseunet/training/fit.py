"""Train one network on one split: the loop, from preprocessed cases to final weights."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseunet.artifacts import atomic_path
from sparseunet.data.annotation import Source
from sparseunet.data.dataset import Split
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.networks.device import autocast
from sparseunet.planning.plan import Configuration
from sparseunet.preprocessing.previous_stage import PreviousStage
from sparseunet.preprocessing.store import CaseStore
from sparseunet.progress import track
from sparseunet.training.config import TrainingConfig
from sparseunet.training.loader import (
    Batch,
    BatchDataset,
    BatchRecipe,
    load_batches,
    summarise_cases,
)
from sparseunet.training.losses import load_loss
from sparseunet.training.losses.comparison import weights_by_output
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import learning_rate_at, new_optimizer
from sparseunet.training.sampling import CaseSummary, resolve_shares
from sparseunet.training.state import (
    TrainingState,
    restore_checkpoint,
    save_checkpoint,
    save_weights,
)
from sparseunet.training.step import Hardware, train_step
from sparseunet.workspace import CHECKPOINT_FINAL, CHECKPOINT_LATEST, LOG_JSONL

logger = logging.getLogger(__name__)

LogEntry = dict[str, Any]
_VALIDATION_SHARE = 5
"""One validation step for so many training steps (nnU-Net 2.8.1: 50 for 250)."""


def fit(  # noqa: PLR0913 - a cascade's second stage has one more input than other networks
    store: CaseStore,
    split: Split,
    *,
    configuration: Configuration,
    labels: LabelSchema,
    config: TrainingConfig,
    hardware: Hardware,
    folder: Path,
    on_epoch: Callable[[Sequence[LogEntry]], None] | None = None,
    previous_stage: PreviousStage | None = None,
) -> Path:
    """Train to the end, going on from the last checkpoint in `folder` if there is one.

    Args:
        store: Preprocessed cases of the configuration.
        split: Cases to train on, and to watch (may be none).
        configuration: Network, patch and batch.
        labels: The dataset's classes.
        config: The recipe.
        hardware: Device, precision and workers.
        folder: Receives checkpoints and `log.jsonl`, one line per epoch.
        on_epoch: Called with the whole log after each epoch, e.g. to draw it.
        previous_stage: What the first stage of a cascade predicted for these cases: input of the
            second, never a target. For the second stage only.

    Returns:
        The file of the final weights.

    Raises:
        RequestError: No training case has any annotation, there is no such loss or class to weigh,
            or the configuration has a previous stage and its predictions are not given (or the
            reverse).
        SparseUNetError: The loss stopped being a number.
    """
    _check_previous_stage(configuration, previous_stage)
    recipe = batch_recipe(configuration, config, labels)
    training_cases = summarise_cases(store, split.train, recipe)
    if not training_cases:
        raise RequestError(
            f"None of the {len(split.train)} training cases has an annotated voxel; annotate some "
            "slices, or check that the ignore value of dataset.json is right."
        )
    objective = _objective(configuration, labels, config, training_cases)
    state = _new_state(configuration, labels, config, hardware)
    if (folder / CHECKPOINT_LATEST).is_file():
        restore_checkpoint(state, folder / CHECKPOINT_LATEST)
        logger.info("Going on after step %d of %d", state.step, config.iterations)
    log = _read_log(folder / LOG_JSONL, up_to_step=state.step)
    batches = load_batches(
        BatchDataset(store, training_cases, recipe, previous_stage),
        steps=range(state.step, config.iterations),
        num_workers=hardware.num_workers,
        pin_memory=hardware.device.type == "cuda",
    )
    validation = _validation_dataset(store, split, recipe, previous_stage)
    progress = track(
        range(state.step, config.iterations),
        total=config.iterations - state.step,
        label=f"Training {configuration.name}",
    )
    while state.step < config.iterations:
        entry = _train_epoch(state, batches, progress, objective, config, hardware)
        if validation is not None:
            entry |= _validate(state, validation, objective, config, hardware)
        log.append(entry)
        _write_log(folder / LOG_JSONL, log)
        save_checkpoint(state, folder / CHECKPOINT_LATEST)
        if on_epoch is not None:
            on_epoch(log)
    next(progress, None)
    save_weights(state, folder / CHECKPOINT_FINAL)
    (folder / CHECKPOINT_LATEST).unlink(missing_ok=True)
    return folder / CHECKPOINT_FINAL


@dataclass(kw_only=True, slots=True)
class _Tally:
    """Sums over the batches of one epoch. Batches without annotation are left out."""

    losses: list[float] = field(default_factory=list)
    annotated_voxels: int = 0
    counts: Tensor | None = None

    def add(self, loss: float, counts: Tensor, batch: Batch) -> None:
        annotated = int((batch.weight_BZYX > 0).sum())
        if annotated:
            self.losses.append(loss)
            self.annotated_voxels += annotated
            self.counts = counts if self.counts is None else self.counts + counts

    @property
    def mean_loss(self) -> float | None:
        return sum(self.losses) / len(self.losses) if self.losses else None


def _train_epoch(
    state: TrainingState,
    batches: Iterator[Batch],
    progress: Iterator[int],
    objective: Objective,
    config: TrainingConfig,
    hardware: Hardware,
) -> LogEntry:
    start, waited_s, tally = time.perf_counter(), 0.0, _Tally()
    state.network.train()
    epoch = state.step // config.iterations_per_epoch + 1
    for _ in range(min(config.iterations, epoch * config.iterations_per_epoch) - state.step):
        next(progress)
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked
        loss, counts = train_step(
            state, batch, objective=objective, config=config, hardware=hardware
        )
        tally.add(loss, counts, batch)
    duration_s = time.perf_counter() - start
    return {
        "epoch": epoch,
        "step": state.step,
        "train_loss": tally.mean_loss,
        "pseudo_dice": objective.pseudo_dice(tally.counts),
        "learning_rate": learning_rate_at(state.step - 1, config),
        "annotated_voxels": tally.annotated_voxels,
        "duration_s": round(duration_s, 3),
        "waiting_for_data": round(waited_s / duration_s, 4),
    }


@torch.no_grad()
def _validate(
    state: TrainingState,
    dataset: BatchDataset,
    objective: Objective,
    config: TrainingConfig,
    hardware: Hardware,
) -> LogEntry:
    steps = max(1, config.iterations_per_epoch // _VALIDATION_SHARE)
    first = state.step // config.iterations_per_epoch * steps
    tally = _Tally()
    state.network.eval()  # nothing drops out, and batch norm learns nothing from what is watched,
    state.network.training = True  # while networks with deep supervision give all their levels
    for batch in load_batches(
        dataset, steps=range(first, first + steps), num_workers=0, pin_memory=False
    ):
        moved = batch.to(hardware.device)
        with autocast(hardware.device, hardware.dtype):
            outputs = state.network(moved.image_BCZYX)
        known = moved.labels_BZYX, moved.weight_BZYX, moved.annotated_BK
        loss, counts = objective.loss(outputs, *known), objective.counts(outputs, *known)
        tally.add(float(loss), counts, batch)
    return {
        "val_loss": tally.mean_loss,
        "val_pseudo_dice": objective.pseudo_dice(tally.counts),
    }


def _objective(
    configuration: Configuration,
    labels: LabelSchema,
    config: TrainingConfig,
    cases: Sequence[CaseSummary],
) -> Objective:
    dense = all(case.is_dense for case in cases)
    chosen = config.batch_dice
    return Objective(
        labels=labels,
        strides=configuration.network.strides,
        batch_dice=(configuration.batch_dice if dense else True) if chosen is None else chosen,
        compare=load_loss(config.loss),
        class_weights=weights_by_output(labels, config.class_weights),
    )


def _new_state(
    configuration: Configuration, labels: LabelSchema, config: TrainingConfig, hardware: Hardware
) -> TrainingState:
    torch.manual_seed(config.seed)
    network = build_network(
        configuration.network,
        num_input_channels=num_input_channels(configuration, labels),
        num_outputs=labels.num_outputs,
        deep_supervision=True,
    ).to(hardware.device)
    return TrainingState(
        network=network,
        optimizer=new_optimizer(network, config),
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


def batch_recipe(
    configuration: Configuration, config: TrainingConfig, labels: LabelSchema
) -> BatchRecipe:
    """Return how the batches of a training are drawn.

    Raises:
        RequestError: A patch share is of no class; lists what there is.
    """
    return BatchRecipe(
        patch_size=configuration.patch_size,
        batch_size=configuration.batch_size,
        foreground_share=config.foreground_share,
        augmentation=config.augmentation,
        mirror_axes=config.mirror_axes,
        blank_outside=any(configuration.use_mask_for_norm),
        trust=trust_table(config.trust),
        seed=config.seed,
        stream=0,
        previous_values=labels.foreground_values,
        patch_shares=resolve_shares(config.patch_shares, labels),
        case_weighting=config.case_weighting,
    )


def trust_table(trust: Mapping[str, float]) -> dict[Source, float]:
    """Return the trust by `Source` from names as they stand in `run.json`."""
    return {Source[name.upper()]: value for name, value in trust.items()}


def _validation_dataset(
    store: CaseStore, split: Split, recipe: BatchRecipe, previous_stage: PreviousStage | None
) -> BatchDataset | None:
    cases = summarise_cases(store, split.val, recipe)
    if not cases:
        return None
    unchanged = replace(recipe, augmentation="none", stream=1)
    return BatchDataset(store, cases, unchanged, previous_stage)


def _read_log(path: Path, *, up_to_step: int) -> list[LogEntry]:
    if not path.is_file():
        return []
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if entry["step"] <= up_to_step]


def _write_log(path: Path, log: Sequence[LogEntry]) -> None:
    with atomic_path(path) as temporary:
        lines = "".join(json.dumps(entry) + "\n" for entry in log)
        temporary.write_text(lines, encoding="utf-8")
