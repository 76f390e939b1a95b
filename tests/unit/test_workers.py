"""Cases are worked on in processes of their own, and one that dies takes no other with it."""

import functools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparseunet import workers
from sparseunet.workers import WorkerDiedError, map_in_processes

logger = logging.getLogger(__name__)


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


def meet(_: int, *, folder: Path, count: int) -> int:
    """Return the process id once so many processes are here, so that none does all the work."""
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(list(folder.iterdir())) == count)
    return os.getpid()


def working_folder(_: int) -> Path:
    return Path.cwd()


def imported_modules(_: int) -> set[str]:
    return set(sys.modules)


def warn(number: int) -> int:
    logger.warning("number %d", number)
    print("this must not get between the answers")
    return number


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def die_at_three(number: int, *, code: int | None = None, mark: Path | None = None) -> int:
    """End the process at item 3: by SIGKILL, or an exit code; with a mark the first time only."""
    if number == 3 and not (mark and mark.exists()):
        if mark:
            mark.touch()
        if code is not None:
            os._exit(code)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse_to_be_read(process: int, number: int) -> "Unreadable":
    if os.getpid() != process:
        raise LookupError(f"{number} cannot be read here")
    return Unreadable(number)


class Unreadable:
    """Can be pickled in the process of the test, and be unpickled in no other."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return refuse_to_be_read, (os.getpid(), self.number)


class KeywordOnlyError(Exception):
    """Can be pickled, and never be unpickled, as exceptions with such arguments are."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"{number} went wrong")


def number_of(item: int | Unreadable) -> int:
    return item if isinstance(item, int) else item.number


def raise_keyword_only(number: int) -> int:
    raise KeywordOnlyError(number=number)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(num_workers: int) -> None:
    found = list(map_in_processes(square, range(20), num_workers=num_workers))
    assert found == [number * number for number in range(20)]


def test_there_may_be_nothing_to_do() -> None:
    assert list(map_in_processes(square, [], num_workers=3)) == []


def test_several_workers_are_processes_of_their_own_without_torch(tmp_path: Path) -> None:
    work = functools.partial(meet, folder=tmp_path, count=2)
    found = set(map_in_processes(work, range(8), num_workers=2))
    assert len(found) == 2
    assert os.getpid() not in found
    for modules in map_in_processes(imported_modules, range(2), num_workers=2):
        assert "torch" not in modules


def test_the_next_call_finds_the_processes_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_IDLE_S", 600)
    work = functools.partial(meet, folder=tmp_path, count=2)
    first = set(map_in_processes(work, range(8), num_workers=2))

    def idle() -> set[int]:
        return {worker.process.pid for worker in workers._idle_workers._workers}

    wait_until(lambda: first <= idle())
    assert set(map_in_processes(process_id, range(8), num_workers=2)) <= first
    assert list(map_in_processes(square, [3, 4], num_workers=2)) == [9, 16]


def test_processes_that_were_started_elsewhere_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(map_in_processes(square, range(4), num_workers=2))
    monkeypatch.chdir(tmp_path)
    assert set(map_in_processes(working_folder, range(4), num_workers=2)) == {tmp_path}


def test_leaving_early_ends_the_processes() -> None:
    results = map_in_processes(process_id, range(100), num_workers=2)
    first = next(results)
    results.close()
    wait_until(lambda: not is_running(first))


def test_log_messages_appear_here(caplog: pytest.LogCaptureFixture) -> None:
    assert list(map_in_processes(warn, range(4), num_workers=2)) == [0, 1, 2, 3]
    messages = {record.getMessage() for record in caplog.records if record.name == __name__}
    assert messages == {"number 0", "number 1", "number 2", "number 3"}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_the_work_raises_is_raised_here(num_workers: int) -> None:
    results = map_in_processes(refuse_three, range(6), num_workers=num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


@pytest.mark.parametrize(("code", "cause"), [(None, "SIGKILL"), (7, "exit code 7")])
def test_an_item_whose_process_dies_twice_is_named_and_the_others_are_done(
    code: int | None, cause: str
) -> None:
    work = functools.partial(die_at_three, code=code)
    results = list(map_in_processes(work, range(8), num_workers=2))
    assert isinstance(results[3], WorkerDiedError)
    assert cause in str(results[3])
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5, 6, 7]


def test_an_item_whose_process_dies_once_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = functools.partial(die_at_three, mark=tmp_path / "died")
    assert list(map_in_processes(work, range(5), num_workers=3)) == [0, 1, 2, 3, 4]
    assert "SIGKILL" in caplog.text


def test_every_item_may_kill_its_process() -> None:
    results = list(map_in_processes(die_at_three, [3, 3, 3, 3], num_workers=3))
    assert all(isinstance(result, WorkerDiedError) for result in results)


def test_workers_end_with_the_process_that_asked(tmp_path: Path) -> None:
    script = (
        "import functools, pathlib, sys\n"
        "from sparseunet.workers import map_in_processes\n"
        "from test_workers import sleep_long\n"
        "work = functools.partial(sleep_long, folder=pathlib.Path(sys.argv[1]))\n"
        "list(map_in_processes(work, range(4), num_workers=2))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    started = [int(mark.name) for mark in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_running(worker) for worker in started))


def sleep_long(_: int, *, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(3600)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().split()[2] != "Z"


def wait_until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        time.sleep(0.01)


def test_a_request_that_a_process_cannot_read_is_an_error_and_no_endless_wait() -> None:
    items = [Unreadable(1), 2, Unreadable(3), 4]
    with pytest.raises(LookupError, match="cannot be read here"):
        list(map_in_processes(number_of, items, num_workers=2))
    assert list(map_in_processes(number_of, [1, 2, 3, 4], num_workers=2)) == [1, 2, 3, 4]


def test_an_answer_that_cannot_be_read_is_an_error_and_later_calls_work() -> None:
    with pytest.raises(TypeError, match="KeywordOnlyError"):
        list(map_in_processes(raise_keyword_only, [1, 2, 3], num_workers=2))
    assert list(map_in_processes(square, [1, 2, 3], num_workers=2)) == [1, 4, 9]
