"""What the values in a folder of label maps mean, and how its files are called."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import read_json
from sparseunet.errors import RequestError
from sparseunet.workspace import DATASET_JSON

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema

_FILE_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".mha",
    ".mhd",
    ".gipl",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
)


def find_labels(
    folders: Sequence[Path],
    *,
    label_maps: Path,
    dataset_json: Path | None,
    values: Sequence[int] | None,
    ignore: int | None,
) -> "tuple[LabelSchema, str]":
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
    from sparseunet.data.labels import LabelSchema
    from sparseunet.data.load import parse_labels

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
            f"No {DATASET_JSON} in any of {where}. Name one with --dataset-json, or the label "
            "values with --labels 1 2 3."
        )
    if min(values) < 1 or ignore in values:
        raise RequestError("--labels must be foreground values (1 or more), not the ignore label.")
    classes = {"background": 0} | {str(value): value for value in values}
    labels = LabelSchema(classes=classes, regions={}, ignore=ignore)
    return labels, _find_file_ending(label_maps)


def refuse_existing(output: Path, names: Sequence[str]) -> None:
    """Refuse to write over files.

    Raises:
        RequestError: Some of these names are in the folder already.
    """
    there = [name for name in names if (output / name).exists()]
    if there:
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise RequestError(
            f"{output} holds {', '.join(there[:5])}{more} already. Replace them with --overwrite, "
            "or choose another folder."
        )


def _find_file_ending(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    present = [ending for ending in _FILE_ENDINGS if any(name.endswith(ending) for name in names)]
    if len(present) != 1:
        raise RequestError(
            f"{folder} holds label maps of {len(present)} kinds ({', '.join(present) or 'none'}); "
            "expected one. Name the file ending in a dataset.json."
        )
    return present[0]
