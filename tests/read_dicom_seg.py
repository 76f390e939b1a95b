"""DICOM SEG files as another program sees them: through highdicom and pydicom, not through ours."""

from collections.abc import Mapping
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom


def segments_on_grid_of(nifti: Path, dicom_seg: Path) -> dict[str, np.ndarray]:
    """Return by name which voxels (x, y, z) of a NIfTI file the segments of a DICOM SEG cover.

    Both are placed by their own headers, in the patient's coordinates.
    """
    seg = highdicom.seg.segread(dicom_seg)
    image = nibabel.load(nifti)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI counts to the right and to the front
    volume = seg.get_volume()
    between = np.linalg.inv(to_lps @ image.affine) @ volume.affine
    found = {}
    for number in seg.segment_numbers:
        inside = np.argwhere(volume.array[..., number - 1])
        places = inside @ between[:3, :3].T + between[:3, 3]
        nearest = np.rint(places).astype(int)
        assert np.abs(places - nearest).max(initial=0) < 1e-3, "between the voxels of the NIfTI"
        mask = np.zeros(image.shape, bool)
        mask[tuple(nearest.T)] = True
        found[seg.get_segment_description(number).segment_label] = mask
    return found


def assert_same_voxels(nifti: Path, dicom_seg: Path, classes: Mapping[str, tuple[int, ...]]) -> int:
    """Compare both files voxel for voxel in the patient; return how many voxels are labelled.

    `classes` gives the label values that each segment stands for.
    """
    segments = segments_on_grid_of(nifti, dicom_seg)
    labels_XYZ = np.asarray(nibabel.load(nifti).dataobj)
    assert list(segments) == list(classes)
    for name, values in classes.items():
        assert np.array_equal(segments[name], np.isin(labels_XYZ, values)), name
    return int(np.count_nonzero(labels_XYZ))


def assert_planes_refer_to_their_slices(dicom_seg: Path, series: Path) -> None:
    """Every plane of a DICOM SEG refers to one slice of the series, and lies where that lies."""
    slices = {
        header.SOPInstanceUID: header for header in map(pydicom.dcmread, sorted(series.iterdir()))
    }
    seg = pydicom.dcmread(dicom_seg)
    (referenced,) = seg.ReferencedSeriesSequence
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert {slice_.get(name) for slice_ in slices.values()} == {seg.get(name)}
    assert {slice_.SeriesInstanceUID for slice_ in slices.values()} == {
        referenced.SeriesInstanceUID
    }
    shared = seg.SharedFunctionalGroupsSequence[0]
    for plane in seg.PerFrameFunctionalGroupsSequence:
        (source,) = plane.DerivationImageSequence[0].SourceImageSequence
        slice_ = slices[source.ReferencedSOPInstanceUID]
        place = plane.PlanePositionSequence[0].ImagePositionPatient
        assert list(place) == list(slice_.ImagePositionPatient)
        turned = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert list(turned) == list(slice_.ImageOrientationPatient)
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == list(slice_.PixelSpacing)
