"""One epoch: its steps, its validation, and its line of the log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from sparseunet.networks.device import autocast
from sparseunet.training.batches import load_batches
from sparseunet.training.checkpoints import Checkpoints
from sparseunet.training.epoch_sums import EpochSums
from sparseunet.training.interruption import TrainingInterruptedError
from sparseunet.training.loader import Batch, BatchDataset
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import learning_rate_at
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import LogEntry
from sparseunet.training.state import TrainingState
from sparseunet.training.step import Hardware, train_step

_VALIDATION_SHARE = 5
"""Training steps per validation step (nnU-Net 2.8.1: 250 and 50)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Objective, recipe, hardware and stop signal of a training."""

    objective: Objective
    recipe: Recipe
    hardware: Hardware
    stop_signal: Callable[[], int | None]
    """Returns the number of the signal that asks the training to stop; None for none."""

    def raise_if_stopped(self, state: TrainingState) -> None:
        """Raise `TrainingInterruptedError` when a signal has come, to any of the processes."""
        number = self.hardware.processes.highest(self.stop_signal() or 0)
        if number:
            raise TrainingInterruptedError(
                f"stopped after step {state.step} of {self.recipe.num_iterations}",
                signal_number=number,
            )


def train_epoch(
    state: TrainingState,
    batches: Iterator[Batch],
    *,
    engine: Engine,
    checkpoints: Checkpoints,
    progress: Iterator[int],
) -> LogEntry:
    """Do the remaining steps of the current epoch and return its line of the log.

    Raises:
        TrainingInterruptedError: A signal has come; `state` may be saved and trained on later.
        SparseUNetError: Loss or weights are no numbers, a batch cannot be made, the disk is full.
    """
    recipe = engine.recipe
    state.network.train()
    end = min(recipe.num_iterations, (state.epochs + 1) * recipe.steps_per_epoch)
    while state.step < end:
        engine.raise_if_stopped(state)
        start = time.perf_counter()
        next(progress, None)
        wait_start = time.perf_counter()
        batch = next(batches)
        state.epoch_sums.waited_s += time.perf_counter() - wait_start
        loss, counts = train_step(
            state, batch, objective=engine.objective, recipe=recipe, hardware=engine.hardware
        )
        annotated_voxels = engine.objective.annotated_voxels(batch.weight_BZYX)
        state.epoch_sums.add(loss, counts, annotated_voxels=annotated_voxels)
        state.epoch_sums.duration_s += time.perf_counter() - start
        if state.step < end and checkpoints.is_due_within_epoch():
            checkpoints.write(state)
    epoch_sums, objective = state.epoch_sums, engine.objective
    return {
        "epoch": state.epochs + 1,
        "step": state.step,
        "train_loss": epoch_sums.mean_loss,
        "pseudo_dice": objective.pseudo_dice(epoch_sums.counts),
        "learning_rate": learning_rate_at(state.step - 1, recipe),
        "annotated_voxels": epoch_sums.annotated_voxels,
        "class_voxels": _by_class(objective, epoch_sums),
        "skipped_steps": epoch_sums.skipped_steps,
        "duration_s": round(epoch_sums.duration_s, 3),
        "waiting_for_data": round(epoch_sums.waited_s / max(epoch_sums.duration_s, 1e-9), 4),
        **peak_memory(engine.hardware.device),
    }


@torch.no_grad()
def validate(state: TrainingState, dataset: BatchDataset, *, engine: Engine) -> LogEntry:
    """Return loss and pseudo Dice on batches of the validation cases.

    Raises:
        TrainingInterruptedError: A signal has come.
    """
    start, epoch_sums = time.perf_counter(), EpochSums()
    device, objective = engine.hardware.device, engine.objective
    count = max(1, engine.recipe.steps_per_epoch // _VALIDATION_SHARE)
    first = (state.epochs + 1) * count
    steps = range(first, first + count)
    state.network.eval()  # nothing drops out, and batch norm learns nothing from what is watched,
    state.network.training = True  # while networks with deep supervision give all their levels
    with closing(load_batches(dataset, steps=steps, num_workers=0, pin_memory=False)) as batches:
        for batch in batches:
            engine.raise_if_stopped(state)
            moved = batch.to(device)
            with autocast(device, engine.hardware.dtype):
                outputs = state.network(moved.image_BCZYX)
            target = moved.labels_BZYX, moved.weight_BZYX, moved.annotated_BK
            loss, counts = objective.loss(outputs, *target), objective.counts(outputs, *target)
            annotated_voxels = objective.annotated_voxels(batch.weight_BZYX)
            epoch_sums.add(float(loss), counts, annotated_voxels=annotated_voxels)
    return {
        "val_loss": epoch_sums.mean_loss,
        "val_pseudo_dice": objective.pseudo_dice(epoch_sums.counts),
        "val_class_voxels": _by_class(objective, epoch_sums),
        "val_duration_s": round(time.perf_counter() - start, 3),
    }


def _by_class(objective: Objective, epoch_sums: EpochSums) -> dict[str, int]:
    voxels = dict.fromkeys(objective.labels.foreground, 0)
    return voxels | dict(zip(voxels, epoch_sums.class_voxels, strict=False))


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Return the most memory this process, and its GPU, have held so far, in MiB."""
    found: dict[str, Any] = {"peak_memory_mib": _peak_resident_mib()}
    if device.type == "cuda":
        found["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return found


def _peak_resident_mib() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
