"""What can be asked of the planner of annotation, and what of it makes no sense."""

from concurrent.futures import ThreadPoolExecutor

from sparseunet.annotation.budget import Budget, BudgetError, parse_budget
from sparseunet.annotation.selection import load_selector
from sparseunet.annotation.spending import AXES, Axis, SpendingOptions
from sparseunet.annotation.volumes import VOLUME_CHOICES
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry
from sparseunet.errors import DatasetError, Problem, RequestError


def check_request(
    dataset: Dataset,
    *,
    budget: Budget | str,
    selector: str,
    axis: Axis,
    options: SpendingOptions,
) -> tuple[Budget, dict[str, Geometry]]:
    """Return the budget and the grid of every case by its first channel, if all makes sense.

    Raises:
        DatasetError: Every problem: budget, axis, selector, options; no scans, unreadable headers,
            2D images.
    """
    problems = _problems_of_request(dataset, axis=axis, options=options)
    try:
        load_selector(selector)
    except RequestError as error:
        problems.append(_wrong("selector", found=str(error), expected="a selector"))
    geometries: dict[str, Geometry] = {}
    try:
        geometries = read_geometries(dataset, num_workers=options.num_workers)
    except DatasetError as error:
        problems += error.problems
    try:
        understood = parse_budget(budget) if isinstance(budget, str) else budget
    except BudgetError as error:
        expected = error.expected or "a budget that buys slices"
        wrong = _wrong("budget", found=error.found, expected=expected)
        raise DatasetError([wrong, *problems]) from None
    if problems:
        raise DatasetError(problems)
    return understood, geometries


def read_geometries(dataset: Dataset, *, num_workers: int) -> dict[str, Geometry]:
    """Return the grid of every case by its first channel.

    Raises:
        DatasetError: No scans, unreadable headers, 2D images; holds every problem.
    """

    def read(case: Case) -> Geometry | tuple[Problem, ...]:
        try:
            return read_geometry(case.images[0])
        except DatasetError as error:
            return error.problems

    with ThreadPoolExecutor(num_workers) as pool:
        cases = [case.name for case in dataset.cases]
        found = dict(zip(cases, pool.map(read, dataset.cases), strict=True))
    geometries = {name: one for name, one in found.items() if isinstance(one, Geometry)}
    problems = [
        problem for one in found.values() if not isinstance(one, Geometry) for problem in one
    ]
    flat = [name for name, geometry in geometries.items() if geometry.dimensions == 2]
    if flat:
        names = ", ".join(flat[:3]) + (", ..." if len(flat) > 3 else "")
        problems.append(
            Problem(
                file=str(dataset.folder),
                found=f"{len(flat)} 2D images ({names})",
                expected="volumes, which have slices to choose from",
                fix="choose whole images by hand, or stack them to volumes",
            )
        )
    if not dataset.cases:
        problems.append(
            Problem(
                file=str(dataset.folder), found="no scans", expected="at least one", fix="add some"
            )
        )
    if problems:
        raise DatasetError(problems)
    return geometries


def _problems_of_request(
    dataset: Dataset, *, axis: Axis, options: SpendingOptions
) -> list[Problem]:
    problems = []
    wanted = {
        "axis": (axis, AXES),
        "dimensions": (options.dimensions, (2, 3)),
        "volume_choice": (options.volume_choice, tuple(VOLUME_CHOICES)),
    }
    for setting, (value, allowed) in wanted.items():
        if value not in allowed:
            expected = f"one of {', '.join(map(str, allowed))}"
            problems.append(_wrong(setting, found=str(value), expected=expected))
    size, available = options.num_volumes, len(dataset.cases)
    if isinstance(size, int) and available and not 1 <= size <= available:
        problems.append(
            Problem(
                setting="num_volumes",
                found=f"{size} of {available} scans",
                expected=f"1 to {available}, or auto",
                fix="choose another number",
            )
        )
    return problems


def _wrong(setting: str, *, found: str, expected: str) -> Problem:
    return Problem(setting=setting, found=found, expected=expected, fix="correct it")
