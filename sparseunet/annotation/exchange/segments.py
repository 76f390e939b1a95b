"""Read drawings that name their classes: 3D Slicer's `.seg.nrrd` and MITK's multilabel `.nrrd`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.annotation.exchange.classes import DrawnClass, values_by_name
from sparseunet.data.itk import StoredLayers
from sparseunet.data.stored import unreadable
from sparseunet.errors import DatasetError

MITK_GROUPS = "org.mitk.multilabel.segmentation.labelgroups"
_SEGMENT_KEY = re.compile(r"Segment(\d+)_(\w+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One drawn thing: the voxels of one layer that hold one value."""

    name: str
    value: int
    layer: int


def find_segments(path: Path, stored: StoredLayers) -> list[Segment] | None:
    """Return the segments that a header declares, or None for a file that names no classes.

    Raises:
        UnreadableFileError: The header declares them in a way that cannot be understood.
    """
    try:
        if MITK_GROUPS in stored.metadata:
            return _mitk_segments(stored)
        return _slicer_segments(stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(
            path,
            found=f"segments that are not declared as they should be ({error!r})",
            expected="what 3D Slicer or MITK writes",
            fix="save the segmentation again in the tool",
        ) from error


def paint_segments(
    path: Path,
    stored: StoredLayers,
    segments: Sequence[Segment],
    classes: Sequence[DrawnClass],
    *,
    others: Mapping[str, int],
) -> np.ndarray:
    """Return one label map with the dataset's values, on the grid of the file.

    Segments without voxels may have any name, and classes may be missing: tools add and drop both.

    Raises:
        DatasetError: Segments that are no class, values that are no segment, or voxels in two
            classes at once; all of them.
    """
    value_of = values_by_name([each.name for each in segments], classes, others=others)
    known = ", ".join(each.name for each in classes)
    errors = _undeclared(path, stored, segments)
    highest = max([*(each.value for each in classes), *others.values()])
    labels_ZYX = np.zeros(stored.geometry.shape, np.uint8 if highest < 256 else np.uint16)
    num_twice = 0
    for segment in segments:
        if segment.layer >= len(stored.voxels_LZYX):
            continue  # an empty segment of a layer that was not written
        mask_ZYX = stored.voxels_LZYX[segment.layer] == segment.value
        num_voxels = int(np.count_nonzero(mask_ZYX))
        if num_voxels and segment.name not in value_of:
            found = f"{num_voxels} voxels in a segment called {segment.name!r}"
            fix = "rename the segment in the tool, or delete it"
            errors.append(unreadable(path, found=found, expected=f"one of {known}", fix=fix))
        elif num_voxels:
            before = labels_ZYX[mask_ZYX]
            num_twice += int(np.count_nonzero((before != 0) & (before != value_of[segment.name])))
            labels_ZYX[mask_ZYX] = value_of[segment.name]
    if num_twice:
        errors.append(
            unreadable(
                path,
                found=f"{num_twice} voxels in two classes at once",
                expected="one class per voxel",
                fix="erase one of them in the tool; masking 'outside all segments' prevents it",
            )
        )
    if errors:
        raise DatasetError([problem for error in errors for problem in error.problems])
    return labels_ZYX


def _undeclared(
    path: Path, stored: StoredLayers, segments: Sequence[Segment]
) -> list[DatasetError]:
    errors: list[DatasetError] = []
    for layer, voxels_ZYX in enumerate(stored.voxels_LZYX):
        declared = {segment.value for segment in segments if segment.layer == layer}
        extra = sorted(set(np.unique(voxels_ZYX).tolist()) - declared - {0})
        if extra:
            errors.append(
                unreadable(
                    path,
                    found=f"voxels of the values {', '.join(map(str, extra))} without a segment",
                    expected="a segment for every value",
                    fix="save the segmentation again in the tool it was drawn in",
                )
            )
    return errors


def _slicer_segments(stored: StoredLayers) -> list[Segment] | None:
    fields: dict[int, dict[str, str]] = {}
    for key, text in stored.metadata.items():
        match = _SEGMENT_KEY.fullmatch(key)
        if match:
            fields.setdefault(int(match[1]), {})[match[2]] = text
    if not fields and not any(key.startswith("Segmentation_") for key in stored.metadata):
        return None
    is_layered = len(stored.voxels_LZYX) > 1
    return [  # before Slicer 4.11 every segment had a layer of its own and the value 1
        Segment(
            name=each.get("Name") or each["ID"],
            value=int(each.get("LabelValue", 1)),
            layer=int(each.get("Layer", number if is_layered else 0)),
        )
        for number, each in sorted(fields.items())
    ]


def _mitk_segments(stored: StoredLayers) -> list[Segment]:
    groups = json.loads(stored.metadata[MITK_GROUPS])
    is_layered = len(stored.voxels_LZYX) > 1
    return [
        Segment(name=label["name"], value=int(label["value"]), layer=number if is_layered else 0)
        for number, group in enumerate(groups)
        for label in group.get("labels") or []
    ]
