"""When checkpoints are written, and which."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from sparseunet.training.state import TrainingState, save_best, save_checkpoint, save_weights
from sparseunet.workspace import CHECKPOINT_BEST, CHECKPOINT_FINAL, CHECKPOINT_LATEST


@dataclass(kw_only=True, slots=True)
class Checkpoints:
    """The checkpoints of one fold.

    The best weights wait in memory until the latest checkpoint is due: both always tell of the
    same moment, and short epochs do not spend their time writing.
    """

    folder: Path
    every_s: float
    """Least time between two; 0 writes one after every epoch."""
    writes: bool = True
    """Whether this process does; of several that train together only the first."""
    _written_at_s: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Whether enough time has passed since the last one."""
        return self.writes and time.monotonic() - self._written_at_s >= self.every_s

    def is_due_within_epoch(self) -> bool:
        """The same after a step that does not end an epoch."""
        return self.every_s > 0 and self.is_due()

    def write(self, state: TrainingState) -> None:
        """Write where training stands, and the best weights if they are new."""
        if not self.writes:
            return
        save_best(state, self.folder / CHECKPOINT_BEST)
        save_checkpoint(state, self.folder / CHECKPOINT_LATEST)
        self._written_at_s = time.monotonic()

    def finish(self, state: TrainingState) -> Path:
        """Write what is left at the end, remove what was for going on; return the final weights."""
        if self.writes:
            save_best(state, self.folder / CHECKPOINT_BEST)
            save_weights(state, self.folder / CHECKPOINT_FINAL)
            (self.folder / CHECKPOINT_LATEST).unlink(missing_ok=True)
        return self.folder / CHECKPOINT_FINAL
