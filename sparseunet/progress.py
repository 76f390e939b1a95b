"""Progress of long work: a bar with an estimate on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 10.0


def shows_bar() -> bool:
    """Whether progress is drawn as a bar: on a terminal and in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def track(
    items: Iterable[T], *, total: int, label: str, note: Callable[[], str] | None = None
) -> Generator[T, None, None]:
    """Yield `items` while showing how many are done and how long the rest will take.

    On a terminal and in a notebook a bar is drawn; otherwise standard error gets at most one line
    every ten seconds.

    Args:
        items: What is done, one by one.
        total: Their number.
        label: Stands before the bar.
        note: Says after each item what stands behind the bar.
    """
    if shows_bar():
        from tqdm.auto import tqdm

        with tqdm(items, total=total, desc=label, unit="", dynamic_ncols=True) as bar:
            for item in bar:
                yield item
                if note is not None:
                    bar.set_postfix_str(note(), refresh=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last = now
            left_s = (now - start) / done * (total - done)
            sys.stderr.write(f"{label}: {done}/{total}, {format_duration(left_s)} left\n")
            sys.stderr.flush()
    sys.stderr.write(f"{label}: {total} in {format_duration(time.monotonic() - start)}\n")


def format_duration(duration_s: float) -> str:
    """Return seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    seconds = max(0, round(duration_s))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
