"""The result of checking a dataset, and how it is shown."""

from collections.abc import Iterable
from dataclasses import dataclass

from sparseunet.errors import Problem, Severity

_WHOLE_DATASET = "(dataset)"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Everything that was found in a dataset."""

    name: str
    """Name of the dataset folder."""
    num_cases: int
    problems: tuple[Problem, ...]
    """Errors, warnings and notes of all cases; files relative to the dataset folder."""

    @property
    def accepted(self) -> bool:
        """Whether the dataset can be used: there is no error."""
        return not self.of(Severity.ERROR)

    def of(self, severity: Severity) -> tuple[Problem, ...]:
        """Return the problems of one severity, in the order found."""
        return tuple(problem for problem in self.problems if problem.severity is severity)

    def format(self) -> str:
        """Return a table for people: errors first, cases with the same finding together."""
        blocks = [
            _format_group(severity, self.of(severity)) for severity in Severity if self.of(severity)
        ]
        return "\n".join([*blocks, self.verdict])

    @property
    def verdict(self) -> str:
        """One line: accepted or rejected, with the numbers of cases, errors and warnings."""
        counts = ", ".join(
            _count(len(self.of(severity)), severity)
            for severity in Severity
            if severity is not Severity.NOTE or self.of(severity)
        )
        word = "accepted" if self.accepted else "rejected"
        return f"{self.name}: {word}, {_count(self.num_cases, 'case')}, {counts}"


def _format_group(severity: Severity, problems: Iterable[Problem]) -> str:
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        key = (problem.found, problem.expected, problem.fix)
        alike.setdefault(key, []).append(problem)
    lines = [f"{severity.upper()}S"]
    for (found, expected, fix), group in alike.items():
        width = max(len(_case(problem)) for problem in group)
        lines += [f"  {_case(problem):<{width}}  {problem.file}".rstrip() for problem in group]
        lines += [
            f"      found     {found}",
            f"      expected  {expected}",
            f"      fix       {fix}",
        ]
    return "\n".join(lines) + "\n"


def _case(problem: Problem) -> str:
    return problem.case or _WHOLE_DATASET


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
