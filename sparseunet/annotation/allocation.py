"""From a budget to volumes and slices per volume: what is possible, and which of it to take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from sparseunet.annotation.budget import Budget
from sparseunet.annotation.cost import CostModel
from sparseunet.annotation.evidence import expect_share_of_dense
from sparseunet.data.density import ENOUGH_DENSITY_3D
from sparseunet.errors import RequestError

_FEWER_VOLUMES = (1.0, 0.75, 0.5, 0.25, 0.125)
"""Shares of the volumes that are shown side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """A number of volumes and of slices that a budget buys, and what to expect of it."""

    num_volumes: int
    """Volumes with any slice to annotate."""
    num_slices: int
    """Over all of them; each gets the same number, give or take one."""
    density: float
    """Share of the voxels of these volumes; with one axis, of their slices."""
    minutes: float
    """Working time by the cost model."""
    expected_share: float
    """Of the IoU of dense labels, mean over the targets of the evidence."""
    lowest_share: float
    highest_share: float
    extrapolated: bool
    """Whether the density or the share of volumes lies outside the published tables."""
    enough_per_volume: bool
    """Whether each volume gets its minimum: a slice for 2D, a tenth of its slices for 3D."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The volumes, the network and the cost model that a budget is planned for."""

    depths: tuple[tuple[int, ...], ...]
    """Of every volume, its number of slices along each axis that is to be annotated."""
    dimensions: int
    """2 or 3, of the network to be trained."""
    cost: CostModel

    @property
    def num_volumes(self) -> int:
        """Number of volumes there are."""
        return len(self.depths)

    @property
    def num_slices(self) -> int:
        """Number of slices there are."""
        return sum(map(sum, self.depths))

    def available(self, num_volumes: int) -> int:
        """Return the number of slices of some of the volumes, on average; of all, exactly."""
        return round(num_volumes * self.num_slices / self.num_volumes)

    def density(self, num_slices: int, *, num_volumes: int) -> float:
        """Return the share of the voxels of some volumes that so many slices hold, in [0, 1].

        With one axis that is the share of the slices; slices of several axes cross each other.
        """
        share = min(1.0, num_slices / self.available(num_volumes))
        return float(1 - (1 - share) ** len(self.depths[0]))

    def is_enough(self, num_slices: int, *, num_volumes: int) -> bool:
        """Return whether each volume gets its minimum: a slice for 2D, a density of 0.1 for 3D.

        The density of 3D may be missed by a hundredth of it, since budgets are rounded down.
        """
        minimum = 0.99 * ENOUGH_DENSITY_3D if self.dimensions == 3 else 0.0
        density = self.density(num_slices, num_volumes=num_volumes)
        return num_slices >= num_volumes and density >= minimum

    @cached_property
    def average_depths(self) -> tuple[int, ...]:
        """Number of slices along each axis of an average volume, at least one."""
        return tuple(max(1, round(mean)) for mean in np.mean(self.depths, axis=0))

    @cached_property
    def minutes_by_count(self) -> np.ndarray:
        """Minutes of an average volume with 0, 1, ... all slices, to open it included."""
        return minutes_by_count(self.average_depths, self.cost)


def count_for_density(num_slices: int, *, density: float) -> int:
    """Return how many of `num_slices` a density in (0, 1] stands for: rounded, at least one."""
    return max(1, round(density * num_slices))


@cache
def minutes_by_count(depths: tuple[int, ...], cost: CostModel) -> np.ndarray:
    """Return the minutes of one volume with 0, 1, ... all of its slices, spread over its axes."""
    along = [cost.minutes_by_count(depth) for depth in depths]
    splits = [allocate(count, depths) for count in range(sum(depths) + 1)]
    minutes = np.array(
        [sum(axis[count] for axis, count in zip(along, split, strict=True)) for split in splits]
    )
    minutes[1:] += cost.minutes_per_volume
    minutes.flags.writeable = False  # kept by the cache
    return minutes


