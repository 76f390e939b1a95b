"""Unpack zip archives that anybody may have made: what is wanted, into one folder, and no more."""

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sparseunet.errors import UnreadableFileError
from sparseunet.workspace import is_plain_name

MAX_UNPACKED_BYTES = 32 * 2**30
"""More than this is never unpacked; five folds of the largest planned network need about 10 GiB."""
MAX_RATIO = 50
"""Weights do not compress (trained: to nine tenths), JSON about twentyfold."""
MAX_ENTRIES = 100_000
MAX_JSON_BYTES = 64 * 2**20
"""Of one description."""


def unpack(
    path: Path, target: Path, *, wanted: Callable[[PurePosixPath], bool]
) -> tuple[PurePosixPath, ...]:
    """Unpack the wanted files of a zip archive below `target`, and return their names.

    The whole archive is refused before anything is written if any entry, wanted or not, has a name
    that leads out of the folder (absolute, `..`, a drive, a backslash), is a link or a device, is
    there twice, or is encrypted; and if the wanted ones claim to be larger than
    `MAX_UNPACKED_BYTES`, than the free space, or than `MAX_RATIO` times what they take packed.

    Args:
        path: The archive.
        target: An empty folder.
        wanted: Given the name of a file in the archive, whether to unpack it.

    Raises:
        UnreadableFileError: The archive is damaged or refused; says why.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _refuse(path, _reason(entries))
            chosen = [
                entry
                for entry in entries
                if not entry.is_dir() and wanted(PurePosixPath(entry.filename))
            ]
            _refuse(path, _reason_of_size(chosen, free_bytes=shutil.disk_usage(target).free))
            for entry in chosen:
                file = target.joinpath(*PurePosixPath(entry.filename).parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, file.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except (
        zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise _unreadable(path, f"a damaged zip archive ({reason})") from None
    except _DECOMPRESSION_ERRORS as error:
        raise _unreadable(path, f"a damaged zip archive ({error})") from None
    return tuple(PurePosixPath(entry.filename) for entry in chosen)


def _decompression_errors() -> tuple[type[Exception], ...]:
    import lzma
    import zlib

    return zlib.error, lzma.LZMAError


_DECOMPRESSION_ERRORS = _decompression_errors()


def _reason(entries: list[zipfile.ZipInfo]) -> str:
    """Return why an archive is refused by what is in it, or nothing."""
    if len(entries) > MAX_ENTRIES:
        return f"{len(entries)} entries, at most {MAX_ENTRIES} are read"
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename.rstrip("/")
        parts = name.split("/")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not all(is_plain_name(part) for part in parts):
            return f"the entry {entry.filename!r}, whose name leads out of the folder"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return f"the entry {entry.filename!r}, which is a link or a device"
        if name.lower() in seen:
            return f"the entry {entry.filename!r} twice"
        if entry.flag_bits & 1:
            return f"the entry {entry.filename!r}, which is encrypted"
        seen.add(name.lower())
    return ""


def _reason_of_size(entries: list[zipfile.ZipInfo], *, free_bytes: int) -> str:
    for entry in entries:
        if entry.file_size > max(2**20, MAX_RATIO * entry.compress_size):
            return (
                f"the entry {entry.filename!r}, {entry.file_size} bytes packed into "
                f"{entry.compress_size}, which no weights are"
            )
        if entry.filename.endswith(".json") and entry.file_size > MAX_JSON_BYTES:
            return f"the entry {entry.filename!r} of {entry.file_size} bytes, as no description has"
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED_BYTES:
        return f"{total / 2**30:.0f} GiB of models, at most {MAX_UNPACKED_BYTES // 2**30} are read"
    if total > free_bytes:
        return f"{total / 2**30:.1f} GiB of models, but {free_bytes / 2**30:.1f} GiB of free space"
    return ""


def _refuse(path: Path, reason: str) -> None:
    if reason:
        raise _unreadable(path, reason)


def _unreadable(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        file=str(path),
        found=found,
        expected="a zip archive of trained models, by sparseunet or nnUNetv2_export_model_to_zip",
        fix="download the file again, or ask who made it",
    )
