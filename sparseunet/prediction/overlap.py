"""Three steps per item, so that reading, computing and writing happen at the same time."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

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
    finish: Callable[[Item, Prepared, Result], None],
    num_workers: int,
    label: str,
) -> list[tuple[Item, Exception]]:
    """Run `prepare`, `work` and `finish` on every item, `work` in this thread and in order.

    `prepare` runs in threads, at most `num_workers` items ahead; `finish` in others, at most
    `num_workers` behind. So at most `2 · num_workers + 1` items are in memory. An item that fails
    in one step skips the next ones and does not stop the others.

    Returns:
        The items that failed, each with its error, in the order of `items`.
    """
    failures: dict[int, Exception] = {}
    finishing: deque[tuple[int, Future[None]]] = deque()
    with ThreadPoolExecutor(num_workers) as before, ThreadPoolExecutor(num_workers) as after:
        prepared = _run_ahead(before, prepare, items, num_ahead=num_workers)
        for index, future in enumerate(track(prepared, total=len(items), label=label)):
            try:
                ready = future.result()
                result = work(ready)
            except Exception as error:  # noqa: BLE001 - reported by the caller, see _note
                failures[index] = _note(error)
                continue
            finishing.append((index, after.submit(finish, items[index], ready, result)))
            while len(finishing) > num_workers:
                _collect(*finishing.popleft(), failures)
        while finishing:
            _collect(*finishing.popleft(), failures)
    return [(items[index], failures[index]) for index in sorted(failures)]


def _run_ahead(
    executor: Executor,
    function: Callable[[Item], Prepared],
    items: Sequence[Item],
    *,
    num_ahead: int,
) -> Iterator[Future[Prepared]]:
    """Yield one future per item in order, with at most `num_ahead` items started beyond it."""
    started: deque[Future[Prepared]] = deque()
    for item in items:
        started.append(executor.submit(function, item))
        if len(started) > num_ahead:
            yield started.popleft()
    yield from started


def _collect(index: int, future: Future[None], failures: dict[int, Exception]) -> None:
    error = future.exception()
    if isinstance(error, Exception):
        failures[index] = _note(error)
    elif error is not None:
        raise error


def _note(error: Exception) -> Exception:
    """Log the traceback of an error whose message alone would not explain it."""
    if not isinstance(error, SparseUNetError):
        logger.error("%s", error, exc_info=error)
    return error
