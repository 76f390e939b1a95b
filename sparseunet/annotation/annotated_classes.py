"""Which classes were looked for in each case of a raw dataset."""

from sparseunet.annotation.annotation_record import read_annotation_records
from sparseunet.data.dataset import Dataset
from sparseunet.errors import DatasetError, Problem, Severity
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
    names = tuple(dataset.labels.foreground)
    known = {case.name for case in dataset.cases}
    some: dict[str, tuple[str, ...]] = {}
    problems = []
    for case, record in read_annotation_records(path).cases.items():
        unknown = [name for name in record.annotated_classes if name not in names]
        if case not in known:
            continue
        if unknown:
            problems.append(
                Problem(
                    severity=Severity.ERROR,
                    case=case,
                    file=ANNOTATION_JSON,
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
