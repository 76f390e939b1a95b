"""The noun: one run, as its folder tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json
from sparseunet.runs.record import RunRecord, read_record
from sparseunet.training.run_log import LogEntry, read_log
from sparseunet.workspace import CHECKPOINT_FINAL, SUMMARY_JSON, fold_folder, held_out_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A fold of a run that was trained, or is being trained.

    Attributes:
        folder: Of the run; holds `fold_0`, ... or `fold_all`.
        fold: 0, 1, ... or `all`.
    """

    folder: Path
    fold: int | str

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.name

    @property
    def fold_folder(self) -> Path:
        """Folder of `run.json`, the log and the weights."""
        return fold_folder(self.folder, self.fold)

    @property
    def has_finished(self) -> bool:
        """Whether it was trained to the end."""
        return (self.fold_folder / CHECKPOINT_FINAL).is_file()

    @property
    def record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            RequestError: It is missing or does not describe a run.
        """
        return read_record(self.fold_folder)

    @property
    def log(self) -> Sequence[LogEntry]:
        """One entry per epoch; none before the first has ended."""
        return read_log(self.fold_folder)

    @property
    def validation(self) -> dict[str, Any] | None:
        """Content of the `summary.json` of the validation cases; None without any."""
        path = held_out_folder(self.fold_folder) / SUMMARY_JSON
        return read_json(path) if path.is_file() else None

    def __repr__(self) -> str:
        state = "finished" if self.has_finished else "not finished"
        return f"Run({self.folder.parent.name}/{self.name}, fold {self.fold}, {state})"
