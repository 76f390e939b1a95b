"""What the values in a folder of label maps mean, and how its files are called."""

from collections.abc import Sequence
from pathlib import Path

from sparseunet.artifacts import read_json
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import parse_labels
from sparseunet.errors import RequestError
from sparseunet.workspace import DATASET_JSON


def find_labels(
    folders: Sequence[Path],
    *,
    label_maps: Path,
    dataset_json: Path | None,
    values: Sequence[int] | None,
    ignore: int | None,
) -> tuple[LabelSchema, str]:
    """Return the classes and the ending of the files.

    Args:
        folders: Where a `dataset.json` may lie, the first one counts.
        label_maps: Folder whose files tell the ending, if there is none.
        dataset_json: The one to use, if somebody named one.
        values: Label values that are classes, if there is none.
        ignore: Their value of unannotated voxels.

    Raises:
        RequestError: There is neither a description nor values, or it lacks something.
    """
    places = [folder / DATASET_JSON for folder in folders]
    found = dataset_json or next((place for place in places if place.is_file()), None)
    if found is not None:
        description = read_json(found)
        if not isinstance(description, dict) or "file_ending" not in description:
            raise RequestError(f'{found} lacks "file_ending", e.g. ".nii.gz"; add it.')
        return parse_labels(description), description["file_ending"]
    if values is None:
        where = ", ".join(map(str, folders))
        raise RequestError(
            f"No {DATASET_JSON} in any of {where}. Name one, or the label values, e.g. 1 2 3.",
            setting="dataset_json",
        )
    if min(values) < 1 or ignore in values:
        raise RequestError(
            "Labels must be foreground values (1 or more), not the ignore label.", setting="labels"
        )
    classes = {"background": 0} | {str(value): value for value in values}
    labels = LabelSchema(classes=classes, regions={}, ignore=ignore)
    return labels, _find_file_ending(label_maps)


def _find_file_ending(folder: Path) -> str:
    from sparseunet.data.formats import FORMATS

    names = [path.name for path in folder.iterdir()]
    present = [ending for ending in FORMATS if any(name.endswith(ending) for name in names)]
    if len(present) != 1:
        raise RequestError(
            f"{folder} holds label maps of {len(present)} kinds ({', '.join(present) or 'none'}); "
            "expected one. Name the file ending in a dataset.json."
        )
    return present[0]
