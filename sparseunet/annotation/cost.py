"""What annotating costs in minutes, assumed at first and fitted to measured times later."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from sparseunet.data.annotation_record import AnnotationRecord
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """The price of opening a scan, of looking at a slice and of drawing in it.

    A slice costs more when there is something to draw, switching to another scan costs time, and a
    slice beside one that is drawn already costs less (Z25 §5 and §6 name all three and give no
    figures).
    """

    minutes_per_volume: float
    """Minutes to open a scan and find one's way."""
    minutes_per_slice: float
    """Minutes to look at a slice, whatever is in it."""
    minutes_per_foreground_slice: float
    """More, to draw in a slice with an object whose neighbour below is not annotated."""
    minutes_per_neighbouring_slice: float
    """More, in place of the former, where the neighbour below is annotated too."""
    foreground_share: float
    """Expected share of the slices that hold an object, in [0, 1]."""
    num_records: int
    """Measured cases behind the prices; 0 if they are assumed."""

    def minutes(self, slices: Sequence[int]) -> float:
        """Return the expected minutes of these slices of one scan, once it is open; 0 for none."""
        num_near = _count_neighbours(slices)
        draw = (
            (len(slices) - num_near) * self.minutes_per_foreground_slice
            + num_near * self.minutes_per_neighbouring_slice
        )  # fmt: skip
        return len(slices) * self.minutes_per_slice + self.foreground_share * draw

    def minutes_by_count(self, num_slices: int) -> "np.ndarray":
        """Return the expected minutes of 0, 1, ... all slices of an open scan, evenly spread."""
        import numpy as np

        from sparseunet.annotation.selection.fixed import fixed_interval_slices

        counts = range(num_slices + 1)
        evenly = [fixed_interval_slices(num_slices, count=count) for count in counts]
        return np.array([self.minutes(slices) for slices in evenly])

    def with_minutes_per_slice(self, minutes: float) -> "CostModel":
        """Return prices in the same proportions, such that a slice on its own costs `minutes`.

        Raises:
            RequestError: `minutes` is not positive.
        """
        if not 0 < minutes < inf:
            raise RequestError(f"A slice takes more than 0 minutes, found {minutes}.")
        return _scaled(self, minutes / self.minutes([0]))

    def describe(self) -> str:
        """Say in one line what is charged and where it comes from."""
        origin = (
            f"fitted to {self.num_records} measured cases"
            if self.num_records
            else "assumed, nothing was measured yet"
        )
        return (
            f"{self.minutes_per_volume:.2g} min per scan, {self.minutes_per_slice:.2g} per slice, "
            f"{self.minutes_per_foreground_slice:.2g} more with an object "
            f"({self.minutes_per_neighbouring_slice:.2g} beside an annotated slice), objects in "
            f"{self.foreground_share:.0%} of the slices; {origin}"
        )


ASSUMED_COST = CostModel(
    minutes_per_volume=1.0,
    minutes_per_slice=0.5,
    minutes_per_foreground_slice=2.0,
    minutes_per_neighbouring_slice=1.0,
    foreground_share=0.5,
    num_records=0,
)
"""A guess to start with: no source of ours gives prices. Measured minutes replace it."""


def fit_cost(records: Iterable[AnnotationRecord]) -> CostModel:
    """Fit the prices to measured working times; the assumed prices stand where nothing was.

    Least squares without negative prices, beside the assumption, which is scaled to the total of
    what was measured and taken as right to 100 % for each price. So one record is enough, what the
    records cannot tell apart keeps the assumed proportion, and many records outweigh it. The share
    of slices with objects comes from all records, also those without minutes.

    Args:
        records: Of annotated cases; those without slices are passed over.
    """
    import numpy as np
    from scipy.optimize import nnls

    drawn = [record for record in records if any(one.annotated_slices for one in record.views)]
    measured = [record for record in drawn if record.minutes]
    model = ASSUMED_COST
    if drawn:
        parts = [one for record in drawn for one in record.views]
        num_slices = sum(len(one.annotated_slices) for one in parts)
        num_empty = sum(len(one.reviewed_empty_slices) for one in parts)
        model = replace(model, foreground_share=1 - num_empty / num_slices)
    if not measured:
        return model
    counts = np.array([_count(record) for record in measured], float)
    minutes = np.array([record.minutes for record in measured], float)
    assumed = np.array(_prices(ASSUMED_COST))
    scaled = assumed * minutes.sum() / (counts @ assumed).sum()
    prices = scaled
    for _ in range(2):  # the scatter of the minutes says how much the assumption weighs
        scatter = np.sqrt(np.mean((counts @ prices - minutes) ** 2))
        weight = max(scatter, 1e-3 * minutes.mean())
        rows = np.vstack([counts, np.diag(weight / scaled)])
        prices, _ = nnls(rows, np.concatenate([minutes, np.full(len(scaled), weight)]))
    return replace(
        model,
        minutes_per_volume=float(prices[0]),
        minutes_per_slice=float(prices[1]),
        minutes_per_foreground_slice=float(prices[2]),
        minutes_per_neighbouring_slice=float(prices[3]),
        num_records=len(measured),
    )


def _count(record: AnnotationRecord) -> tuple[int, int, int, int]:
    """Return how often each price was paid in a case."""
    num_slices = num_drawn = num_near = 0
    for one in record.views:
        drawn = set(one.annotated_slices) - set(one.reviewed_empty_slices)
        num_slices += len(one.annotated_slices)
        num_drawn += len(drawn)
        num_near += sum(index - 1 in one.annotated_slices for index in drawn)
    return 1, num_slices, num_drawn - num_near, num_near


def _count_neighbours(slices: Sequence[int]) -> int:
    return sum(after - before == 1 for before, after in pairwise(sorted(slices)))


def _prices(model: CostModel) -> tuple[float, float, float, float]:
    return (
        model.minutes_per_volume,
        model.minutes_per_slice,
        model.minutes_per_foreground_slice,
        model.minutes_per_neighbouring_slice,
    )


def _scaled(model: CostModel, factor: float) -> CostModel:
    volume, slice_, foreground, neighbour = (factor * price for price in _prices(model))
    return replace(
        model,
        minutes_per_volume=volume,
        minutes_per_slice=slice_,
        minutes_per_foreground_slice=foreground,
        minutes_per_neighbouring_slice=neighbour,
    )
