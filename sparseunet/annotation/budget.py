"""How much annotation there may be: slices, a share of all slices, or working time."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from sparseunet.errors import RequestError

Unit = Literal["slices", "share", "minutes"]

_EXPECTED = "a number with a unit, e.g. 400slices, 10%, 90min or 6h"
_UNITS: dict[str, tuple[Unit, float]] = {
    "slice": ("slices", 1.0),
    "slices": ("slices", 1.0),
    "%": ("share", 0.01),
    "min": ("minutes", 1.0),
    "h": ("minutes", 60.0),
}
"""As written to what is counted, and how much of it one is."""


class BudgetError(RequestError):
    """A budget that makes no sense: what was found and, where that helps, what was expected."""

    def __init__(self, found: str, *, expected: str = "") -> None:
        self.found, self.expected = found, expected
        more = f"; expected {expected}" if expected else ""
        super().__init__(f"The budget {found}{more}.", setting="budget")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much may be annotated, of a whole dataset or of each of its scans."""

    text: str
    """The words of the request, e.g. `6h`."""
    unit: Unit
    amount: float
    """Whole number of slices; share of all slices in (0, 1]; or minutes."""
    per_case: bool = False
    """Whether each scan may have this much, instead of all together."""

    def __post_init__(self) -> None:
        if not 0 < self.amount < math.inf:
            raise BudgetError(f"{self.text!r} buys nothing", expected="more than 0")
        if self.unit == "slices" and self.amount != int(self.amount):
            raise BudgetError(f"{self.text!r} is not a whole number of slices")
        if self.unit == "share" and self.amount > 1:
            raise BudgetError(f"{self.text!r} is more than there is", expected="at most 100%")

    def __str__(self) -> str:
        return f"{self.text} per case" if self.per_case else self.text


def parse_budget(text: str) -> Budget:
    """Read a budget as a person writes it: `400slices`, `10%`, `90min`, `4slices per case`.

    `parse_budget(str(budget))` is the budget again.

    Raises:
        BudgetError: It is none, or it is zero, negative, part of a slice or more than 100 %.
    """
    pattern = r"\s*(([+-]?\d+(?:\.\d+)?)\s*([a-z%]+))(\s+per\s+case)?\s*"
    match = re.fullmatch(pattern, text, re.IGNORECASE)
    unit = _UNITS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise BudgetError(f"{text!r} is not understood", expected=_EXPECTED)
    counted, factor = unit
    # 10 * 0.01 is not 0.1, but 10 / 100 is
    amount = float(match[2]) / round(1 / factor) if factor < 1 else float(match[2]) * factor
    return Budget(text=match[1], unit=counted, amount=amount, per_case=match[4] is not None)
