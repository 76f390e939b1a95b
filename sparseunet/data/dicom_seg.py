"""Segmentations as DICOM SEG that refer to the series they were made of, through highdicom.

What a file holds follows from the labels, the series, the class names and the algorithm alone, its
UIDs and dates too: the same input gives the same bytes, and no UID ever stands for two contents.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.artifacts import atomic_path
from sparseunet.data.colours import label_colour
from sparseunet.data.dicom import files_of_series
from sparseunet.data.labels import LabelSchema
from sparseunet.data.stored import unreadable
from sparseunet.errors import RequestError

_NAME = "sparseunet"
_UTF_8 = "ISO_IR 192"
_LONGEST_LABEL = 64
_FIRST_SERIES_NUMBER = 1000
"""Added to the number of the series, so that segmentations stand behind all images of a study."""
_PLACEHOLDER = "2.25.1"
_NO_DATE = ("19000101", "000000")
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
"""Which must be in every file, if empty; de-identification often removes them altogether."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """Description of the algorithm in a DICOM SEG."""

    version: str
    """Version of this package."""
    serial_number: str
    """What tells this model from others, such as a hash of its weights; at most 64 letters."""
    parameters: Mapping[str, str]
    """Anything else worth knowing, such as the name of the run."""


def require_highdicom() -> None:
    """Refuse where the packages that write DICOM are not installed.

    Raises:
        RequestError: Says how to install them.
    """
    _import("highdicom")


def check_dicom_seg(series: Path, labels: LabelSchema, algorithm: Algorithm) -> None:
    """Make a DICOM SEG of the first slice in memory: not every series that is read can be named.

    Raises:
        UnreadableFileError: `write_dicom_seg` would raise it; names the folder and the reason.
    """
    sources = _read_headers(series, at_most=1)
    labels_ZYX = np.zeros((1, sources[0].Rows, sources[0].Columns), np.uint8)
    _make(series, sources, labels_ZYX, labels, algorithm)


def write_dicom_seg(
    path: Path, labels_ZYX: np.ndarray, *, series: Path, labels: LabelSchema, algorithm: Algorithm
) -> None:
    """Write a label map as one binary segment per class, or per region; those may overlap.

    Segments are numbered from 1 in the order of `labels` and carry the names of the classes.
    Planes in which a segment is empty are left out, unless all are. The file appears whole or not
    at all.

    Args:
        path: Of the file.
        labels_ZYX: On the grid of the series, as `read_dicom` returns it.
        series: Folder of the one series that was segmented; patient, study and frame of reference
            are taken from it, and each plane refers to its slice.
        labels: What the values mean.
        algorithm: What segmented it.

    Raises:
        UnreadableFileError: The headers of the series lack what a DICOM SEG refers to.
        RequestError: highdicom is not installed.
    """
    sources = _read_headers(series)
    dataset = _make(series, sources, labels_ZYX, labels, algorithm)
    _set_dates(dataset, sources[0])
    _set_uids(dataset, sources, labels_ZYX)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary)


def _read_headers(series: Path, *, at_most: int | None = None) -> list[Any]:
    """Return the headers of slices in the order of the voxels; the first one stands for all."""
    pydicom = _import("pydicom")
    headers = [
        pydicom.dcmread(file, stop_before_pixels=True, force=True)
        for file in files_of_series(series)[:at_most]
    ]
    for keyword in _MAY_BE_EMPTY:
        if keyword not in headers[0]:
            setattr(headers[0], keyword, "")
    headers[0].pop("SpacingBetweenSlices", None)  # often wrong; positions tell
    return headers


def _make(
    series: Path,
    sources: list[Any],
    labels_ZYX: np.ndarray,
    labels: LabelSchema,
    algorithm: Algorithm,
) -> Any:
    """Return the DICOM SEG object, with placeholders instead of dates and UIDs.

    Raises:
        UnreadableFileError: The headers of the source series lack what DICOM SEG needs.
    """
    seg = _import("highdicom.seg")
    number = max(0, int(sources[0].get("SeriesNumber") or 0))
    try:
        return seg.Segmentation(
            source_images=sources,
            pixel_array=_number_segments(labels_ZYX, labels),
            segmentation_type="BINARY",
            segment_descriptions=_describe_segments(labels, algorithm),
            omit_empty_frames=bool(labels_ZYX.any()),
            series_instance_uid=_PLACEHOLDER,
            series_number=_FIRST_SERIES_NUMBER + number,
            sop_instance_uid=_PLACEHOLDER,
            instance_number=1,
            manufacturer=_NAME,
            manufacturer_model_name=_NAME,
            software_versions=algorithm.version,
            device_serial_number=algorithm.serial_number,
            specific_character_set=_UTF_8,
            series_description=f"Segmentation by {_NAME}",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise unreadable(
            series,
            found=f"a series that no DICOM SEG can refer to ({error})",
            expected="headers as the DICOM standard demands them",
            fix="correct the headers, or do without DICOM SEG",
        ) from error


def _number_segments(labels_ZYX: np.ndarray, labels: LabelSchema) -> np.ndarray:
    """Return the number of the segment of every voxel, or where they overlap bools (Z, Y, X, K)."""
    segments = list(labels.foreground.values())
    members = [value for values in segments for value in values]
    highest = max(*members, int(labels_ZYX.max()))
    if len(set(members)) < len(members):
        is_inside = np.zeros((len(segments), highest + 1), bool)
        for row, values in zip(is_inside, segments, strict=True):
            row[list(values)] = True
        return np.moveaxis(np.stack([row[labels_ZYX] for row in is_inside]), 0, -1)
    numbers = np.zeros(highest + 1, np.uint8 if len(segments) < 256 else np.uint16)
    for number, values in enumerate(segments, start=1):
        numbers[list(values)] = number
    return numbers[labels_ZYX]


def _describe_segments(labels: LabelSchema, algorithm: Algorithm) -> list[Any]:
    highdicom = _import("highdicom")
    codes = _import("pydicom.sr.codedict").codes
    identification = highdicom.AlgorithmIdentificationSequence(
        name=_NAME,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        parameters=dict(algorithm.parameters),
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name.replace("\\", "/")[:_LONGEST_LABEL],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=identification,
            display_color=highdicom.color.CIELabColor.from_rgb(*label_colour(number)),
        )
        for number, name in enumerate(labels.foreground, start=1)
    ]


def _set_dates(dataset: Any, source: Any) -> None:
    """Take the dates of the series in place of those of the moment."""
    kinds = ("Content", "Acquisition", "Series", "Study")
    found = ((source.get(f"{kind}Date"), source.get(f"{kind}Time")) for kind in kinds)
    date, time = next((pair for pair in found if pair[0]), _NO_DATE)
    dataset.ContentDate, dataset.ContentTime = date, time or _NO_DATE[1]
    del dataset.InstanceCreationDate, dataset.InstanceCreationTime
    del dataset.ContributingEquipmentSequence[-1].ContributionDateTime  # highdicom's own


def _set_uids(dataset: Any, sources: list[Any], labels_ZYX: np.ndarray) -> None:
    """Derive the UIDs of file, series and dimensions from everything that decides the rest of it.

    Planes and their pixels, which are slow to write, follow from the labels and the slices.
    """
    dimensions = [*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence]
    for item in dimensions:
        item.DimensionOrganizationUID = _PLACEHOLDER
    planes = [dataset.pop(name) for name in ("PerFrameFunctionalGroupsSequence", "PixelData")]
    header = BytesIO()
    dataset.save_as(header)
    for element in planes:
        dataset.add(element)
    content = sha256(header.getbuffer())
    content.update(" ".join(source.SOPInstanceUID for source in sources).encode())
    content.update(np.ascontiguousarray(labels_ZYX).data)
    digest = content.hexdigest()

    def derive(what: str) -> str:  # a UUID as UID: DICOM PS3.5 B.2
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{digest} {what}').int}"

    for item in dimensions:
        item.DimensionOrganizationUID = derive("dimensions")
    dataset.SeriesInstanceUID = derive("series")
    dataset.SOPInstanceUID = derive("instance")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RequestError(
            f"DICOM SEG needs {error.name}, which is not installed here ({error}). Install it "
            'with: pip install "sparseunet[dicom]"'
        ) from None
