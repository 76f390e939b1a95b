"""`log.jsonl`: one line per epoch, and a last one when training has ended."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparseunet.training.disk import write_whole
from sparseunet.workspace import LOG_JSONL

LogEntry = dict[str, Any]
OnEpoch = Callable[[Sequence[LogEntry]], None]
"""Called after every epoch with its line of the log, the last one, and those before."""


def read_log(folder: Path, *, epochs: int | None = None) -> list[LogEntry]:
    """Return the lines of the first `epochs` epochs (None: all); [] without a log.

    The last line, of the whole training, is left out.
    """
    path = folder / LOG_JSONL
    if not path.is_file():
        return []
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    of_epochs = [entry for entry in entries if "epoch" in entry]
    return of_epochs if epochs is None else of_epochs[:epochs]


def write_log(folder: Path, log: Sequence[LogEntry]) -> None:
    """Write the lines, whole or not at all.

    Raises:
        SparseUNetError: The disk is full; the old log is still there.
    """
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    write_whole(folder / LOG_JSONL, lines.encode())


def summary_line(log: Sequence[LogEntry], *, best_step: int | None) -> LogEntry:
    """Return the last line: how long all took, and after which step the best weights were."""
    return {
        "finished": True,
        "epochs": len(log),
        "step": log[-1]["step"],
        "best_step": best_step,
        "duration_s": round(
            sum(entry["duration_s"] + entry.get("val_duration_s", 0) for entry in log), 3
        ),
        "peak_memory_mib": max((entry.get("peak_memory_mib") or 0 for entry in log), default=0),
    }
