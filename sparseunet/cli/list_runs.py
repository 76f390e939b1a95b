"""List trained runs, or show what tells two of them apart.

`sparseunet runs` lists every fold of every run: whether it is running, was interrupted or has
finished, how far it is, its validation Dice, its time, and the settings in which runs of the same
dataset and configuration differ. `sparseunet runs compare A B` lists what differs between two runs
in recipe, plan, data and versions, and their scores side by side. Runs are named by folder or name.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.cli.environment import resolve_workspace
from sparseunet.errors import RequestError
from sparseunet.progress import format_duration
from sparseunet.runs.find import all_folds, resolve_run
from sparseunet.workspace import RUN_JSON

if TYPE_CHECKING:
    from sparseunet.runs.list_folds import FoldOfRun

_NOT_COMPARED = ("kind", "version", "run_id", "identity", "fold", "cases", "dataset_json")
"""Entries of `run.json` that differ anyway, or say what others say."""
_LONGEST_VALUE = 60
_COLUMNS = ("dataset", "configuration", "run", "fold", "status", "step", "Dice", "time", "differs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `runs`."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "compare"),
        default="list",
        help="what to do (default: list)",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="two runs to compare")
    parser.add_argument("-d", "--dataset", help="list runs on this dataset only")


def run(arguments: argparse.Namespace) -> int:
    """Print a table."""
    from sparseunet.runs.list_folds import read_fold

    workspace = resolve_workspace(arguments.workspace)
    if arguments.action == "list":
        if arguments.runs:
            raise RequestError("list takes no RUN; compare two with: sparseunet runs compare A B")
        name = None if arguments.dataset is None else workspace.dataset_name(arguments.dataset)
        folds = [read_fold(folder) for folder in all_folds(workspace, name)]
        print(_list(folds) if folds else f"No runs in {workspace.results}.")
        return 0
    if len(arguments.runs) != 2 or arguments.dataset is not None:
        raise RequestError("compare takes exactly two runs: sparseunet runs compare A B")
    first, second = (resolve_run(workspace, text) for text in arguments.runs)
    print(_compare(first, second))
    return 0


def _list(folds: Sequence["FoldOfRun"]) -> str:
    rows = [
        ("dataset", "configuration", "run", "fold", "status", "step", "Dice", "time", "differs")
    ]
    for fold in folds:
        others = [other.settings for other in folds if other.group == fold.group]
        changing = {key for one in others for key in one if _differs(key, others)}
        own = ", ".join(
            f"{key.rpartition('.')[2]} {_short(fold.settings.get(key))}"
            for key in sorted(changing)
            if fold.settings.get(key) is not None
        )
        rows.append(
            (
                *fold.group,
                fold.folder.parent.name,
                str(fold.record.fold),
                fold.status,
                f"{fold.step}/{fold.num_steps or '–'}",
                _score(fold.dice),
                format_duration(fold.duration_s),
                own,
            )
        )
    return _table(rows)


def _compare(first: Path, second: Path) -> str:
    from sparseunet.runs.list_folds import read_fold

    runs = [
        {path.parent.name: read_fold(path.parent) for path in sorted(run.glob(f"*/{RUN_JSON}"))}
        for run in (first, second)
    ]
    differences = _differences(*(next(iter(folds.values())).record.content for folds in runs))
    scores: list[Sequence[str]] = [("fold", "A", "B")]
    for name in dict.fromkeys([*runs[0], *runs[1]]):
        scores += _side_by_side(name, *(folds.get(name) for folds in runs))
    return f"A: {first}\nB: {second}\n\n{differences}\n\n{_table(scores)}"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    contents = [_compared(one), _compared(other)]
    rows = [
        (key, _short(contents[0].get(key)), _short(contents[1].get(key)))
        for key in dict.fromkeys([*contents[0], *contents[1]])
        if contents[0].get(key) != contents[1].get(key)
    ]
    if not rows:
        return "Recipe, plan, data and versions are the same."
    return _table([("differs", "A", "B"), *rows])


def _side_by_side(
    name: str, one: "FoldOfRun | None", other: "FoldOfRun | None"
) -> list[tuple[str, str, str]]:
    scores = [{} if fold is None else fold.dice_by_class() for fold in (one, other)]
    return [
        (name, _state(one), _state(other)),
        *(
            (f"  Dice {key}", _score(scores[0].get(key)), _score(scores[1].get(key)))
            for key in dict.fromkeys([*scores[0], *scores[1]])
        ),
    ]


def _compared(description: Mapping[str, Any]) -> dict[str, Any]:
    from sparseunet.runs.list_folds import flatten

    data = {"data": description.get("identity", {}).get("data", "")}
    rest = {key: value for key, value in description.items() if key not in _NOT_COMPARED}
    return flatten(data | rest)


def _state(fold: "FoldOfRun | None") -> str:
    if fold is None:
        return "–"
    return f"{fold.status}, step {fold.step}, Dice {_score(fold.dice)}"


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(one.get(key), sort_keys=True) for one in settings}) > 1


def _short(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
