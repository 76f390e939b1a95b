"""What a person gives to be segmented: folders, files and DICOM series, as scans."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseunet.data.dataset import Case
from sparseunet.data.dicom import has_dicom
from sparseunet.data.formats import FORMATS
from sparseunet.data.load import find_scans
from sparseunet.errors import DatasetError, RequestError


def find_inputs(paths: Sequence[Path], *, dataset_json: Mapping[str, Any]) -> list[Case]:
    """Return the scans of all folders and files that were given: one rule for what a scan is.

    A folder holds scans CASE_0000.ext (one file per channel), or DICOM series, or is a series. A
    file without channel number is a scan by itself.

    Args:
        paths: Folders and files.
        dataset_json: Description of the training dataset: ending and channels of its files.

    Raises:
        RequestError: A path does not exist, a folder holds no scans, or a name is not understood.
    """
    ending = str(dataset_json["file_ending"])
    num_channels = max(1, len(_channel_names(dataset_json)))
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise RequestError(f"No such file or folder: {', '.join(absent)}.")
    scans: list[Case] = []
    series: list[Path] = []
    for folder in (path for path in paths if path.is_dir()):
        if found := _dicom_folders(folder, ending):
            series += found
            continue
        try:
            scans.extend(find_scans(folder, file_ending=ending, num_channels=num_channels))
        except DatasetError as error:
            raise RequestError(f"{folder}:\n{error}\n{_explain_names(dataset_json)}") from None
    return scans + _group_files(
        [*(path for path in paths if not path.is_dir()), *series], dataset_json
    )


def _dicom_folders(folder: Path, file_ending: str) -> list[Path]:
    """Return the folder itself or those in it, whichever hold DICOM; none beside other scans."""
    there = sorted(folder.iterdir())
    if any(path.name.endswith(file_ending) for path in there):
        return []
    return [folder] if has_dicom(folder) else [path for path in there if has_dicom(path)]


def _group_files(files: Sequence[Path], dataset_json: Mapping[str, Any]) -> list[Case]:
    """Return the scans that files, or folders of DICOM series, make up.

    One without channel number is a scan by itself.
    """
    endings = sorted({dataset_json["file_ending"], *FORMATS}, key=len, reverse=True)
    channels: dict[tuple[Path, str], dict[int, Path]] = {}
    for file in files:
        ending = next((ending for ending in endings if file.name.lower().endswith(ending)), None)
        if ending is None and file.is_dir():
            ending = ""
        if ending is None:
            raise RequestError(
                f"{file} is in no format that can be read. {_explain_names(dataset_json)}"
            )
        name = file.name or file.resolve().name  # of the current folder
        stem = name[: len(name) - len(ending)]
        match = re.fullmatch(r"(?P<case>.+)_(?P<channel>\d{4})", stem, re.DOTALL)
        name, channel = (match["case"], int(match["channel"])) if match else (stem, 0)
        channels.setdefault((file.parent, name), {})[channel] = file
    for (_, name), found in channels.items():
        if sorted(found) != list(range(len(found))):
            numbers = ", ".join(f"{number:04d}" for number in sorted(found))
            raise RequestError(
                f"Scan {name} was given with the channels {numbers}. {_explain_names(dataset_json)}"
            )
    return [
        Case(name=name, images=tuple(path for _, path in sorted(found.items())), label=None)
        for (_, name), found in channels.items()
    ]


def _explain_names(dataset_json: Mapping[str, Any]) -> str:
    ending = dataset_json["file_ending"]
    channels = ", ".join(
        f"CASE_{index:04d}{ending} ({name})"
        for index, name in enumerate(_channel_names(dataset_json))
    )
    return f"Expected for every scan: {channels}."


def _channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    names = dataset_json.get("channel_names") or dataset_json.get("modality") or {}
    return [str(name) for name in names.values()]
