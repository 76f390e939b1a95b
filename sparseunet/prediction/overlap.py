"""Three steps per item, so that reading, computing and writing happen at the same time."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from sparseunet.errors import SparseUNetError
from sparseunet.progress import track

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def overlap(
    items: Sequence[Item],
    *,
    prepare: Callable[[Item], Prepared],
    work: Callable[[Prepared], Result],
    finish: Callable[[Item, Result], None],
    num_workers: int,
    label: str,
    num_bytes: Callable[[Item], int] = lambda _: 0,
    max_bytes: int | None = None,
) -> list[tuple[Item, Exception]]:
    """Run `prepare`, `work` and `finish` on every item, `work` in this thread and in order.

    `prepare` runs in threads, at most `num_workers` items ahead; `finish` in others, at most
    `num_workers` behind. So at most `2 · num_workers + 1` items are in memory, and fewer where they
    would need more than `max_bytes` together (`num_bytes` estimates each); one is always let
    through. An item that fails in one step skips the next ones and does not stop the others.

    Returns:
        The items that failed, each with its error, in the order of `items`.
    """
    in_progress = _ItemsInProgress(num_bytes=num_bytes, max_bytes=max_bytes)
    failures = in_progress.failures
    with ThreadPoolExecutor(num_workers) as before, ThreadPoolExecutor(num_workers) as after:
        prepared = _run_ahead(
            before, prepare, items, num_ahead=num_workers, make_room=in_progress.make_room
        )
        for index, future in enumerate(track(prepared, total=len(items), label=label)):
            try:
                result = work(future.pop().result())
            except Exception as error:  # noqa: BLE001 - reported by the caller, see _note
                in_progress.release(index, error)
                continue
            in_progress.finishing.append((index, after.submit(finish, items[index], result)))
            del result
            while len(in_progress.finishing) > num_workers:
                in_progress.collect()
        while in_progress.finishing:
            in_progress.collect()
    return [(items[index], failures[index]) for index in sorted(failures)]


class _ItemsInProgress(Generic[Item]):
    """The items in memory with their sizes, and the errors of those that failed."""

    def __init__(self, *, num_bytes: Callable[[Item], int], max_bytes: int | None) -> None:
        self.finishing: deque[tuple[int, Future[None]]] = deque()
        self.failures: dict[int, Exception] = {}
        self._num_bytes, self._max_bytes = num_bytes, max_bytes
        self._sizes: dict[int, int] = {}

    def make_room(self, index: int, item: Item) -> bool:
        """Add an item if there is room, if need be after waiting; return whether it was added."""
        size = 0 if self._max_bytes is None else self._num_bytes(item)
        while not self._has_room(size):
            if not self.finishing:
                return False
            self.collect()
        self._sizes[index] = size
        return True

    def collect(self) -> None:
        """Wait for the item that has been finishing the longest."""
        index, future = self.finishing.popleft()
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        self.release(index, error)

    def release(self, index: int, error: Exception | None) -> None:
        """Remove an item that is finished or has failed, and note its error."""
        del self._sizes[index]
        if error is not None:
            self.failures[index] = _note(error)

    def _has_room(self, size: int) -> bool:
        if self._max_bytes is None or not self._sizes:
            return True
        return sum(self._sizes.values()) + size <= self._max_bytes


def _run_ahead(
    executor: Executor,
    function: Callable[[Item], Prepared],
    items: Sequence[Item],
    *,
    num_ahead: int,
    make_room: Callable[[int, Item], bool],
) -> Iterator[list[Future[Prepared]]]:
    """Yield one future per item in order, with at most `num_ahead` items started beyond it.

    Each in a list of its own, from which it is taken, so that nobody keeps what it holds.
    """
    started: deque[Future[Prepared]] = deque()
    for index, item in enumerate(items):
        while not make_room(index, item):
            yield [started.popleft()]
        started.append(executor.submit(function, item))
        if len(started) > num_ahead:
            yield [started.popleft()]
    while started:
        yield [started.popleft()]


def _note(error: Exception) -> Exception:
    """Log the traceback of an error whose message alone would not explain it."""
    if not isinstance(error, SparseUNetError):
        logger.error("%s", error, exc_info=error)
    return error
