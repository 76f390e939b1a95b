"""From unlabelled scans and a budget to a work list: which slices of which scans to annotate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sparseunet.annotation.allocation import (
    Alternative,
    Situation,
    allocate,
    recommend,
    require_alternatives,
    slices_per_case,
)
from sparseunet.annotation.annotation_plan import AnnotationPlan, PlannedCase
from sparseunet.annotation.budget import Budget
from sparseunet.annotation.cost import CostModel
from sparseunet.annotation.planning_request import (
    Axis,
    SpendingOptions,
    check_request,
    read_geometries,
)
from sparseunet.annotation.selection import DEFAULT_SELECTOR, load_selector
from sparseunet.annotation.selection.slices import ChosenSlice, SelectionRequest, SliceStack
from sparseunet.annotation.selection.staggered import number_scans
from sparseunet.annotation.volumes import VOLUME_CHOICES
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.errors import DatasetError, Problem, RequestError
from sparseunet.named_functions import path_of
from sparseunet.version import package_version

_ALL_AXES = (0, 1, 2)
_LONGEST_PIXEL = 2.0
"""Length to width of the pixels in which a person draws, where axes alternate."""
_DATASET_SELECTORS = ("dataset",)
"""Selectors that are meant to choose volumes too."""


def make_annotation_plan(
    dataset: Dataset,
    *,
    budget: Budget | str,
    selector: str | Callable[..., Any] = DEFAULT_SELECTOR,
    axis: Axis = "auto",
    seed: int = 0,
    options: SpendingOptions | None = None,
) -> AnnotationPlan:
    """Choose slices to annotate within a budget; labels are not needed.

    Most scans that get their minimum are annotated (Z25: rather more volumes than more slices per
    volume; 3D networks need some slices of each), each with the same number of slices, give or take
    one. The budget is never exceeded. The same arguments give the same plan.

    Args:
        dataset: From `load_dataset(..., needs_labels=False)` or `load_scan_folder`.
        budget: As in `parse_budget`.
        selector: Name in `SELECTORS`, or `package.module:function`, or the function itself.
        axis: See `Axis`. `auto` takes one axis for all scans, by the median spacings; ties go to
            the lower axis. With `all`, the slices of a scan are shared out over its three axes;
            with `alternate`, the scans take turns with the axes.
        seed: For everything that is drawn at random.
        options: None for the defaults.

    Returns:
        The plan. Its provenance holds the alternatives that were considered, with expected cost and
        share of the performance of dense labels, and which of them was chosen.

    Raises:
        DatasetError: The request makes no sense for this dataset; holds every problem.
        RequestError: The selector cannot do what is asked for.
    """
    options, selector = options or SpendingOptions(), path_of(selector, what="selector")
    budget, geometries = check_request(
        dataset, budget=budget, selector=selector, axis=axis, options=options
    )
    volumes = _stacks_of_scans(dataset, geometries, axis=axis)
    situation = Situation(
        depths=tuple(tuple(stack.num_slices for stack in stacks) for stacks in volumes),
        dimensions=options.dimensions,
        cost=options.cost,
    )
    alternatives, chosen = _choose_alternative(budget, situation, options)
    stacks, counts, total = _spend(
        budget, volumes, situation, chosen=chosen, selector=selector, seed=seed, options=options
    )
    request = SelectionRequest(
        counts=counts,
        total=total,
        seed=seed,
        labels=dataset.labels if dataset.labels.foreground else None,
        time_budget_s=options.time_budget_s,
        device=options.device,
        cache=options.cache,
        weights=options.weights,
        num_workers=options.num_workers,
    )
    slices = load_selector(selector)(stacks, request=request)
    slices = within_time(slices, stacks, budget, options.cost)
    provenance: dict[str, Any] = {
        "sparseunet": package_version(),
        "axes": sorted({stack.axis for stacks in volumes for stack in stacks}),
        "num_scans": situation.num_volumes,
        "num_slices": situation.num_slices,
        "dimensions": options.dimensions,
        "num_volumes": options.num_volumes,
        "volume_choice": options.volume_choice,
        "cost": asdict(options.cost),
        "alternatives": [asdict(alternative) for alternative in alternatives],
        "chosen_alternative": alternatives.index(chosen),
    }
    return AnnotationPlan(
        dataset=dataset.name,
        selector=selector,
        seed=seed,
        budget=str(budget),
        cases=to_planned_cases(slices, stacks, cost=options.cost),
        provenance=provenance,
    )


def make_stacks(dataset: Dataset, *, axis: Axis, num_workers: int = 1) -> list[SliceStack]:
    """Return every scan of a dataset cut into slices, case by case, then axis by axis.

    Raises:
        DatasetError: No scans, unreadable headers, 2D images; holds every problem.
    """
    geometries = read_geometries(dataset, num_workers=num_workers)
    volumes = _stacks_of_scans(dataset, geometries, axis=axis)
    return [stack for stacks in volumes for stack in stacks]


def _stacks_of_scans(
    dataset: Dataset, geometries: Mapping[str, Geometry], *, axis: Axis
) -> list[list[SliceStack]]:
    """Return the stacks of each scan: one, or with the axis `all` three."""
    spacings_mm = np.median([geometry.spacing_mm for geometry in geometries.values()], axis=0)
    shape = np.median([geometry.shape for geometry in geometries.values()], axis=0)
    axes = _possible_axes(spacings_mm, shape, axis=axis)
    numbers = number_scans(case.name for case in dataset.cases)

    def axes_of(name: str) -> tuple[int, ...]:
        return (axes[numbers[name] % len(axes)],) if axis == "alternate" else axes

    return [
        [
            _stack(case, geometries[case.name], axis, number=numbers[case.name])
            for axis in axes_of(case.name)
        ]
        for case in dataset.cases
    ]


def _possible_axes(spacings_mm: np.ndarray, shape: np.ndarray, *, axis: Axis) -> tuple[int, ...]:
    """Return the axes across which slices may lie, by median spacings and sizes along z, y and x.

    Pictures that are stored as volumes of one slice are annotated across the axis of one voxel:
    across another one the slices would be lines.
    """
    thickest = int(np.argmax(spacings_mm >= spacings_mm.max() * (1 - 1e-3)))
    if axis == "all":
        return _ALL_AXES
    if axis in ("auto", "alternate") and np.count_nonzero(shape == 1) == 1:
        return (int(np.argmin(shape)),)
    if axis == "auto":
        return (thickest,)
    if axis != "alternate":
        return (axis,)
    possible = []
    for across in _ALL_AXES:
        pixel_mm = np.delete(spacings_mm, across)
        if pixel_mm.max() <= _LONGEST_PIXEL * pixel_mm.min():
            possible.append(across)
    return tuple(possible) or (thickest,)


def to_planned_cases(
    slices: Sequence[ChosenSlice], stacks: Sequence[SliceStack], *, cost: CostModel
) -> tuple[PlannedCase, ...]:
    """Sort chosen slices, the most important first, into the cases of a plan."""
    by_stack: dict[int, list[tuple[int, ChosenSlice]]] = {}
    for rank, slice_ in enumerate(slices, start=1):
        by_stack.setdefault(slice_.stack, []).append((rank, slice_))
    planned: list[PlannedCase] = []
    opened: set[str] = set()
    for number in sorted(by_stack, key=lambda number: _order(stacks[number])):
        stack, ranked = stacks[number], by_stack[number]
        indices = tuple(slice_.index for _, slice_ in ranked)
        opening = 0.0 if stack.case.name in opened else cost.minutes_per_volume
        opened.add(stack.case.name)
        planned.append(
            PlannedCase(
                case=stack.case.name,
                axis=stack.axis,
                num_slices=stack.num_slices,
                slices=indices,
                ranks=tuple(rank for rank, _ in ranked),
                reasons=tuple(slice_.reason for _, slice_ in ranked),
                expected_minutes=opening + cost.minutes(indices),
            )
        )
    return tuple(planned)


def _order(stack: SliceStack) -> tuple[str, int]:
    return stack.case.name, stack.axis


def _choose_alternative(
    budget: Budget, situation: Situation, options: SpendingOptions
) -> tuple[tuple[Alternative, ...], Alternative]:
    wanted = options.num_volumes if isinstance(options.num_volumes, int) else None
    try:
        alternatives = require_alternatives(budget, situation, num_volumes=wanted)
    except RequestError as error:
        message = Problem(
            setting="budget",
            found=str(error),
            expected=f"1 to {situation.num_slices} slices in {situation.num_volumes} scans",
            fix="choose another budget or number of volumes",
        )
        raise DatasetError([message]) from None
    if wanted is None:
        return alternatives, recommend(alternatives)
    return alternatives, next(one for one in alternatives if one.num_volumes == wanted)


def _spend(
    budget: Budget,
    volumes: Sequence[Sequence[SliceStack]],
    situation: Situation,
    *,
    chosen: Alternative,
    selector: str,
    seed: int,
    options: SpendingOptions,
) -> tuple[list[SliceStack], tuple[int, ...] | None, int]:
    """Return the stacks to choose from, the slices of each (None: any) and of all of them."""
    mode = options.num_volumes
    if mode == "selector" or (mode == "auto" and selector in _DATASET_SELECTORS):
        return [stack for stacks in volumes for stack in stacks], None, chosen.num_slices
    firsts = [stacks[0] for stacks in volumes]
    # Where all are taken there is an order to choose, for which no scan need be read.
    choice = "even" if chosen.num_volumes == len(volumes) else options.volume_choice
    places = VOLUME_CHOICES[choice](
        firsts, count=chosen.num_volumes, seed=seed, num_workers=options.num_workers
    )
    depths = [situation.depths[place] for place in places]
    per_volume = _slices_of_volumes(budget, depths, chosen.num_slices, options.cost)
    _require_enough([volumes[place][0].case.name for place in places], depths, per_volume)
    stacks: list[SliceStack] = []
    counts: list[int] = []
    for place, count in zip(places, per_volume, strict=True):
        stacks += volumes[place]
        counts += _over_axes(count, situation.depths[place], turn=firsts[place].number)
    return stacks, tuple(counts), sum(counts)


def _slices_of_volumes(
    budget: Budget, depths: Sequence[tuple[int, ...]], total: int, cost: CostModel
) -> tuple[int, ...]:
    if budget.per_case:
        return tuple(slices_per_case(budget, depth, cost) for depth in depths)
    capacities = [sum(depth) for depth in depths]
    return allocate(min(total, sum(capacities)), capacities)


def _require_enough(
    names: Sequence[str], depths: Sequence[tuple[int, ...]], counts: Sequence[int]
) -> None:
    problems = [
        Problem(
            setting="budget",
            case=name,
            found=f"{count} slices of {sum(depth)}" if count else "no slice",
            expected=f"1 to {sum(depth)} slices",
            fix="choose another budget, or leave the scan out",
        )
        for name, depth, count in zip(names, depths, counts, strict=True)
        if not 1 <= count <= sum(depth)
    ]
    if problems:
        raise DatasetError(problems)


def _over_axes(count: int, depths: Sequence[int], *, turn: int) -> list[int]:
    """Share slices out over axes; what is left over starts at another axis in every volume."""
    order = [(turn + step) % len(depths) for step in range(len(depths))]
    counts = [0] * len(depths)
    for _ in range(count):
        counts[min((a for a in order if counts[a] < depths[a]), key=counts.__getitem__)] += 1
    return counts


def within_time(
    slices: Sequence[ChosenSlice], stacks: Sequence[SliceStack], budget: Budget, cost: CostModel
) -> tuple[ChosenSlice, ...]:
    """Leave out the least important slices if the expected minutes exceed the budget.

    Before slices are chosen their cost is an estimate: scans differ in depth, and selectors in how
    many neighbours they take.
    """

    def fits(some: Sequence[ChosenSlice]) -> bool:
        planned = to_planned_cases(some, stacks, cost=cost)
        return sum(case.expected_minutes for case in planned) <= budget.amount + 1e-6

    if budget.unit != "minutes":
        return tuple(slices)
    if not budget.per_case:
        return tuple(slices[: _longest_prefix(slices, fits)])
    by_case: dict[str, list[ChosenSlice]] = {}
    for slice_ in slices:
        by_case.setdefault(stacks[slice_.stack].case.name, []).append(slice_)
    kept = {slice_ for some in by_case.values() for slice_ in some[: _longest_prefix(some, fits)]}
    return tuple(slice_ for slice_ in slices if slice_ in kept)


def _longest_prefix(
    slices: Sequence[ChosenSlice], fits: Callable[[Sequence[ChosenSlice]], bool]
) -> int:
    """Return how many of the first slices fit, by bisection; all if all do."""
    if fits(slices):
        return len(slices)
    good, bad = 0, len(slices)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(slices[:middle]) else (good, middle)
    return good


def _stack(case: Case, geometry: Geometry, axis: int, *, number: int) -> SliceStack:
    first, second = (other for other in _ALL_AXES if other != axis)
    spacing_mm = geometry.spacing_mm
    return SliceStack(
        case=case,
        axis=axis,
        num_slices=geometry.shape[axis],
        spacing_mm=(spacing_mm[axis], spacing_mm[first], spacing_mm[second]),
        number=number,
    )
