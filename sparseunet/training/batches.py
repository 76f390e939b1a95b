"""Batches of a training in order, made in advance by worker processes that may die.

A batch is a function of its step alone, so processes that died are replaced and make the very
batches that are missing.
"""

import logging
import multiprocessing
import multiprocessing.process
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from sparseunet.errors import SparseUNetError
from sparseunet.training.loader import Batch, BatchDataset
from sparseunet.training.processes import may_fork

logger = logging.getLogger(__name__)

_PREFETCH = 3
"""Batches that each process makes in advance."""
_EXIT_TIMEOUT_S = 10.0
"""Longest wait for a dying process to end; freeing much memory takes a while."""
_MAX_DEATHS = 3
"""Deaths without a batch in between after which processes are given up."""
_SHARED_MEMORY = Path("/dev/shm")
_OUT_OF_MEMORY = {signal.SIGKILL, signal.SIGBUS} if hasattr(signal, "SIGKILL") else set()
_HINTS = {
    "SIGKILL": "as systems do that run out of memory; fewer workers need less",
    "SIGBUS": f"as happens when {_SHARED_MEMORY} is full; enlarge it (docker: shm-size) or use "
    "fewer workers",
}


def load_batches(
    dataset: BatchDataset, *, steps: range, num_workers: int, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Yield the batches of `steps` in order, made ahead by `num_workers` processes (0: here).

    A process that dies is named in a warning and replaced. After three deaths without a batch
    between, batches are made here if memory was the likely reason. Fewer processes start where
    shared memory does not hold their batches. Closing the iterator ends the processes.

    Raises:
        SparseUNetError: A batch cannot be made (names case and file), or processes keep dying for
            another reason than memory.
    """
    batches_or_failures, remaining, deaths = _BatchesOrFailures(dataset), steps, 0
    num_workers = _workers_that_fit(dataset, num_workers)
    while remaining and num_workers:
        workers = _WorkerGroup(
            batches_or_failures, remaining, num_workers=num_workers, pin_memory=pin_memory
        )
        try:
            while remaining:
                batch = _unwrap(next(workers))
                remaining, deaths = remaining[1:], 0
                yield batch
        except _WorkersDiedError as error:
            deaths += 1
            if deaths == _MAX_DEATHS and not error.for_memory:
                raise SparseUNetError(
                    f"{error}; {deaths} times in a row at step {remaining[0] + 1}. Preprocess "
                    "again if files are damaged, or see whether a training without workers says "
                    "more.",
                    setting="num_workers",
                ) from None
            if deaths == _MAX_DEATHS:
                num_workers = 0
            logger.warning(
                "%s. %s",
                error,
                "It is replaced; no batch is lost."
                if num_workers
                else "From now on batches are made without processes, which is slower.",
            )
        finally:
            workers.end()
    for step in remaining:
        batch = _unwrap(batches_or_failures[step])
        yield batch.pin_memory() if pin_memory else batch


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """Why a batch could not be made, in a form that travels between processes."""

    message: str


class _BatchesOrFailures(Dataset["Batch | _Failure"]):
    """The batches of a dataset; a `_Failure` in place of a batch that cannot be made."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> "Batch | _Failure":
        try:
            return self.dataset[step]
        except SparseUNetError as error:
            return _Failure(message=f"The batch of step {step + 1} cannot be made: {error}")
        except Exception:  # noqa: BLE001 - a fault of ours, shown with all it needs to be found
            details = traceback.format_exc()
            return _Failure(message=f"The batch of step {step + 1} cannot be made:\n{details}")


def _unwrap(result: "Batch | _Failure") -> Batch:
    if isinstance(result, _Failure):
        raise SparseUNetError(result.message)
    return result


class _WorkersDiedError(Exception):
    """Worker processes died; the message names each and the cause."""

    def __init__(self, dead: list[tuple[int, multiprocessing.process.BaseProcess]]) -> None:
        self.for_memory = all(-(process.exitcode or 0) in _OUT_OF_MEMORY for _, process in dead)
        super().__init__(
            "; ".join(
                f"Worker {number} (pid {process.pid}), which makes batches, "
                f"{_cause(process.exitcode or 0)}"
                for number, process in dead
            )
        )


class _WorkerGroup:
    """The worker processes of one torch loader."""

    def __init__(
        self, dataset: _BatchesOrFailures, steps: range, *, num_workers: int, pin_memory: bool
    ) -> None:
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=steps,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=_PREFETCH,
            worker_init_fn=_set_up_worker,
            multiprocessing_context=_context(),
        )
        others = set(multiprocessing.active_children())
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        self._iterator: Iterator[Batch | _Failure] | None = iter(loader)
        if in_main_thread and before is not None:
            # torch's handler would raise in the middle of an optimiser step.
            signal.signal(signal.SIGCHLD, before)
        started = set(multiprocessing.active_children()) - others
        self._processes = sorted(started, key=lambda process: process.pid or 0)

    def __next__(self) -> "Batch | _Failure":
        assert self._iterator is not None, "not ended"
        try:
            return next(self._iterator)
        except (RuntimeError, OSError, EOFError):
            # A dying process first closes the pipe that others read and is gone some time later.
            ended = connection.wait(
                [process.sentinel for process in self._processes], _EXIT_TIMEOUT_S
            )
            for process in self._processes:
                if process.sentinel in ended:
                    process.join(_EXIT_TIMEOUT_S)
            dead = [
                (number, process)
                for number, process in enumerate(self._processes)
                if not process.is_alive()
            ]
            if not dead:
                raise
            for process in self._processes:  # one may wait for ever for a lock the dead held
                process.kill()
            raise _WorkersDiedError(dead) from None

    def end(self) -> None:
        """End the processes and wait for them."""
        self._iterator = None  # torch asks them to end, and waits
        for process in self._processes:
            process.kill()
            process.join()


