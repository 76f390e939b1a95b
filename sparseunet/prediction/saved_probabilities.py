"""Files of class probabilities beside label files: ours (`CASE.npy`) and nnU-Net's (`CASE.npz`).

Both hold one array (classes, z, y, x) on the grid of the label file, as `predict` and
`nnUNetv2_predict` write them where they are told to. Nothing is unpickled.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from sparseunet.errors import RequestError
from sparseunet.workspace import nnunet_probabilities_file, probabilities_file

_MEMBER = "probabilities.npy"
"""Key of the probabilities in nnU-Net's `.npz` files."""
_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedCase:
    """The files that a model predicted for one case."""

    label_file: Path
    """The segmentation, whose grid the probabilities have."""
    probabilities: Path
    """`.npy`, or nnU-Net's `.npz`."""

    def read_shape(self) -> tuple[int, ...]:
        """Return the shape of the probabilities from their header.

        Raises:
            RequestError: The file is damaged or holds anything but floating-point numbers.
        """
        try:
            with self._open() as stream:
                shape, _, dtype = _read_header(stream)
        except _DAMAGED as error:
            raise RequestError(f"{self.probabilities} cannot be read: {error}.") from None
        if dtype.kind != "f":
            raise RequestError(f"{self.probabilities} holds {dtype}, not probabilities.")
        return shape

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Callable[[], np.ndarray]]:
        """Give a function that maps the file into memory; what it maps may be let go of any time.

        Args:
            scratch: Folder in which a compressed file is unfolded while the block runs.

        Raises:
            RequestError: The file is damaged.
        """
        if self.probabilities.suffix == ".npy":
            yield self._mapped(self.probabilities)
            return
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".unfolded-") as folder:
            unfolded = Path(folder) / _MEMBER
            try:
                with self._open() as stream, unfolded.open("wb") as target:
                    shutil.copyfileobj(stream, target, 1 << 20)
            except _DAMAGED as error:
                raise RequestError(f"{self.probabilities} cannot be read: {error}.") from None
            yield self._mapped(unfolded)

    def _mapped(self, path: Path) -> Callable[[], np.ndarray]:
        def open_() -> np.ndarray:
            try:
                mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            except _DAMAGED as error:
                raise RequestError(f"{self.probabilities} cannot be read: {error}.") from None
            return mapped

        return open_

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.probabilities.suffix == ".npy":
            with self.probabilities.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self.probabilities) as archive, archive.open(_MEMBER) as member:
            yield member  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedModel:
    """The saved probabilities of one model."""

    name: str
    """Name in messages: its folder or its run."""
    cases: Mapping[str, SavedCase]


def find_saved_cases(folder: Path, *, file_ending: str) -> SavedModel:
    """Return what lies in a folder; a case is what has probabilities, ours first.

    Args:
        folder: Of `predict`, probabilities saved, or of nnU-Net.
        file_ending: Of the label files, with the dot.

    Raises:
        RequestError: The folder does not exist or holds no probabilities.
    """
    if not folder.is_dir():
        raise RequestError(f"The folder {folder} does not exist.")
    cases = {}
    for suffix in (".npz", ".npy"):
        for path in sorted(folder.glob(f"*{suffix}")):
            if not path.name.startswith("."):
                name = path.name.removesuffix(suffix)
                label_file = folder / f"{name}{file_ending}"
                cases[name] = SavedCase(label_file=label_file, probabilities=path)
    if not cases:
        example = folder / f"CASE{file_ending}"
        names = " or ".join(
            place(example, "CASE").name for place in (probabilities_file, nnunet_probabilities_file)
        )
        raise RequestError(
            f"{folder} holds no probabilities ({names}). Predict and save them.",
            setting="save_probabilities",
        )
    return SavedModel(name=str(folder), cases=dict(sorted(cases.items())))


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    return npy_format.read_array_header_2_0(stream)
