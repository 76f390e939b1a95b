"""Which classes were looked for in each case of a raw dataset."""

from collections.abc import Iterable
from pathlib import Path

from sparseunet.data.annotation_record import read_annotation_records
from sparseunet.data.dataset import Dataset
from sparseunet.errors import DatasetError, Problem
from sparseunet.workspace import ANNOTATION_JSON


def read_annotated_classes(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return the classes (regions) that were looked for, of cases in which those were not all.

    Empty without an `annotation.json`; cases that it does not name were looked through for every
    class.

    Raises:
        RequestError: `annotation.json` cannot be read.
        DatasetError: Names every case with a class that the dataset does not have.
    """
    path = dataset.folder / ANNOTATION_JSON
    if not path.is_file():
        return {}
    return annotated_classes_in(
        path, classes=tuple(dataset.labels.foreground), cases=[case.name for case in dataset.cases]
    )


def annotated_classes_in(
    path: Path, *, classes: Iterable[str], cases: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Return the annotated classes of cases as an `annotation.json` states them.

    Args:
        path: The file.
        classes: Names of all classes (regions) without background.
        cases: Names; records of others are passed over.

    Returns:
        As `read_annotated_classes`; so are the errors.
    """
    names, known = tuple(classes), set(cases)
    some: dict[str, tuple[str, ...]] = {}
    problems = []
    for case, record in read_annotation_records(path).cases.items():
        unknown = [name for name in record.annotated_classes if name not in names]
        if case not in known:
            continue
        if unknown:
            problems.append(
                Problem(
                    case=case,
                    file=path.name,
                    found=f"annotated_classes {', '.join(unknown)}",
                    expected=f"some of {', '.join(names)}",
                    fix="write the names as in dataset.json, without background",
                )
            )
        elif not set(names) <= set(record.annotated_classes):
            some[case] = record.annotated_classes
    if problems:
        raise DatasetError(problems)
    return some
