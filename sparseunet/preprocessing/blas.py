"""Keep matrix products of small blocks on the thread that asks for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users = 0
_limit = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold NumPy's BLAS to one thread while any caller is inside; the last one out lifts it.

    Cases are handled in parallel threads already. Blocks of a few megaflops that are split again
    wait for each other's threads: measured 10 to 100 times slower on a busy machine.
    """
    global _users, _limit  # noqa: PLW0603 - the limit itself belongs to the whole process
    with _lock:
        if _users == 0:
            _limit = ThreadpoolController().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _limit is not None:
                _limit.restore_original_limits()
                _limit = None
