"""Which slices to annotate next: what a trained network is unsure of, beside an even share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from sparseunet.annotation.annotation_plan import AnnotationPlan
from sparseunet.annotation.budget import Budget
from sparseunet.annotation.cost import CostModel
from sparseunet.annotation.make_annotation_plan import to_planned_cases, within_time
from sparseunet.annotation.selection.slices import ChosenSlice, SliceStack
from sparseunet.annotation.selection.staggered import staggered_slices, visit_evenly
from sparseunet.data.annotation_record import AnnotationRecord
from sparseunet.data.io import read_annotation
from sparseunet.data.labels import LabelSchema
from sparseunet.data.probabilities import entropy
from sparseunet.errors import RequestError
from sparseunet.version import package_version

RANDOM_SHARE = 1 / 3
"""Of a round's slices, chosen without the network; what every ranking is shown against."""
_STRATIFIED_SHARE = 0.66
_LARGEST_BETA = 100.0
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SliceUncertainty:
    """How unsure a network is in every slice of one stack."""

    entropy_K: np.ndarray
    """float64, mean predictive entropy per slice, in nats."""
    by_class_KC: np.ndarray
    """float64, mean of the entropy weighted by the probability of each foreground class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundOptions:
    """How a round is filled."""

    number: int = 1
    """1 for the first round after a training; later rounds follow the network more closely."""
    random_share: float = RANDOM_SHARE
    """In (0, 1]: a share without the network there always is."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.number < 1:
            raise RequestError(f"Rounds are counted from 1, found {self.number}.")
        if not 0 < self.random_share <= 1:
            raise RequestError(
                f"The random share must be above 0 and at most 1, found {self.random_share}: "
                "without random slices nobody can tell whether the ranking helps."
            )

    @property
    def beta(self) -> float:
        """How closely the ranking is followed: 1, 10, then 100 (ClaSP PE goes from 1 to 100)."""
        return float(min(_LARGEST_BETA, 10.0 ** (self.number - 1)))


def measure_uncertainty(
    probabilities_KZYX: np.ndarray, *, axis: int, has_regions: bool = False
) -> SliceUncertainty:
    """Reduce the probabilities of one scan to a few numbers per slice.

    Args:
        probabilities_KZYX: Of background and every class, summing to 1; or of every region, each
            in [0, 1], whose entropies are added.
        axis: The slices lie across this axis of (z, y, x).
        has_regions: Whether the channels are regions.
    """
    others = tuple(other for other in range(3) if other != axis)
    entropy_ZYX = entropy(probabilities_KZYX, has_regions=has_regions, dtype=np.float64)
    foreground = probabilities_KZYX if has_regions else probabilities_KZYX[1:]
    return SliceUncertainty(
        entropy_K=entropy_ZYX.mean(axis=others),
        by_class_KC=np.stack(
            [(entropy_ZYX * one_ZYX).mean(axis=others) for one_ZYX in foreground], axis=1
        ),
    )


def annotated_slices(
    stack: SliceStack, labels: LabelSchema, *, record: AnnotationRecord | None
) -> frozenset[int]:
    """Return the slices of a stack that a person has dealt with; none without a label file.

    These are the slices of the record, and slices of which at least half of the voxels are
    annotated: those across other axes cross every slice, but hold little of it.
    """
    known = () if record is None else record.views
    taken = {i for one in known if one.axis == stack.axis for i in one.annotated_slices}
    if stack.case.label is not None:
        annotation, _ = read_annotation(stack.case.label, labels)
        share_K = np.moveaxis(annotation.annotated_ZYX, stack.axis, 0).mean(axis=(1, 2))
        taken |= {int(index) for index in np.flatnonzero(share_K >= 0.5)}
    return frozenset(taken)


