"""Keep what prediction holds in memory below a limit: the rest lies in a temporary file."""

import math
import mmap
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparseunet.errors import SparseUNetError

BYTES_OF_SLABS = 2**28
"""About how much a scan needs at most in slabs and in blocks that are resampled, at any size."""
_GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Buffer:
    """Zeros to be filled, in memory or in a file."""

    values: Tensor
    """float32, on the CPU."""
    forget: Callable[[], None]
    """Takes the pages of a file out of memory; what they hold stays. Nothing for memory itself."""
    is_in_memory: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLimit:
    """How much memory this process may hold, and where to put what does not fit."""

    max_bytes: int | None = None
    """Bytes of main memory; None for no limit."""
    reserved_bytes: int = 0
    """Bytes of them that are left free for other uses."""
    folder: Path | None = None
    """For temporary files, which have no name and vanish with the process. None: the system's."""

    def has_room(self, num_bytes: int) -> bool:
        """Return whether so much more fits beside what the process holds now."""
        if self.max_bytes is None:
            return True
        return resident_bytes() + self.reserved_bytes + num_bytes <= self.max_bytes

    def zeros(self, shape: Sequence[int]) -> Buffer:
        """Return float32 zeros, in memory if there is room for them.

        Raises:
            SparseUNetError: They fit neither into memory nor onto the disk.
        """
        num_bytes = 4 * math.prod(shape)
        if self.has_room(num_bytes):
            values = torch.zeros(tuple(shape), dtype=torch.float32)
            return Buffer(values=values, forget=lambda: None, is_in_memory=True)
        return self._zeros_in_file(shape, num_bytes)

    def _zeros_in_file(self, shape: Sequence[int], num_bytes: int) -> Buffer:
        folder = Path(tempfile.gettempdir()) if self.folder is None else self.folder
        free = shutil.disk_usage(folder).free
        if free < num_bytes:
            raise SparseUNetError(
                f"Prediction needs {num_bytes / _GIB:.1f} GiB beside its memory, but {folder} has "
                f"{free / _GIB:.1f} GiB free. Allow more memory, or write to another disk.",
                setting="max_memory_gib",
            )
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(num_bytes)
            mapping = mmap.mmap(file.fileno(), num_bytes)
        values = torch.frombuffer(mapping, dtype=torch.float32).reshape(tuple(shape))

        def forget() -> None:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)

        return Buffer(values=values, forget=forget, is_in_memory=False)


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not tell (not Linux)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * mmap.PAGESIZE
