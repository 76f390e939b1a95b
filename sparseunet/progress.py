"""Progress of long work: a bar with an estimate on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], *, total: int, label: str) -> Generator[T, None, None]:
    """Yield `items` while showing how many are done and how long the rest will take.

    On a terminal a bar is drawn on standard error; otherwise at most one line every ten seconds.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, unit="", dynamic_ncols=True)
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
