"""Work on many cases in light processes, so that one that dies takes no other with it.

Each process is started fresh, imports only what the work needs (never torch, if the work does not)
and handles one case at a time. Requests and responses are pickled and travel over its
standard input and output; workers end when the process that sends requests ends.
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
"""Deaths of processes working on an item after which the item is given up."""


class WorkerDiedError(Exception):
    """The processes that worked on an item died; the message says how."""


def map_in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int
) -> Iterator[Result | WorkerDiedError]:
    """Yield the result of every item, in the order of `items`.

    At most `num_workers` items are worked on at a time. If a process dies, its item is tried once
    more and the rest goes on with one process less; the last one is replaced. With one worker
    or one item no process is started and the work is done in this process. Processes stay alive
    for a few seconds when all is done, so that a following call can use them again.

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
    """Run as a worker process: answer requests on standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process decides when to stop
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the responses
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    records = _Records()
    logging.getLogger().addHandler(records)
    logging.getLogger().setLevel(logging.INFO)
    work: Callable[[Any], Any] | None = None
    while True:
        content = requests.get()
        try:
            request: _Request = pickle.loads(content)
            work = request.work or work
            assert work is not None, "the first request of a call names the work"
            response = _Response(result=work(request.item), records=records.take())
            content = pickle.dumps(response)
        except Exception as error:  # noqa: BLE001 - travels to the process that asked
            content = pickle.dumps(_Response(error=error, records=records.take()))
        responses.write(_framed(content))
        responses.flush()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    work: Callable[[Any], Any] | None
    """The function to call; None for that of the request before."""
    item: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Response:
    result: Any = None
    error: Exception | None = None
    records: list[logging.LogRecord]


class _Records(logging.Handler):
    """Keeps messages until they travel with a response."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        taken, self._records = self._records, []
        return taken


def _framed(content: bytes) -> bytes:
    """Return pickled bytes that are read whole, even if what they hold cannot be unpickled.

    What cannot be unpickled, say because its module is not found, would otherwise leave the stream
    somewhere in its middle.
    """
    return pickle.dumps(content)


def _read_requests(requests: "queue.SimpleQueue[bytes]") -> None:
    """Pass requests on; when there will be no more, end the process in the middle of its work."""
    try:
        while True:
            requests.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Worker:
    """A process, with its working folder and module search path (`environment`)."""

    process: "subprocess.Popen[bytes]"
    environment: tuple[str, ...]

    @classmethod
    def start(cls, environment: tuple[str, ...]) -> "_Worker":
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return cls(process=process, environment=environment)

    def send(self, request: _Request) -> _Response:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(_framed(pickle.dumps(request)))
        self.process.stdin.flush()
        content: bytes = pickle.load(self.process.stdout)
        response: _Response = pickle.loads(content)
        return response

    def end(self) -> int:
        """Kill it, if need be, and return its exit code."""
        self.process.kill()
        return self.process.wait()


class _IdleWorkers:
    """Idle workers, kept alive for a few seconds so that another call can use them."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def keep(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.append(worker)
        timer = threading.Timer(_IDLE_S, self._end, [worker])
        timer.daemon = True
        timer.start()

    def take(self, environment: tuple[str, ...]) -> _Worker | None:
        with self._lock:
            for worker in reversed(self._workers):
                if worker.environment == environment and worker.process.poll() is None:
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


_idle_workers = _IdleWorkers()
atexit.register(_idle_workers.end_all)


class _Pool(Generic[Item, Result]):
    """One thread per process hands it items and waits for its responses."""

    def __init__(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int
    ) -> None:
        self.futures: list[Future[Result]] = [Future() for _ in items]
        self._work = work
        self._items = items
        self._environment = (str(Path.cwd()), *sys.path)
        self._waiting = deque(range(len(items)))
        self._num_deaths = [0] * len(items)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._stopped = False
        self._num_alive = num_workers
        for _ in range(num_workers):
            threading.Thread(target=self._run_worker, daemon=True).start()

    def stop(self) -> None:
        """End all processes, in the middle of their work if need be."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            workers = list(self._workers)
        for worker in workers:
            worker.end()

    def _run_worker(self) -> None:
        """Start workers one after another and let them process items; body of a thread."""
        continues = True
        while continues:
            try:
                with self._lock:
                    worker = _idle_workers.take(self._environment) or _Worker.start(
                        self._environment
                    )
                    self._workers.add(worker)
            except OSError as error:
                self._fail_waiting_items(error)
                return
            died = self._process_items(worker)
            with self._lock:
                self._workers.discard(worker)
                if not died and not self._stopped:
                    _idle_workers.keep(worker)
                # In one step with the count, so that an item put back is never left to nobody.
                is_last = self._num_alive == 1
                continues = bool(self._waiting) and (is_last or not died)
                self._num_alive -= not continues

    def _fail_waiting_items(self, error: Exception) -> None:
        """Let every waiting item end with an error, as no worker can be started."""
        with self._lock:
            indices, self._waiting = list(self._waiting), deque()
            self._num_alive -= 1
        for index in indices:
            self.futures[index].set_exception(error)

    def _process_items(self, worker: _Worker) -> bool:
        """Hand items to a worker until none is left or it dies; return whether it died."""
        work: Callable[[Item], Result] | None = self._work
        while True:
            with self._lock:
                if not self._waiting:
                    return False
                index = self._waiting.popleft()
            try:
                response = worker.send(_Request(work=work, item=self._items[index]))
            except (EOFError, OSError, pickle.UnpicklingError):
                self._handle_death(worker, index)
                return True
            except Exception as error:  # noqa: BLE001 - a request or an answer that cannot travel
                self.futures[index].set_exception(error)
                continue
            for record in response.records:
                _log_here(record)
            if response.error is None:
                work = None  # the worker has it now
                self.futures[index].set_result(response.result)
            else:
                self.futures[index].set_exception(response.error)

    def _handle_death(self, worker: _Worker, index: int) -> None:
        """Put the item of a worker that died back into the queue, or fail it after two deaths."""
        cause = _cause(worker.process.wait())
        with self._lock:
            if self._stopped:  # which is what killed it
                return
            self._num_deaths[index] += 1
            if self._num_deaths[index] < _MAX_DEATHS:
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