def allocate(total: int, capacities: Sequence[int]) -> tuple[int, ...]:
    """Distribute `total` slices equally (Z25 §2), never more than a capacity.

    What does not divide goes one by one to those with the largest capacity, the earlier ones first.

    >>> allocate(10, (2, 9, 9))  # the first takes its 2, the others share 8
    (2, 4, 4)
    >>> allocate(11, (2, 9, 9))  # one is left over: the earlier of the two largest gets it
    (2, 5, 4)

    Raises:
        ValueError: There are fewer slices than `total`.
    """
    if not 0 <= total <= sum(capacities):
        raise ValueError(f"Cannot distribute {total} over {sum(capacities)} slices.")
    order = sorted(range(len(capacities)), key=lambda place: (capacities[place], -place))
    counts, left = [0] * len(capacities), total
    for turn, place in enumerate(order):  # the smallest first: what they cannot take is shared out
        counts[place] = min(capacities[place], left // (len(order) - turn))
        left -= counts[place]
    return tuple(counts)


def slices_for_budget(budget: Budget, situation: Situation) -> dict[int, int]:
    """Return how many slices a budget buys if 1, 2, ... all volumes are annotated.

    A share is one of all slices there are, rounded down; per case it is one of each volume's,
    rounded, at least one. Working time buys what the cost model says. 0 where it is not enough.
    """
    sizes = range(1, situation.num_volumes + 1)
    if budget.per_case:
        counts = [slices_per_case(budget, depths, situation.cost) for depths in situation.depths]
        return {size: round(size * float(np.mean(counts))) for size in sizes}
    if budget.unit == "minutes":
        return {size: _slices_for_minutes(budget, situation, num_volumes=size) for size in sizes}
    total = budget.amount
    if budget.unit == "share":  # 7 % of 100 must not become 6 because it is stored as 6.999...
        total = budget.amount * situation.num_slices + 1e-9
    return dict.fromkeys(sizes, int(total))


def slices_per_case(budget: Budget, depths: tuple[int, ...], cost: CostModel) -> int:
    """Return how many slices of one volume a budget per case buys; 0 if it is not enough."""
    if budget.unit == "slices":
        return int(budget.amount)
    if budget.unit == "share":
        return count_for_density(sum(depths), density=budget.amount)
    return int(np.flatnonzero(minutes_by_count(depths, cost) <= budget.amount + 1e-9)[-1])


def compare(
    budget: Budget, situation: Situation, *, also: Iterable[int] = ()
) -> tuple[Alternative, ...]:
    """Return ways to spend the budget, most volumes first; empty if it buys no slice.

    As many volumes as get a slice, three quarters, half, a quarter and an eighth of these, as many
    as get their minimum, and the numbers in `also`; those that are impossible are left out.
    """
    possible = {
        size: num_slices
        for size, num_slices in slices_for_budget(budget, situation).items()
        if size <= num_slices <= situation.available(size)
    }
    enough = [
        size for size, number in possible.items() if situation.is_enough(number, num_volumes=size)
    ]
    most = max(possible, default=0)
    sizes = {round(share * most) for share in _FEWER_VOLUMES} | {*enough[-1:], *also}
    return tuple(
        _alternative(size, possible[size], situation)
        for size in sorted(sizes, reverse=True)
        if size in possible
    )


def recommend(alternatives: Sequence[Alternative]) -> Alternative:
    """Return the alternative with most volumes of which each gets its minimum (B1, B2).

    If none does, the one with fewest volumes, which comes nearest to it.

    Raises:
        ValueError: There is none.
    """
    if not alternatives:
        raise ValueError("There is no way to spend the budget.")
    enough = [alternative for alternative in alternatives if alternative.enough_per_volume]
    if enough:
        return max(enough, key=lambda alternative: alternative.num_volumes)
    return min(alternatives, key=lambda alternative: alternative.num_volumes)


def require_alternatives(
    budget: Budget, situation: Situation, *, num_volumes: int | None
) -> tuple[Alternative, ...]:
    """Return `compare`, with `num_volumes` among the sizes if it is given.

    Raises:
        RequestError: The budget buys not one slice, more than there are, or does not fit the
            number of volumes.
    """
    wanted = () if num_volumes is None else (num_volumes,)
    alternatives = compare(budget, situation, also=wanted)
    sizes = {alternative.num_volumes for alternative in alternatives}
    if not sizes or not sizes.issuperset(wanted):
        raise RequestError(_explain_impossible(budget, situation, num_volumes))
    return alternatives


def _explain_impossible(budget: Budget, situation: Situation, num_volumes: int | None) -> str:
    size = num_volumes or (situation.num_volumes if budget.per_case else 1)
    num_slices = slices_for_budget(budget, situation)[size]
    if num_slices < size:
        minutes = situation.minutes_by_count[1] * size
        costs = f" (that takes about {minutes:.1f} min)" if budget.unit == "minutes" else ""
        return f"{budget}, which is not one slice in each of {size} scans{costs}"
    available = situation.available(num_volumes or situation.num_volumes)
    return f"{budget}, which is {num_slices} slices of the about {available} that there are"


def _slices_for_minutes(budget: Budget, situation: Situation, *, num_volumes: int) -> int:
    """Return how many slices working time buys in some average volumes.

    Example: 30 minutes and 4 volumes whose 0, 1, 2, 3 slices take 0, 5, 7, 9 minutes. Each volume
    may take 7.5 minutes: 2 slices, 28 minutes together. The 2 minutes left buy a third slice in
    one of the volumes: 9 slices.
    """
    minutes = situation.minutes_by_count
    count = int(np.flatnonzero(minutes <= budget.amount / num_volumes + 1e-9)[-1])
    left = budget.amount - num_volumes * minutes[count]
    rest = 0
    if 0 < count < len(minutes) - 1:
        rest = int((left + 1e-9) / (minutes[count + 1] - minutes[count]))
    return min(num_volumes * count + rest, situation.available(num_volumes))


def _alternative(num_volumes: int, num_slices: int, situation: Situation) -> Alternative:
    """Return the costs and the expected result of slices spread evenly over volumes.

    Of 9 slices in 4 volumes three volumes get 2 and one gets 3.
    """
    count, rest = divmod(num_slices, num_volumes)
    minutes = situation.minutes_by_count
    one_more = minutes[min(count + 1, len(minutes) - 1)]
    total = (num_volumes - rest) * minutes[min(count, len(minutes) - 1)] + rest * one_more
    density = situation.density(num_slices, num_volumes=num_volumes)
    expected = expect_share_of_dense(
        density=density,
        volume_share=num_volumes / situation.num_volumes,
        dimensions=situation.dimensions,
    )
    return Alternative(
        num_volumes=num_volumes,
        num_slices=num_slices,
        density=density,
        minutes=float(total),
        expected_share=expected.mean,
        lowest_share=expected.lowest,
        highest_share=expected.highest,
        extrapolated=expected.extrapolated,
        enough_per_volume=situation.is_enough(num_slices, num_volumes=num_volumes),
    )
