"""The annotators' checklist: one row per planned slice, ticked off by hand, read back."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparseunet.annotation.exchange.views import AXIS_NAMES
from sparseunet.artifacts import atomic_path
from sparseunet.errors import DatasetError, Problem, RequestError

COLUMNS = (
    "case",
    "axis",
    "view",
    "slice",
    "shown_as",
    "priority",
    "reason",
    "expected_minutes",
    "done",
    "minutes",
)
_DONE = {"x", "yes", "y", "done", "true", "1", "ok", "✓"}
_NOT_DONE = {"", "no", "n", "false", "0", "-"}
_EMPTY = "empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkItem:
    """One row of the work list: a slice to annotate."""

    case: str
    axis: int
    view: str
    index: int
    shown_as: str
    priority: int
    reason: str
    expected_minutes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The slices of one case that annotators marked as done in the work list."""

    done: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Axis to slices that somebody has finished with."""
    empty: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Axis to those of them that somebody said hold no object."""
    minutes: float | None = None
    """Working time entered in the work list; None for none."""


NOTHING_DONE = Progress()


def write_work_list(path: Path, items: Iterable[WorkItem]) -> None:
    """Write the rows in the order given, as a table that spreadsheet programs open."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for item in items:
            writer.writerow(
                [
                    item.case,
                    AXIS_NAMES[item.axis],
                    item.view,
                    item.index,
                    item.shown_as,
                    item.priority,
                    item.reason,
                    f"{item.expected_minutes:.2f}",
                    "",
                    "",
                ]
            )


def read_work_list(path: Path) -> dict[str, Progress]:
    """Read what was ticked off, by case; nothing if there is no file.

    `done` may hold x, yes, done, true or 1, or `empty` for a slice without any object. Rows may be
    added for slices that were not planned, and columns left out other than case, axis, slice and
    done. Commas and semicolons separate; numbers may have a decimal comma.

    Raises:
        DatasetError: Every row that cannot be understood.
    """
    if not path.is_file():
        return {}
    rows = _read_rows(path)
    problems: list[Problem] = []
    done: dict[str, dict[int, set[int]]] = {}
    empty: dict[str, dict[int, set[int]]] = {}
    minutes: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            case, axis, index, state, time = _parse_row(row)
        except _WrongCellError as error:
            problems.append(
                Problem(
                    file=str(path),
                    found=f"row {number}: {error.found}",
                    expected=error.expected,
                    fix="correct the row",
                )
            )
            continue
        if time is not None:
            minutes[case] = minutes.get(case, 0.0) + time
        for marked, is_marked in ((done, state != ""), (empty, state == _EMPTY)):
            if is_marked:
                marked.setdefault(case, {}).setdefault(axis, set()).add(index)
    if problems:
        raise DatasetError(problems)
    return {
        case: Progress(
            done=_frozen(done.get(case, {})),
            empty=_frozen(empty.get(case, {})),
            minutes=minutes.get(case),
        )
        for case in {*done, *minutes}
    }


class _WrongCellError(Exception):
    """A cell of the work list holds an invalid value."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"{found}, expected {expected}")


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="cp1252")  # what spreadsheet programs save on Windows
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator)
    missing = [
        name for name in ("case", "axis", "slice", "done") if name not in (reader.fieldnames or ())
    ]
    if missing:
        raise RequestError(
            f"{path} has no column {', '.join(missing)}; expected those of the exported list: "
            f"{', '.join(COLUMNS)}."
        )
    return [
        row
        for row in reader
        if any((value or "").strip() for value in row.values() if isinstance(value, str))
    ]


def _parse_row(row: dict[str, str]) -> tuple[str, int, int, str, float | None]:
    case, axis = (row["case"] or "").strip(), (row["axis"] or "").strip().lower()
    index, state = (row["slice"] or "").strip(), (row["done"] or "").strip().lower()
    time = (row.get("minutes") or "").strip().replace(",", ".")
    if axis not in AXIS_NAMES:
        raise _WrongCellError(f"axis {axis!r}", "z, y or x")
    if not index.isdigit():
        raise _WrongCellError(f"slice {index!r}", "its index in the file, counted from 0")
    if state in _NOT_DONE:
        state = ""
    elif state not in _DONE and state != _EMPTY:
        raise _WrongCellError(f"done {state!r}", "x, empty or nothing")
    return case, AXIS_NAMES.index(axis), int(index), state, _parse_minutes(time) if time else None


def _parse_minutes(text: str) -> float:
    expected = "a number of at least 0"
    try:
        minutes = float(text)
    except ValueError:
        raise _WrongCellError(f"minutes {text!r}", expected) from None
    if not 0 <= minutes < float("inf"):
        raise _WrongCellError(f"minutes {text!r}", expected)
    return minutes


def _frozen(marked: dict[int, set[int]]) -> dict[int, frozenset[int]]:
    return {axis: frozenset(indices) for axis, indices in marked.items()}
