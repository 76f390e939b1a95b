"""Curves of a training in TensorBoard or Weights & Biases, besides `log.jsonl`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sparseunet.errors import RequestError
from sparseunet.training.run_log import LogEntry, OnEpoch

_MOST_LETTERS_OF_ID = 120


@contextmanager
def write_tensorboard(folder: Path) -> Iterator[OnEpoch]:
    """Give a function that writes each epoch's numbers as event files below `folder`.

    What an interrupted training had written of epochs that come again is hidden by TensorBoard.

    Raises:
        RequestError: TensorBoard is not installed.
    """
    module = _import("torch.utils.tensorboard", package="tensorboard")
    writers: list[Any] = []

    def on_epoch(log: Sequence[LogEntry]) -> None:
        if not writers:
            writers.append(module.SummaryWriter(str(folder), purge_step=log[-1]["epoch"]))
        for name, value in numbers_of(log[-1]).items():
            writers[0].add_scalar(name, value, log[-1]["epoch"])
        writers[0].flush()

    try:
        yield on_epoch
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def write_wandb(
    project: str, *, name: str, folder: Path, config: Mapping[str, Any]
) -> Iterator[OnEpoch]:
    """Give a function that sends each epoch's numbers to a project of Weights & Biases.

    Args:
        project: Made if it does not exist.
        name: Of this training; the same name goes on with the same curves.
        folder: For what wandb keeps on this machine.
        config: Shown beside the curves.

    Raises:
        RequestError: wandb is not installed.
    """
    wandb = _import("wandb", package="wandb")
    run = wandb.init(
        project=project,
        name=name,
        id=re.sub(r"[^\w-]", "-", name)[-_MOST_LETTERS_OF_ID:],
        resume="allow",
        dir=str(folder),
        config=dict(config),
    )

    def on_epoch(log: Sequence[LogEntry]) -> None:
        run.log(numbers_of(log[-1]), step=log[-1]["epoch"])

    try:
        yield on_epoch
    finally:
        run.finish()


def numbers_of(entry: LogEntry) -> dict[str, float]:
    """Return the numbers of a line of the log, those of classes as `pseudo_dice/NAME`; no None."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": one for name, one in value.items()}
        elif key != "epoch":
            flat[key] = value
    return {name: value for name, value in flat.items() if isinstance(value, int | float)}


def _import(module: str, *, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RequestError(
            f"--{package} needs {package}, which is not installed here ({error}). Install it with: "
            "pip install 'sparseunet[track]'"
        ) from None
