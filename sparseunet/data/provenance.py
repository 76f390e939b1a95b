"""Who labelled a voxel and how reliable that is, as volumes beside the label files.

A raw dataset may hold `provenanceTr/CASE.ext` with a `Source` per voxel and `confidenceTr/CASE.ext`
with whole percents, both on the grid of the label file. Without them a person drew all labels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_annotation, read_label_map, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.stored import unreadable
from sparseunet.errors import DatasetError, Severity

_PERCENT = 100


def read_case_annotation(case: Case, labels: LabelSchema) -> tuple[Annotation, Geometry]:
    """Read the labels of a case, who drew them, and the confidence in them.

    Raises:
        UnreadableFileError: One of the files is damaged or holds other values than it may.
        DatasetError: They do not lie on one grid.
    """
    assert case.label is not None
    annotation, geometry = read_annotation(case.label, labels)
    return add_provenance(annotation, geometry, case), geometry


def add_provenance(annotation: Annotation, geometry: Geometry, case: Case) -> Annotation:
    """Return the annotation with sources and confidence as the files beside the labels say.

    Where the label file holds the ignore value, or the provenance 0, nothing is annotated.

    Raises:
        UnreadableFileError: A file is damaged or holds other values than it may.
        DatasetError: A file lies on another grid.
    """
    if case.provenance is not None:
        source_ZYX = read_sources(
            case.provenance, geometry, case=case.name, reference_file=_name_of_label(case)
        )
        source_ZYX = np.where(annotation.annotated_ZYX, source_ZYX, Source.NONE).astype(np.uint8)
        labels_ZYX = np.where(source_ZYX != Source.NONE, annotation.labels_ZYX, 0)
        annotation = replace(
            annotation,
            labels_ZYX=labels_ZYX.astype(annotation.labels_ZYX.dtype),
            source_ZYX=source_ZYX,
        )
    if case.confidence is not None:
        percent_ZYX = _read_percent(case.confidence, geometry, case)
        confidence_ZYX = percent_ZYX.astype(np.float32) / np.float32(_PERCENT)
        confidence_ZYX[annotation.source_ZYX == Source.MANUAL] = 1
        annotation = replace(annotation, confidence_ZYX=confidence_ZYX)
    return annotation


def write_provenance(
    annotation: Annotation, geometry: Geometry, *, provenance: Path, confidence: Path
) -> None:
    """Write who labelled each voxel and the confidence in percent, 0 where nothing is annotated."""
    write_label_map(provenance, annotation.source_ZYX, geometry)
    percent_ZYX = np.where(annotation.annotated_ZYX, np.uint8(_PERCENT), np.uint8(0))
    if annotation.confidence_ZYX is not None:
        scaled_ZYX = np.rint(annotation.confidence_ZYX * np.float32(_PERCENT))
        np.copyto(percent_ZYX, scaled_ZYX, where=annotation.annotated_ZYX, casting="unsafe")
    write_label_map(confidence, percent_ZYX, geometry)


def manual_only(annotation: Annotation) -> Annotation:
    """Return the annotation with only what a person drew."""
    manual_ZYX = annotation.source_ZYX == Source.MANUAL
    return Annotation(
        labels_ZYX=np.where(manual_ZYX, annotation.labels_ZYX, 0).astype(
            annotation.labels_ZYX.dtype
        ),
        source_ZYX=np.where(manual_ZYX, Source.MANUAL, Source.NONE).astype(np.uint8),
    )


def read_sources(path: Path, geometry: Geometry, *, case: str, reference_file: str) -> np.ndarray:
    """Read who labelled each voxel of a label file.

    Args:
        path: A file with a `Source` per voxel.
        geometry: Of the label file.
        case: For messages.
        reference_file: What messages call the label file.

    Raises:
        DatasetError: The file is damaged, on another grid or holds other values.
    """
    values_ZYX = _read_on_grid(path, geometry, case=case, reference_file=reference_file)
    _require_at_most(max(Source), values_ZYX, path, "sources of annotation")
    return values_ZYX


def _read_percent(path: Path, geometry: Geometry, case: Case) -> np.ndarray:
    values_ZYX = _read_on_grid(path, geometry, case=case.name, reference_file=_name_of_label(case))
    _require_at_most(_PERCENT, values_ZYX, path, "whole percents")
    return values_ZYX


def _read_on_grid(path: Path, geometry: Geometry, *, case: str, reference_file: str) -> np.ndarray:
    values_ZYX, own_geometry = read_label_map(path)
    problems = compare_grids(
        own_geometry, geometry, case=case, file=str(path), reference_file=reference_file
    )
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise DatasetError(problems)
    return values_ZYX


def _require_at_most(highest: int, values_ZYX: np.ndarray, path: Path, what: str) -> None:
    if values_ZYX.max() > highest:
        raise unreadable(
            path,
            found=f"values up to {values_ZYX.max()}",
            expected=f"{what}, 0 to {int(highest)}",
            fix="write the file again with the command that made it, or remove its folder",
        )


def _name_of_label(case: Case) -> str:
    return case.label.name if case.label else ""
