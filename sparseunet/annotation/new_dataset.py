"""Make a raw dataset from another: linked images, a description, whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparseunet.artifacts import unfinished_prefix
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.labels import LabelSchema

_COMPANION_ENDINGS = (".json", ".raw", ".zraw")
"""Of files that belong to an image: the voxel size of a TIFF, the voxels of a MetaImage header."""


@contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its name only if the block succeeds.

    A block that removes the temporary folder leaves nothing behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=unfinished_prefix(), dir=folder.parent))
    try:
        new = holder / folder.name
        new.mkdir()  # not the holder itself: mkdtemp makes that private to the user
        yield new
        if new.exists():
            new.rename(folder)
    finally:
        shutil.rmtree(holder)


def link_images(cases: Iterable[Case], folder: Path, *, file_ending: str) -> None:
    """Link the images of the cases and their companions into a folder, by nnU-Net's names.

    Companions are the `.json` of a TIFF and the `.raw` of a MetaImage header.
    """
    for image, target in image_files(cases, folder, file_ending=file_ending):
        link_file(image, target)


def image_files(
    cases: Iterable[Case], folder: Path, *, file_ending: str
) -> Iterator[tuple[Path, Path]]:
    """Yield every file of the images and where in `folder` it belongs, companions included."""
    for case in cases:
        targets: set[Path] = set()
        for channel, image in enumerate(case.images):
            stem = f"{case.name}_{channel:04d}"
            yield image, folder / f"{stem}{file_ending}"
            for name in (stem, case.name):
                for ending in _COMPANION_ENDINGS:
                    companion = image.with_name(name + ending)
                    target = folder / companion.name
                    if companion.is_file() and target not in targets:
                        targets.add(target)
                        yield companion, target


def link_folder(source: Path, target: Path) -> None:
    """Link every file below `source` to the same place below `target`; nothing without `source`."""
    if not source.is_dir():
        return
    target.mkdir()
    for file in sorted(source.rglob("*")):
        if file.is_file():
            link_file(file, target / file.relative_to(source))


def link_file(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without hard links, or a file of someone else
        shutil.copyfile(source, target)


def ignore_value(labels: LabelSchema) -> int:
    """Return the dataset's ignore value, or the one it gets: the highest label value plus one."""
    return max(labels.values) + 1 if labels.ignore is None else labels.ignore


def describe_with_ignore(dataset: Dataset, ignore: int) -> dict:
    """Return a new `dataset.json`: as it was, with an ignore label and files found by name."""
    description = {key: value for key, value in dataset.description.items() if key != "dataset"}
    return {**description, "labels": {**description["labels"], "ignore": ignore}}
