"""What was found and measured in one case, kept so that an unchanged case is not read again."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sparseunet.artifacts import atomic_path, parse, to_json
from sparseunet.data.check import Findings
from sparseunet.data.density import LabelDensity
from sparseunet.errors import RequestError
from sparseunet.fingerprint.measure import Measurement, Sample

_REGIONS = ("foreground", "body")
_RECORD = "record"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaseRecord:
    """One case of a dataset."""

    input_hash: str
    """SHA-256 of the files and of what the dataset says about them; "" if a file is missing."""
    findings: Findings
    measurement: Measurement | None
    """None for a case that cannot be used, like the density."""
    density: LabelDensity | None


def write_record(folder: Path, case_name: str, record: CaseRecord) -> None:
    """Write one record, whole or not at all. The same record gives the same bytes."""
    arrays: dict[str, np.ndarray] = {}
    if record.measurement is not None:
        for region in _REGIONS:
            samples = getattr(record.measurement, region)
            arrays |= {f"{region}_{at}": sample.values for at, sample in enumerate(samples)}
    plain = np.frombuffer(to_json(_without_values(record), indent=None).encode(), np.uint8)
    with atomic_path(_file(folder, case_name)) as temporary:
        np.savez_compressed(temporary, **{_RECORD: plain}, **arrays)  # type: ignore[arg-type]


def read_record(folder: Path, case_name: str, *, input_hash: str) -> CaseRecord | None:
    """Return the record of one case if it is of exactly this input, else None."""
    try:
        content = _file(folder, case_name).read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            plain = json.loads(stored[_RECORD].tobytes())
            arrays = {key: stored[key] for key in stored.files if key != _RECORD}
        if plain["input_hash"] != input_hash:
            return None
        return _with_values(plain, arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, RequestError):
        return None  # absent, cut off or of another version: the case is looked at again


def remove_other_records(folder: Path, case_names: set[str]) -> None:
    """Remove the records of cases that are gone."""
    for path in folder.glob("*.npz"):
        if path.stem not in case_names:
            path.unlink()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plain:
    input_hash: str
    findings: Findings
    measurement: dict[str, Any] | None
    density: LabelDensity | None


def _without_values(record: CaseRecord) -> _Plain:
    measurement = None
    if record.measurement is not None:
        measurement = asdict(record.measurement)
        for sample in (*measurement["foreground"], *measurement["body"]):
            del sample["values"]
    return _Plain(
        input_hash=record.input_hash,
        findings=record.findings,
        measurement=measurement,
        density=record.density,
    )


def _with_values(plain: Any, arrays: dict[str, np.ndarray]) -> CaseRecord:
    checked = parse(_Plain, plain, source="a record")
    measurement = None
    if checked.measurement is not None:
        content = dict(checked.measurement)
        for region in _REGIONS:
            content[region] = tuple(
                Sample(**(sample | {"values": arrays[f"{region}_{at}"]}))
                for at, sample in enumerate(content[region])
            )
        for key in ("spacing_mm", "shape_after_crop"):
            content[key] = tuple(content[key])
        measurement = Measurement(**content)
    return CaseRecord(
        input_hash=checked.input_hash,
        findings=checked.findings,
        measurement=measurement,
        density=checked.density,
    )


def _file(folder: Path, case_name: str) -> Path:
    return folder / f"{case_name}.npz"