def rank_by_uncertainty(
    stacks: Sequence[SliceStack],
    uncertainties: Sequence[SliceUncertainty],
    *,
    taken: Sequence[frozenset[int]],
    total: int,
    class_names: Sequence[str],
    options: RoundOptions,
) -> tuple[ChosenSlice, ...]:
    """Choose slices by uncertainty, and a share of them without it, mixed evenly in priority.

    After ClaSP PE (arXiv 2601.13677): two thirds of the ranked slices take turns among the
    classes, by entropy weighted with the probability of the class; the rest goes by entropy alone.
    Ranks carry noise: the largest of β · log(score) + Gumbel noise come first, which draws slices
    with a chance in proportion to score^β. Patches there are slices here. The slices to compare
    with are ours: no such method beats foreground-aware random choice reliably (nnActive). They
    come from the sequence that staggers slices over the scans.

    Args:
        stacks: What can be annotated.
        uncertainties: One per stack, from `measure_uncertainty`.
        taken: Per stack, the slices that are annotated already.
        total: How many slices to choose.
        class_names: In the order of `by_class_KC`.
        options: Round, random share and seed.

    Raises:
        RequestError: Fewer than `total` slices are left.
    """
    left = [
        (number, index)
        for number, stack in enumerate(stacks)
        for index in range(stack.num_slices)
        if index not in taken[number]
    ]
    if total > len(left):
        raise RequestError(
            f"{total} slices are asked for, but only {len(left)} are not annotated yet."
        )
    random = np.random.default_rng(options.seed)
    num_random = min(total, max(1, round(options.random_share * total)))
    drawn = _spread_evenly(stacks, left, count=num_random, seed=options.seed)
    at_random = [
        replace(_chosen(left[place], "spread evenly, to compare with"), for_comparison=True)
        for place in drawn
    ]
    free = np.ones(len(left), bool)
    free[drawn] = False

    entropy_N = np.array([uncertainties[number].entropy_K[index] for number, index in left])
    by_class_NC = np.array([uncertainties[number].by_class_KC[index] for number, index in left])
    num_ranked = total - num_random
    num_stratified = round(_STRATIFIED_SHARE * num_ranked) if len(class_names) else 0
    ranked = []
    keys_NC = _with_noise(by_class_NC, options.beta, random)
    key_N = _with_noise(entropy_N, options.beta, random)
    for turn in range(num_ranked):
        kind = turn % len(class_names) if turn < num_stratified else None
        key = key_N if kind is None else keys_NC[:, kind]
        place = int(np.argmax(np.where(free, key, -np.inf)))
        free[place] = False
        what = "" if kind is None else f" about {class_names[kind]}"
        reason = f"the network is unsure{what} (mean entropy {entropy_N[place]:.3g})"
        ranked.append(_chosen(left[place], reason))
    return _mix(ranked, at_random)


def plan_next_round(
    dataset_name: str,
    stacks: Sequence[SliceStack],
    uncertainties: Sequence[SliceUncertainty],
    *,
    taken: Sequence[frozenset[int]],
    budget: Budget,
    labels: LabelSchema,
    cost: CostModel,
    options: RoundOptions,
) -> AnnotationPlan:
    """Turn the ranking of a trained network into a plan within the budget.

    A share is one of all slices, annotated or not. The provenance says how unsure the network is in
    the ranked, the random and all remaining slices, under `next_round`.

    Raises:
        RequestError: The budget is per case, buys nothing, or is more than is left.
    """
    num_left = sum(stack.num_slices for stack in stacks) - sum(map(len, taken))
    total = _total(budget, sum(stack.num_slices for stack in stacks), num_left, cost)
    chosen = rank_by_uncertainty(
        stacks,
        uncertainties,
        taken=taken,
        total=total,
        class_names=tuple(labels.foreground),
        options=options,
    )
    chosen = within_time(chosen, stacks, budget, cost)
    if not chosen:
        raise RequestError(f"The budget {budget} is not enough for one slice: {cost.describe()}.")

    def mean_entropy(slices: Sequence[tuple[int, int]]) -> float | None:
        found = [float(uncertainties[number].entropy_K[index]) for number, index in slices]
        return float(np.mean(found)) if found else None

    random = [(one.stack, one.index) for one in chosen if one.for_comparison]
    ranked = [(one.stack, one.index) for one in chosen if (one.stack, one.index) not in random]
    rest = [
        (number, index)
        for number, stack in enumerate(stacks)
        for index in range(stack.num_slices)
        if index not in taken[number]
    ]
    comparison: Mapping[str, object] = {
        **asdict(options),
        "beta": options.beta,
        "num_ranked": len(ranked),
        "num_random": len(random),
        "mean_entropy_ranked": mean_entropy(ranked),
        "mean_entropy_random": mean_entropy(random),
        "mean_entropy_left": mean_entropy(rest),
    }
    return AnnotationPlan(
        dataset=dataset_name,
        selector="uncertainty",
        seed=options.seed,
        budget=str(budget),
        cases=to_planned_cases(chosen, stacks, cost=cost),
        provenance={
            "sparseunet": package_version(),
            "cost": asdict(cost),
            "next_round": comparison,
        },
    )


