"""Read files of weights that anybody may have written: tensors and numbers, never code.

The rules stand in `documentation/explanation/models_from_strangers.md`.
"""

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparseunet.errors import UnreadableFileError

_MALFORMED = (
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What a damaged or hostile file makes torch raise."""


def read_checkpoint(path: Path, *, in_place: bool = False) -> dict[str, Any]:
    """Read a checkpoint's tensors and numbers; no code in the file is ever run.

    Only torch's own zip form is read, and only uncompressed as torch writes it, so that a file
    cannot unfold to more than its size. What is no tensor, number, text or container is refused,
    but for the NumPy numbers in nnU-Net's logs: they are recognised, and left as None.

    Args:
        path: `.pt` of this package or `.pth` of nnU-Net.
        in_place: Leave tensors in the file until they are used. A tensor that claims to be larger
            than its file is then refused before any memory is taken. The tensors must not be used
            after the file has changed.

    Raises:
        UnreadableFileError: The file is truncated, not a checkpoint, or holds anything else.
    """
    try:
        _require_uncompressed_zip(path)
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Weights only load failed" in reason:
            reason = f"other things than tensors and numbers: {_name_of_refused(error)}"
        raise _unreadable(path, f"an unreadable checkpoint ({reason})") from None
    if not isinstance(content, dict):
        raise _unreadable(path, f"a {type(content).__name__}")
    return content


def _require_uncompressed_zip(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError("not the zip archive that torch.save writes, or cut off")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed entries, which torch.save never writes")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("entries that claim to be larger than the file")


def _unreadable(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        file=str(path),
        found=found,
        expected="tensors and numbers, written by sparseunet or nnU-Net 2",
        fix="restore the file, download it again or train again",
    )


def _name_of_refused(error: Exception) -> str:
    words = str(error).split("GLOBAL ", 1)
    return words[1].split()[0] if len(words) == 2 else "a pickled object"


class _NumpyDtype:
    """Stands in for `numpy.dtype`, whose own unpickling we do not trust."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _number(*arguments: object) -> None:
    """Stand in for NumPy's unpickling of a scalar: the log it belongs to is not used."""


def _bytes(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, with which pickles spell bytes."""
    return text.encode(encoding) if encoding == "latin1" else b""


_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_NumpyDtype, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_bytes, "_codecs.encode"),
]
"""The whole list of names that files may hold besides torch's own, and what they become."""
