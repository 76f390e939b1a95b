"""Every exception the package raises on purpose, and the record of one problem found in data.

SparseUNetError            exit code 1: the work failed
└── RequestError           exit code 2: the request or the data is wrong
    └── DatasetError       exit code 2: a list of problems, each with its fix
        └── UnreadableFileError   one file cannot be read as what it should be
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

_NAMED = 5
"""Names that a message tells before it counts the others."""


class Severity(StrEnum):
    """How much a problem matters."""

    ERROR = "error"
    """The dataset is rejected."""
    WARNING = "warning"
    """The dataset is accepted; a person should look at it."""
    NOTE = "note"
    """Worth knowing; nothing is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a dataset, and how to mend it."""

    severity: Severity = Severity.ERROR
    case: str = ""
    """Case identifier, or "" when the problem is the whole dataset's."""
    file: str = ""
    """Path as the user knows it, relative to the dataset folder where possible."""
    found: str
    expected: str
    fix: str
    setting: str = ""
    """Name of the setting that is wrong or would help, as Python spells it; "" if none is."""

    def __str__(self) -> str:
        return self.describe(str)

    def describe(self, name_of: Callable[[str], str]) -> str:
        """Return the problem in a line, its setting called what `name_of` says."""
        places = (self.file, name_of(self.setting) if self.setting else "")
        place = ", ".join(part for part in places if part)
        subject = " ".join(part for part in (self.case, f"({place})" if place else "") if part)
        return (
            f"{self.severity}: {subject}: found {self.found}; expected {self.expected}; {self.fix}"
        )


class SparseUNetError(Exception):
    """The work failed for a reason that the message explains.

    Attributes:
        setting: Name of the argument or field that is to blame or that would help, as Python
            spells it (`batch_size`); None where there is none. The command line turns it into its
            flag.
    """

    exit_code = 1

    def __init__(self, *arguments: object, setting: str | None = None) -> None:
        super().__init__(*arguments)
        self.setting = setting


class RequestError(SparseUNetError):
    """What was asked for cannot be done; the message says what was expected and the fix."""

    exit_code = 2


class DatasetError(RequestError):
    """The data is wrong. Holds every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnreadableFileError(DatasetError):
    """One file cannot be read as what it should be (truncated, wrong kind, not a number...)."""

    def __init__(self, *, file: str, found: str, expected: str, fix: str, case: str = "") -> None:
        super().__init__([Problem(case=case, file=file, found=found, expected=expected, fix=fix)])


def name_some(names: Sequence[str]) -> str:
    """Return the first five names and how many there are besides, for a message.

    >>> name_some(["a", "b"]), name_some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