def _total(budget: Budget, num_slices: int, num_left: int, cost: CostModel) -> int:
    if budget.per_case:
        raise RequestError(
            "A next round goes where the network is unsure; give a budget for all cases together."
        )
    if budget.unit == "slices":
        return int(budget.amount)
    if budget.unit == "share":
        total = int(budget.amount * num_slices + 1e-9)
        if total == 0:
            raise RequestError(f"The budget {budget} of {num_slices} slices is not one slice.")
        return total
    cheapest = min(cost.minutes([0]), cost.minutes([0, 1]) / 2)
    return min(num_left, int(budget.amount / cheapest) if cheapest > 0 else num_left)


def _spread_evenly(
    stacks: Sequence[SliceStack], left: Sequence[tuple[int, int]], *, count: int, seed: int
) -> list[int]:
    """Choose positions in `left`, pairs of stack and slice, without looking at any image.

    The scans take turns as `visit_evenly` says. In each, the slice nearest to the place where
    `staggered_slices` puts the only slice of the scan is taken; the next turn goes on in the
    sequence, so that a scan gets another place each time.
    """
    by_stack: dict[int, list[int]] = {}
    for place, (number, _) in enumerate(left):
        by_stack.setdefault(number, []).append(place)
    open_stacks = list(by_stack)
    num_terms = 1 + max((stack.number for stack in stacks), default=0)
    order = visit_evenly([stacks[number].number for number in open_stacks], seed=seed)
    chosen: list[int] = []
    turn = 0
    while len(chosen) < count:
        for place in order:
            number = open_stacks[place]
            if len(chosen) == count or not by_stack[number]:
                continue
            stack = stacks[number]
            term = stack.number + turn * num_terms
            (target,) = staggered_slices(stack.num_slices, count=1, number=term, seed=seed)
            nearest = min(by_stack[number], key=lambda one: (abs(left[one][1] - target), one))
            by_stack[number].remove(nearest)
            chosen.append(nearest)
        turn += 1
    return chosen


def _with_noise(scores: np.ndarray, beta: float, random: np.random.Generator) -> np.ndarray:
    return beta * np.log(scores + _TINY) + random.gumbel(size=scores.shape)


def _chosen(where: tuple[int, int], reason: str) -> ChosenSlice:
    return ChosenSlice(stack=where[0], index=where[1], reason=reason)


def _mix(first: Sequence[ChosenSlice], second: Sequence[ChosenSlice]) -> tuple[ChosenSlice, ...]:
    """Merge two orders of priority so that every beginning holds both in proportion."""
    placed = [
        ((place + 0.5) / len(some), one)
        for some in (first, second)
        for place, one in enumerate(some)
    ]
    return tuple(one for _, one in sorted(placed, key=lambda pair: pair[0]))
