"""Raw datasets that are made from others: the same images with other labels."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparseunet.data.dataset import Dataset

_COMPANION_ENDINGS = (".json", ".raw", ".zraw")
"""Of files that belong to an image: the voxel size of a TIFF, the voxels of a MetaImage header."""


@contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its name only if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        new = holder / folder.name
        new.mkdir()  # not the holder itself: mkdtemp makes that private to the user
        yield new
        new.rename(folder)
    finally:
        shutil.rmtree(holder)


def link_images(dataset: Dataset, new: Path) -> None:
    """Put the images of a dataset, and all of its test data, into the folder `new`.

    Hard links where the file system allows it, copies elsewhere.
    """
    for name in ("imagesTs", "labelsTs"):
        _link_folder(dataset.folder / name, new / name)
    (new / "imagesTr").mkdir()
    for case in dataset.cases:
        for channel, image in enumerate(case.images):
            stem = f"{case.name}_{channel:04d}"
            _link(image, new / "imagesTr" / f"{stem}{dataset.file_ending}")
            for name in (stem, case.name):
                for ending in _COMPANION_ENDINGS:
                    companion = image.with_name(name + ending)
                    target = new / "imagesTr" / companion.name
                    if companion.is_file() and not target.exists():
                        _link(companion, target)


def _link_folder(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.mkdir()
    for file in sorted(source.rglob("*")):
        if file.is_file():
            _link(file, target / file.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without hard links, or a file of someone else
        shutil.copyfile(source, target)