def _context() -> BaseContext | None:
    """Return the start method of worker processes; None for the default of the system."""
    if may_fork() or "forkserver" not in multiprocessing.get_all_start_methods():
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([BatchDataset.__module__])  # torch takes seconds to import
    return context


def _set_up_worker(_: int) -> None:
    """Prepare a new worker process: ignore SIGINT and SIGTERM, and end when the parent ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the training ends; torch does not notice with a fork server."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (f", {_HINTS[name]}" if name in _HINTS else "")


def _workers_that_fit(dataset: BatchDataset, num_workers: int) -> int:
    """Return how many processes shared memory has room for, with a warning where it is fewer."""
    if not num_workers or not _SHARED_MEMORY.is_dir():
        return num_workers
    free_bytes, size_bytes = shutil.disk_usage(_SHARED_MEMORY).free, batch_bytes(dataset)
    fitting = fitting_workers(num_workers, batch_bytes=size_bytes, free_bytes=free_bytes)
    if fitting < num_workers:
        logger.warning(
            "%s has %d MB free, too little for the batches (%d MB each) of %d workers; %d are used."
            " Enlarge it (docker: shm-size=8g or ipc=host).",
            _SHARED_MEMORY,
            free_bytes // 2**20,
            -(-size_bytes // 2**20),
            num_workers,
            fitting,
        )
    return fitting


def fitting_workers(num_workers: int, *, batch_bytes: int, free_bytes: int) -> int:
    """Return the largest number of workers, at most as asked, whose batches fit; perhaps 0.

    Every worker has some batches ready and makes another; training holds one more.
    """
    room = free_bytes // max(1, batch_bytes) - 1
    return max(0, min(num_workers, room // (_PREFETCH + 1)))


def batch_bytes(dataset: BatchDataset) -> int:
    """Return the size of one batch: float32 channels, int64 labels, float32 weights."""
    recipe = dataset.rules
    voxels = dataset.num_samples
    for length in recipe.patch_size:
        voxels *= length
    channels = dataset.store.manifest(dataset.cases[0].name).num_channels
    return voxels * (4 * (channels + len(recipe.previous_values)) + 8 + 4)
