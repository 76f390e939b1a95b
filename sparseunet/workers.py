"""Work on many cases in light processes, so that one that dies takes no other with it.

Each process is started fresh, imports only what the work needs (never torch, if the work does not)
and handles one case at a time. Requests and answers are pickled over its standard input and output;
when the process that asks is gone, so are the workers.
"""

import atexit
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_START = "import sys; sys.path[:] = sys.argv[1:]; from sparseunet.workers import serve; serve()"
_IDLE_S = 5.0
_MAX_DEATHS = 2
"""So often may an item's process die before the item is given up."""


class WorkerDiedError(Exception):
    """The processes that worked on an item died; the message says how."""


def map_in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int
) -> Iterator[Result | WorkerDiedError]:
    """Yield the result of every item, in the order of `items`.

    At most `num_workers` items are worked on at a time. If a process dies, its item is tried once
    more and the rest goes on with one process less; the last one is replaced. With one worker
    nothing is started and the work is done in this process, where a death is everybody's.
    Processes stay for a few seconds when all is done, and a call that follows takes them over.

    Args:
        work: Picklable, as are the items: a function of a module, or a `functools.partial` of one.
            Its log messages appear in this process.
        items: What to work on.
        num_workers: At least 1.

    Yields:
        What `work` returned, or a `WorkerDiedError` in its place.

    Raises:
        Exception: What `work` raised; the other items are given up.
    """
    if num_workers == 1 or len(items) < 2:
        yield from map(work, items)
        return
    pool = _Pool(work, items, num_workers=min(num_workers, len(items)))
    try:
        for future in pool.futures:
            try:
                yield future.result()
            except WorkerDiedError as error:
                yield error
    except BaseException:  # the one who iterates leaving early included
        pool.stop()
        raise


def serve() -> None:
    """Answer requests on standard input until it is closed. What workers run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process decides when to stop
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    records = _Records()
    logging.getLogger().addHandler(records)
    logging.getLogger().setLevel(logging.INFO)
    work: Callable[[Any], Any] | None = None
    while True:
        request = requests.get()
        work = request.work or work
        try:
            assert work is not None, "the first request of a call names the work"
            answer = _Answer(result=work(request.item), records=records.take())
            content = pickle.dumps(answer)
        except Exception as error:  # noqa: BLE001 - travels to the process that asked
            content = pickle.dumps(_Answer(error=error, records=records.take()))
        answers.write(content)
        answers.flush()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    work: Callable[[Any], Any] | None
    """None: the same as before."""
    item: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    result: Any = None
    error: Exception | None = None
    records: list[logging.LogRecord]


class _Records(logging.Handler):
    """Keeps messages until they travel with an answer."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        taken, self._records = self._records, []
        return taken


def _read_requests(requests: "queue.SimpleQueue[_Request]") -> None:
    """Pass requests on; when there will be no more, end the process in the middle of its work."""
    try:
        while True:
            requests.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Worker:
    """A process, and what it was started with: where it is and where it finds modules."""

    process: "subprocess.Popen[bytes]"
    surroundings: tuple[str, ...]

    @classmethod
    def start(cls, surroundings: tuple[str, ...]) -> "_Worker":
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return cls(process=process, surroundings=surroundings)

    def ask(self, request: _Request) -> _Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(pickle.dumps(request))
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def end(self) -> int:
        """Kill it, if need be, and return its exit code."""
        self.process.kill()
        return self.process.wait()


class _Idle:
    """Workers that have nothing to do, kept for a moment in case another call follows."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def keep(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.append(worker)
        timer = threading.Timer(_IDLE_S, self._end, [worker])
        timer.daemon = True
        timer.start()

    def take(self, surroundings: tuple[str, ...]) -> _Worker | None:
        with self._lock:
            for worker in reversed(self._workers):
                if worker.surroundings == surroundings and worker.process.poll() is None:
                    self._workers.remove(worker)
                    return worker
        return None

    def end_all(self) -> None:
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            if worker not in self._workers:
                return
            self._workers.remove(worker)
        worker.end()


_idle = _Idle()
atexit.register(_idle.end_all)


class _Pool(Generic[Item, Result]):
    """One thread per process hands it items and waits for its answers."""

    def __init__(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int
    ) -> None:
        self.futures: list[Future[Result]] = [Future() for _ in items]
        self._work = work
        self._items = items
        self._surroundings = (str(Path.cwd()), *sys.path)
        self._waiting = deque(range(len(items)))
        self._deaths = [0] * len(items)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._stopped = False
        self._num_alive = num_workers
        for _ in range(num_workers):
            threading.Thread(target=self._drive, daemon=True).start()

    def stop(self) -> None:
        """End all processes, in the middle of their work if need be."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            workers = list(self._workers)
        for worker in workers:
            worker.end()

    def _drive(self) -> None:
        goes_on = True
        while goes_on:
            try:
                with self._lock:
                    worker = _idle.take(self._surroundings) or _Worker.start(self._surroundings)
                    self._workers.add(worker)
            except OSError as error:
                self._give_up(error)
                return
            died = self._feed(worker)
            with self._lock:
                self._workers.discard(worker)
                if not died and not self._stopped:
                    _idle.keep(worker)
                # In one step with the count, so that an item put back is never left to nobody.
                is_last = self._num_alive == 1
                goes_on = bool(self._waiting) and (is_last or not died)
                self._num_alive -= not goes_on

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            indices, self._waiting = list(self._waiting), deque()
            self._num_alive -= 1
        for index in indices:
            self.futures[index].set_exception(error)

    def _feed(self, worker: _Worker) -> bool:
        """Hand items to a worker until none is left or it dies; return whether it died."""
        work: Callable[[Item], Result] | None = self._work
        while True:
            with self._lock:
                if not self._waiting:
                    return False
                index = self._waiting.popleft()
            try:
                answer = worker.ask(_Request(work=work, item=self._items[index]))
            except (EOFError, OSError, pickle.UnpicklingError):
                self._bury(worker, index)
                return True
            except Exception as error:  # noqa: BLE001 - a request or an answer that cannot travel
                self.futures[index].set_exception(error)
                continue
            work = None
            for record in answer.records:
                _log_here(record)
            if answer.error is None:
                self.futures[index].set_result(answer.result)
            else:
                self.futures[index].set_exception(answer.error)

    def _bury(self, worker: _Worker, index: int) -> None:
        cause = _cause(worker.process.wait())
        with self._lock:
            if self._stopped:  # which is what killed it
                return
            self._deaths[index] += 1
            if self._deaths[index] < _MAX_DEATHS:
                logger.warning("A worker %s; its case is tried once more.", cause)
                self._waiting.append(index)
                return
        self.futures[index].set_exception(WorkerDiedError(cause))


def _log_here(record: logging.LogRecord) -> None:
    local = logging.getLogger(record.name)
    if local.isEnabledFor(record.levelno):
        local.handle(record)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", as systems do that run out of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
