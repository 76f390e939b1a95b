"""Find the prediction of every reference, and read both on one grid."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, read_label_map
from sparseunet.data.provenance import read_sources
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.progress import track

_logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPair:
    """The files of one case."""

    name: str
    reference: Path
    prediction: Path

    def read(self) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Return reference and prediction as (z, y, x) unsigned, and the reference's geometry.

        Raises:
            DatasetError: One or both cannot be read; every problem at once.
        """
        problems: list[Problem] = []
        found = []
        for path in (self.reference, self.prediction):
            try:
                found.append(read_label_map(path))
            except DatasetError as error:
                problems.extend(error.problems)
        if problems:
            raise DatasetError(problems)
        (reference_ZYX, geometry), (prediction_ZYX, _) = found
        return reference_ZYX, prediction_ZYX, geometry


def find_pairs(
    references: Path, predictions: Path, *, file_ending: str, cases: Sequence[str] | None = None
) -> tuple[LabelPair, ...]:
    """Return the cases to score, by name; predictions without reference are left out, and told.

    Args:
        references: Folder of label maps named CASE + file_ending.
        predictions: Folder of label maps of the same names.
        file_ending: With the dot, e.g. `.nii.gz`.
        cases: Names of the cases to score; all references by default.

    Raises:
        RequestError: There is no reference, or predictions are missing; lists every missing file.
    """
    of_references = names_in(references, file_ending)
    of_predictions = names_in(predictions, file_ending)
    wanted = of_references if cases is None else sorted(set(cases))
    lost = [name for name in wanted if name not in of_references]
    if lost or not wanted:
        what = ", ".join(name + file_ending for name in lost) or f"label map CASE{file_ending}"
        raise RequestError(f"No {what} in the folder of references {references}.")
    missing = [name + file_ending for name in wanted if name not in of_predictions]
    if missing:
        raise RequestError(
            f"{len(missing)} of {len(wanted)} references have no prediction in {predictions}: "
            f"{', '.join(missing)}. Predict them, or name the cases to score."
        )
    extra = [name + file_ending for name in of_predictions if name not in of_references]
    if extra:
        _logger.warning(
            "%d predictions have no reference and are left out: %s", len(extra), ", ".join(extra)
        )
    return tuple(
        LabelPair(
            name=name,
            reference=references / (name + file_ending),
            prediction=predictions / (name + file_ending),
        )
        for name in wanted
    )


def names_in(folder: Path, file_ending: str) -> list[str]:
    """Return the names of the cases that have a file in the folder, sorted.

    Raises:
        RequestError: The folder does not exist.
    """
    if not folder.is_dir():
        raise RequestError(f"The folder {folder} does not exist.")
    return sorted(
        path.name.removesuffix(file_ending)
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and not path.name.startswith(".") and path.is_file()
    )


def for_each_pair(
    pairs: Sequence[LabelPair], work: Callable[[LabelPair], T], *, num_workers: int, label: str
) -> tuple[T, ...]:
    """Compare the grids of all pairs, then do the work on each in threads, in their order.

    Raises:
        DatasetError: A prediction has another shape or spacing than its reference (lists all of
            them, before any work), or the work could not read a file (lists all of them). Another
            origin or direction is logged: voxels are matched by index, as everywhere.
    """
    with ThreadPoolExecutor(num_workers) as pool:
        _raise_together(pool.map(_compare_grids, pairs))

        def attempt(pair: LabelPair) -> tuple[T | None, list[Problem]]:
            try:
                return work(pair), []
            except DatasetError as error:
                return None, list(error.problems)

        done = list(track(pool.map(attempt, pairs), total=len(pairs), label=label))
    _raise_together(problems for _, problems in done)
    return tuple(result for result, _ in done if result is not None)


def read_sources_beside(
    pair: LabelPair, provenance: Path | None, geometry: Geometry
) -> np.ndarray | None:
    """Return who drew each voxel of the reference; None without a folder that says so.

    Args:
        pair: The case.
        provenance: Folder with a `Source` per voxel in files named as the references.
        geometry: Of the reference.

    Raises:
        DatasetError: The file is missing, damaged, on another grid or holds other values.
    """
    if provenance is None:
        return None
    file = provenance / pair.reference.name
    if not file.is_file():
        missing = Problem(
            case=pair.name,
            file=str(file),
            found="no such file",
            expected="a file for every reference, so that filled voxels do not count as drawn",
            fix="add it (1 where a person drew), or move the folder away if persons drew all",
        )
        raise DatasetError([missing])
    return read_sources(file, geometry, case=pair.name, reference_file=str(pair.reference))


def _raise_together(problems: Iterable[list[Problem]]) -> None:
    found = [problem for of_one_case in problems for problem in of_one_case]
    errors = [problem for problem in found if problem.severity is Severity.ERROR]
    for problem in found:
        if problem not in errors:
            _logger.warning("%s", problem)
    if errors:
        raise DatasetError(errors)


def _compare_grids(pair: LabelPair) -> list[Problem]:
    """Return what differs between the headers of a reference and its prediction."""
    try:
        expected, found = read_geometry(pair.reference), read_geometry(pair.prediction)
    except DatasetError as error:
        return list(error.problems)
    return compare_grids(
        found,
        expected,
        case=pair.prediction.name,
        file=str(pair.prediction),
        reference_file=f"the reference {pair.reference}",
    )
