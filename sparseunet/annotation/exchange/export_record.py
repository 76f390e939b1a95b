"""What was handed out to annotators: the content of `export.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparseunet.artifacts import read_artifact, write_json
from sparseunet.data.geometry import Geometry
from sparseunet.workspace import EXPORT_JSON

_KIND = "annotation_export"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedFile:
    """One label file that was handed out."""

    file: str
    """Path in the export folder."""
    axis: int | None = None
    """With `index`, if the file holds that one slice only; else None."""
    index: int | None = None
    handed_out: str | None = None
    """Path of a copy of the label map as it was handed out, or None if it was empty."""
    handed_out_hash: str | None = None
    """SHA-256 of that copy of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedCase:
    """The files of one case."""

    geometry: Geometry
    """Grid of the scan."""
    files: tuple[ExportedFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRecord:
    """The exported files, the plan they belong to and the tool they are made for."""

    dataset: str
    tool: str
    """Key of `tools.TOOLS`."""
    plan_hash: str
    """Hash of the content of the annotation plan."""
    labels: Mapping[str, int]
    """Name to value in the label files."""
    prefilled_from: str | None = None
    """Folder of the predictions that were handed out, or None."""
    prefill_hash: str | None = None
    """Hash over all predictions with which label files were filled; None without any."""
    cases: Mapping[str, ExportedCase]


def write_export_record(folder: Path, record: ExportRecord) -> None:
    """Write `export.json` into the export folder."""
    content = {
        "kind": _KIND,
        "version": _VERSION,
        "dataset": record.dataset,
        "tool": record.tool,
        "plan_hash": record.plan_hash,
        "labels": dict(record.labels),
        "prefilled_from": record.prefilled_from,
        "prefill_hash": record.prefill_hash,
        "cases": dict(record.cases),
    }
    write_json(folder / EXPORT_JSON, content)


def read_export_record(folder: Path) -> ExportRecord | None:
    """Read `export.json`, or return None for a folder without.

    Raises:
        RequestError: It is of another kind or a newer version, or fields are wrong.
    """
    path = folder / EXPORT_JSON
    if not path.is_file():
        return None
    return read_artifact(ExportRecord, path, kind=_KIND, version=_VERSION)
