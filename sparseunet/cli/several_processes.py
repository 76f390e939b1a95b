"""`train` in several processes: they meet, one of them prints, and an error is told once."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.errors import SparseUNetError

if TYPE_CHECKING:
    from sparseunet.training.processes import Processes


@contextmanager
def taking_part(processes: "Processes") -> Iterator[None]:
    """Meet the other processes for the block. Only the first prints on standard output.

    Raises:
        SparseUNetError: As the block does, or another process has ended; in one process only.
        SystemExit: With the error's exit code, in the others.
    """
    if processes.count == 1:
        yield
        return
    from sparseunet.training.processes import joined

    with ExitStack() as stack:
        if not processes.is_first:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
        group = stack.enter_context(joined(processes))
        try:
            yield
        except SparseUNetError as error:
            if group.tells():
                raise
            raise SystemExit(error.exit_code) from None
        except Exception:
            group.tells()  # a fault of ours has a traceback, and the others need say nothing
            raise
