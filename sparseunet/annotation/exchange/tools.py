"""The tools people draw in: how each one's files are written and what it shows of a slice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseunet.annotation.exchange.classes import DrawnClass
from sparseunet.annotation.exchange.itksnap import write_label_description
from sparseunet.annotation.exchange.mitk import write_multilabel
from sparseunet.annotation.exchange.napari import write_class_table
from sparseunet.annotation.exchange.placement import slice_geometry
from sparseunet.annotation.exchange.slicer import write_segmentation
from sparseunet.annotation.exchange.views import slice_offset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """How label files are written for one annotation tool."""

    label_ending: str
    """Ending of the label files, with the dot."""
    write_labels: Callable[[Path, np.ndarray, Geometry, Sequence[DrawnClass]], None]
    write_legend: Callable[[Path, Sequence[DrawnClass]], None] | None
    """Writes names and colours into the export folder, for tools whose label files hold none."""
    shown_as: Callable[[Geometry, int, int], str]
    """(geometry, axis, index) to what the tool shows of a slice."""
    slice_grid: Callable[[Geometry, int, int], Geometry]
    """(geometry, axis, index) to the grid a single slice is written on; its voxels in the order of
    the file have this shape."""
    opens_2d: bool = True
    images_as_tiff: bool = False
    """Whether images are converted, because the tool opens no medical formats by itself."""


def _write_plain(
    path: Path, labels_ZYX: np.ndarray, geometry: Geometry, classes: Sequence[DrawnClass]
) -> None:
    del classes
    write_label_map(path, labels_ZYX, geometry)


def _index(geometry: Geometry, axis: int, index: int) -> str:
    del geometry, axis
    return str(index)


def _index_from_one(geometry: Geometry, axis: int, index: int) -> str:
    return _index(geometry, axis, index + 1)


def _offset(geometry: Geometry, axis: int, index: int) -> str:
    return slice_offset(geometry, axis=axis, index=index)


def _slice_in_patient(geometry: Geometry, axis: int, index: int) -> Geometry:
    return slice_geometry(geometry, axis=axis, index=index)


def _flat_slice(geometry: Geometry, axis: int, index: int) -> Geometry:
    """Return the slice as a volume of one plane, because TIFF cannot say how it lies."""
    del index
    order = [axis, *(other for other in range(3) if other != axis)]
    shape = [1, *(geometry.shape[other] for other in order[1:])]
    spacing_mm = [geometry.spacing_mm[other] for other in order]
    return Geometry(
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=(spacing_mm[0], spacing_mm[1], spacing_mm[2]),
    )


TOOLS = {
    "itksnap": Tool(
        label_ending=".nii.gz",
        write_labels=_write_plain,
        write_legend=write_label_description,
        shown_as=_index_from_one,
        slice_grid=_slice_in_patient,
    ),
    "slicer": Tool(
        label_ending=".seg.nrrd",
        write_labels=write_segmentation,
        write_legend=None,
        shown_as=_offset,
        slice_grid=_slice_in_patient,
        opens_2d=False,
    ),
    "mitk": Tool(
        label_ending=".nrrd",
        write_labels=write_multilabel,
        write_legend=None,
        shown_as=_index,
        slice_grid=_slice_in_patient,
        opens_2d=False,
    ),
    "napari": Tool(
        label_ending=".tif",
        write_labels=_write_plain,
        write_legend=write_class_table,
        shown_as=_index,
        slice_grid=_flat_slice,
        images_as_tiff=True,
    ),
    "nifti": Tool(
        label_ending=".nii.gz",
        write_labels=_write_plain,
        write_legend=write_class_table,
        shown_as=_index,
        slice_grid=_slice_in_patient,
    ),
}
"""Name on the command line to tool."""
