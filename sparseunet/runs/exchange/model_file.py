"""One file that holds one trained model of ours, and its manifest."""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sparseunet.artifacts import atomic_path, hash_file, read_artifact, to_json
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.workspace import MANIFEST_JSON

MANIFEST_KIND = "sparseunet.model"
MANIFEST_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFile:
    """One file in the archive."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a model file says about itself; `manifest.json`, the first entry of the archive."""

    model: str
    """Folder of the run within the archive, `CONFIGURATION/RUN`."""
    dataset_name: str
    configuration: str
    run_id: str
    folds: list[int | str]
    licence: str | None
    """What the dataset's description or the exporter says; None if nobody did."""
    description: str | None
    reference: str | None
    """Where the training data comes from."""
    training_data: dict[str, Any]
    """Cases per fold, and how densely they were annotated, where that is known."""
    scores: dict[str, Any]
    """By fold the mean metrics of its validation cases; empty if none was validated."""
    versions: dict[str, str]
    """Of what trained the model."""
    exported_with: str
    files: dict[str, PackedFile]
    """Every other file in the archive."""


def write_model_file(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write one archive of a manifest and files; the same content gives the same bytes.

    Raises:
        RequestError: The file exists already.
    """
    if path.exists():
        raise RequestError(f"{path} exists already and is not overwritten; choose another name.")
    content = {"kind": MANIFEST_KIND, "version": MANIFEST_VERSION, **asdict(manifest)}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_entry(MANIFEST_JSON), to_json(content))
        for name in sorted(files):
            size = files[name].stat().st_size
            with (
                files[name].open("rb") as source,
                archive.open(_entry(name), "w", force_zip64=size >= 2**31) as sink,
            ):
                while chunk := source.read(2**20):
                    sink.write(chunk)


def pack(files: Mapping[str, Path]) -> dict[str, PackedFile]:
    """Return size and SHA-256 of files by their name in the archive."""
    return {
        name: PackedFile(sha256=hash_file(path), bytes=path.stat().st_size)
        for name, path in sorted(files.items())
    }


def read_manifest(folder: Path, *, origin: Path) -> Manifest:
    """Read the manifest of an unpacked model file and check every file against it.

    Args:
        folder: Where the archive was unpacked.
        origin: The archive, for messages.

    Raises:
        RequestError: The manifest is not one.
        UnreadableFileError: A file is missing, is not in the manifest, or has other content.
    """
    manifest = read_artifact(
        Manifest, folder / MANIFEST_JSON, kind=MANIFEST_KIND, version=MANIFEST_VERSION
    )
    there = {
        str(PurePosixPath(path.relative_to(folder))): path
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST_JSON
    }
    wrong = [
        *(f"{name} is missing" for name in manifest.files if name not in there),
        *(f"{name} is not in the manifest" for name in there if name not in manifest.files),
        *(
            f"{name} has another SHA-256 than its manifest says"
            for name in there.keys() & manifest.files.keys()
            if hash_file(there[name]) != manifest.files[name].sha256
        ),
    ]
    if wrong:
        raise UnreadableFileError(
            file=str(origin),
            found="; ".join(sorted(wrong)[:5]),
            expected="the files that its manifest lists, unchanged",
            fix="copy or download the file again",
        )
    return manifest


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry without a date; weights do not compress, so nothing is compressed."""
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.external_attr = 0o100644 << 16
    return entry
