"""Which slices of a volume to annotate: one file per family of selectors."""

from collections.abc import Mapping
from typing import Protocol

from sparseunet.annotation.selection.fixed import fixed_interval_slices


class Selector(Protocol):
    """Chooses slices of one volume."""

    def __call__(self, num_slices: int, /, *, count: int) -> tuple[int, ...]:
        """Return `count` different slice indices below `num_slices`, sorted."""


SELECTORS: Mapping[str, Selector] = {"fixed": fixed_interval_slices}
"""Name on the command line to selector."""
