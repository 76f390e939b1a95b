"""Items go through three steps at the same time, and one that fails does not stop the others."""

import threading

import pytest

from sparseunet.errors import RequestError
from sparseunet.prediction.overlap import overlap


def _double(number):
    return 2 * number


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_item_goes_through_all_steps_and_work_sees_them_in_order(num_workers):
    worked, finished = [], {}

    def work(doubled):
        worked.append(doubled)
        return doubled + 1

    failures = overlap(
        range(10),
        prepare=_double,
        work=work,
        finish=lambda item, result: finished.update({item: result}),
        num_workers=num_workers,
        label="Counting",
    )
    assert failures == []
    assert worked == list(range(0, 20, 2))
    assert finished == {number: 2 * number + 1 for number in range(10)}


@pytest.mark.parametrize("step", ["prepare", "work", "finish"])
def test_an_item_that_fails_is_reported_and_the_others_finish(step):
    finished = []

    def fail_at(name, number):
        if name == step and number == 2:
            raise RequestError(f"{name} cannot")
        return number

    def finish(item, result):
        fail_at("finish", item)
        finished.append(item)

    failures = overlap(
        range(5),
        prepare=lambda number: fail_at("prepare", number),
        work=lambda number: fail_at("work", number),
        finish=finish,
        num_workers=2,
        label="Failing",
    )
    assert [(item, str(error)) for item, error in failures] == [(2, f"{step} cannot")]
    assert sorted(finished) == [0, 1, 3, 4]


def test_no_more_items_are_in_memory_than_promised():
    lock = threading.Lock()
    alive, most = set(), 0

    def prepare(number):
        nonlocal most
        with lock:
            alive.add(number)
            most = max(most, len(alive))
        return number

    def finish(item, result):
        with lock:
            alive.remove(item)

    overlap(range(40), prepare=prepare, work=_double, finish=finish, num_workers=2, label="Holding")
    assert not alive
    assert most <= 2 * 2 + 1


@pytest.mark.parametrize(("max_bytes", "most_expected"), [(None, 5), (30, 3), (10, 1), (1, 1)])
def test_items_wait_for_memory_but_one_is_always_let_through(max_bytes, most_expected):
    lock = threading.Lock()
    alive, most, finished = set(), 0, []

    def prepare(number):
        nonlocal most
        with lock:
            alive.add(number)
            most = max(most, len(alive))
        if number == 5:
            raise RequestError("a scan that cannot be read takes no room from the others")
        return number

    def leave(number):
        with lock:
            alive.discard(number)

    def work(number):
        leave(5)
        return number

    def finish(item, result):
        finished.append(item)
        leave(item)

    overlap(
        range(20),
        prepare=prepare,
        work=work,
        finish=finish,
        num_workers=2,
        label="Waiting",
        num_bytes=lambda _: 10,
        max_bytes=max_bytes,
    )
    assert sorted(finished) == [number for number in range(20) if number != 5]
    assert most <= most_expected + (
        1 if max_bytes else 0
    )  # the one that failed was never worked on


def test_an_error_nobody_foresaw_is_logged_with_its_traceback(caplog):
    failures = overlap(
        [0], prepare=lambda number: 1 / number, work=_double, finish=print, num_workers=1, label="x"
    )
    assert isinstance(failures[0][1], ZeroDivisionError)
    assert "Traceback" in caplog.text


def test_an_interrupt_stops_everything():
    def work(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overlap(range(9), prepare=_double, work=work, finish=print, num_workers=2, label="x")


def test_no_items_are_no_work():
    assert overlap([], prepare=_double, work=_double, finish=print, num_workers=2, label="x") == []
