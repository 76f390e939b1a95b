"""At most one process trains in a folder; the system lets go when it ends, however it ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sparseunet.errors import RequestError
from sparseunet.workspace import TRAINING_LOCK

_TAKEN = {errno.EACCES, errno.EAGAIN}


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder` while the block runs.

    Locks of the system tell no lies after a crash, and children that outlive a killed training do
    not hold them. Where the file system has none, nothing is kept out.

    Raises:
        RequestError: Another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TRAINING_LOCK
    with path.open("a+b") as stream:
        if not _lock(stream):
            raise RequestError(
                f"Another process is training in {folder}. Wait for it or stop it; give this "
                "training another name.",
                setting="run",
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether another process trains in `folder` at this moment."""
    try:
        with (folder / TRAINING_LOCK).open("r+b") as stream:
            return not _lock(stream)
    except OSError:
        return False


def _lock(stream: IO[bytes]) -> bool:
    """Lock a file until it is closed; return whether the lock was free."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        # Not flock, which the processes that make batches would inherit.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
