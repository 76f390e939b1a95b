"""A full disk: said plainly, and if possible before the work begins."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparseunet.artifacts import atomic_path
from sparseunet.errors import SparseUNetError

logger = logging.getLogger(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Disk full, quota used up, file larger than allowed: the same to the one who writes."""


@contextmanager
def explain_full_disk(folder: Path, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn the operating system's "no space" into a plain error that names folder and bytes.

    Raises:
        SparseUNetError: There is no space for what the block writes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        needed = "" if needed_bytes is None else f", {_bytes(needed_bytes)} needed"
        raise SparseUNetError(
            f"{folder} takes no more files ({error.strerror}): "
            f"{_bytes(shutil.disk_usage(folder).free)} free{needed}. What was written before is "
            "whole; make room and run the same command again to go on from the last checkpoint."
        ) from None


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there whole, even after a power cut, or the old one is.

    Raises:
        SparseUNetError: The disk is full; the old file is still there.
    """
    with (
        explain_full_disk(path.parent, needed_bytes=len(content)),
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
    ):
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def warn_if_space_is_short(folder: Path, *, needed_bytes: int) -> None:
    """Warn, once and without stopping, when less than `needed_bytes` is free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        logger.warning(
            "%s has %s free; this training will write about %s. Make room before it ends.",
            folder,
            _bytes(free_bytes),
            _bytes(needed_bytes),
        )


def _bytes(count: int) -> str:
    if count < 10_000_000:
        return f"{count} bytes"
    return f"{count} bytes ({count / 1e9:.2f} GB)"
