"""How far every fold of every run is, as its files tell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json
from sparseunet.runs.record import RunRecord, read_record
from sparseunet.training.lock import is_held
from sparseunet.training.run_log import read_log
from sparseunet.workspace import CHECKPOINT_FINAL, SUMMARY_JSON, held_out_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldOfRun:
    """One fold of a run.

    Attributes:
        folder: Of the fold.
        record: What `run.json` says.
        status: `running`, `interrupted` or `finished`.
        step: Steps that are done.
        dice: Mean foreground Dice of validation; None if there is none (yet).
        duration_s: Of training and validation during it.
    """

    folder: Path
    record: RunRecord
    status: str
    step: int
    dice: float | None
    duration_s: float

    @property
    def group(self) -> tuple[str, str]:
        """Dataset and configuration: runs of one group are alike but for their settings."""
        return self.record.dataset_name, self.record.configuration.name

    @property
    def settings(self) -> dict[str, Any]:
        """Recipe and overrides, flat."""
        content = self.record.content
        keys = ("training", "precision", "plan", "pretrained_weights")
        return flatten({key: content.get(key) for key in keys})

    @property
    def num_steps(self) -> int | None:
        """Of the whole training; None where nobody knows."""
        return None if self.record.recipe is None else self.record.recipe.num_iterations

    def dice_by_class(self) -> dict[str, float | None]:
        """Return the mean Dice of validation by class; {} without any."""
        path = held_out_folder(self.folder) / SUMMARY_JSON
        if not path.is_file():
            return {}
        summary = read_json(path)
        names = summary["sparseunet"]["class_names"]
        return {names[key]: _number(scores["Dice"]) for key, scores in summary["mean"].items()}


def read_fold(folder: Path) -> FoldOfRun:
    """Read what a fold's folder says about it.

    Raises:
        RequestError: `run.json` is missing or does not describe a run.
    """
    epochs = read_log(folder)
    status = "finished" if (folder / CHECKPOINT_FINAL).is_file() else "interrupted"
    return FoldOfRun(
        folder=folder,
        record=read_record(folder),
        status="running" if is_held(folder) else status,
        step=epochs[-1]["step"] if epochs else 0,
        dice=_dice(held_out_folder(folder) / SUMMARY_JSON),
        duration_s=sum(entry["duration_s"] + entry.get("val_duration_s", 0) for entry in epochs),
    )


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _dice(path: Path) -> float | None:
    return _number(read_json(path)["foreground_mean"]["Dice"]) if path.is_file() else None


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
