"""Label files of the first stage of a cascade, as given to the second."""

from collections.abc import Sequence
from pathlib import Path

from sparseunet.artifacts import hash_file
from sparseunet.data.dataset import Case
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry
from sparseunet.errors import DatasetError, Problem, Severity


def check_previous_stage(
    scans: Sequence[Case], folder: Path, *, file_ending: str
) -> dict[str, Path]:
    """Return the previous stage's label file of every scan, having compared their grids.

    Reads headers only.

    Raises:
        DatasetError: Files are missing, unreadable, or on another grid than their scan; names all.
    """
    files = {scan.name: folder / f"{scan.name}{file_ending}" for scan in scans}
    problems = [problem for scan in scans for problem in _problems(scan, files[scan.name])]
    if problems:
        raise DatasetError(problems)
    return files


def hash_previous_stage(scans: Sequence[Case], folder: Path, file_ending: str) -> dict[str, str]:
    """Return the SHA-256 of the previous stage's label file by case, for those that exist."""
    files = {scan.name: folder / f"{scan.name}{file_ending}" for scan in scans}
    return {case: hash_file(path) for case, path in files.items() if path.is_file()}


def _problems(scan: Case, file: Path) -> list[Problem]:
    if not file.is_file():
        return [
            Problem(
                case=scan.name,
                file=str(file),
                found="no such file",
                expected="the previous stage's segmentation of the scan",
                fix="predict the scan with the previous stage into this folder first",
            )
        ]
    try:
        differences = compare_grids(
            read_geometry(file),
            read_geometry(scan.images[0]),
            case=scan.name,
            file=str(file),
            reference_file=scan.images[0].name,
        )
    except DatasetError as error:
        return list(error.problems)
    return [problem for problem in differences if problem.severity is Severity.ERROR]
