"""A DICOM SEG holds the label map where it lies in the patient, and tells what it was made of."""

import sys

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from read_dicom_seg import assert_planes_refer_to_their_slices, assert_same_voxels

from sparseunet.data.dicom_seg import (
    Algorithm,
    check_dicom_seg,
    require_highdicom,
    write_dicom_seg,
)
from sparseunet.data.io import read_geometry, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError, UnreadableFileError

SHAPE = (7, 10, 12)
SPACING = (2.5, 0.7, 0.8)
AXIAL = np.eye(3)
CORONAL = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
OBLIQUE = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
"""Turned about all three axes."""
CLASSES = LabelSchema(classes={"background": 0, "liver": 1, "spleen": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0},
    regions={"whole tumour": (1, 2), "core": (2,)},
    regions_class_order=(1, 2),
)
ALGORITHM = Algorithm(version="1.2.3", serial_number="f00d", parameters={"run": "a run"})


def _labels():
    """One asymmetric object of each class; the first slice and the last two are empty."""
    labels_ZYX = np.zeros(SHAPE, np.uint8)
    labels_ZYX[1:4, 2:5, 1:9] = 1
    labels_ZYX[3, 6, 2] = 1
    labels_ZYX[2:5, 5:9, 7:11] = 2
    return labels_ZYX


def _series(folder, *, direction=AXIAL, headers=None):
    """Write a series, and change headers of all of its files (None removes one)."""
    write_series(folder, np.zeros(SHAPE), spacing_mm=SPACING, direction=direction.ravel())
    for file in folder.iterdir() if headers else ():
        dataset = pydicom.dcmread(file)
        for name, value in headers.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(file)
    return folder


def _write(path, series, *, labels_ZYX=None, labels=CLASSES, algorithm=ALGORITHM):
    labels_ZYX = _labels() if labels_ZYX is None else labels_ZYX
    write_dicom_seg(path, labels_ZYX, series=series, labels=labels, algorithm=algorithm)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("slices", [1, -1], ids=["ascending", "descending"])
@pytest.mark.parametrize(
    "direction", [AXIAL, CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"]
)
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_segments_lie_where_the_same_labels_lie_as_nifti(tmp_path, direction, slices, labels):
    series = _series(tmp_path / "series", direction=direction * (1, 1, slices))
    write_label_map(tmp_path / "labels.nii.gz", _labels(), read_geometry(series))
    _write(tmp_path / "labels.dcm", series, labels=labels)
    files = (tmp_path / "labels.nii.gz", tmp_path / "labels.dcm")
    assert assert_same_voxels(*files, labels.foreground) == np.count_nonzero(_labels())
    assert_planes_refer_to_their_slices(tmp_path / "labels.dcm", series)


def test_the_distance_of_slices_is_measured_not_repeated(tmp_path):
    series = _series(tmp_path / "series", headers={"SpacingBetweenSlices": -1})
    seg = _write(tmp_path / "labels.dcm", series)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == 2.5


def test_one_slice_is_enough(tmp_path):
    write_series(tmp_path / "series", np.zeros((1, 10, 12)), spacing_mm=SPACING)
    _write(tmp_path / "labels.dcm", tmp_path / "series", labels_ZYX=_labels()[3:4])
    stored_ZYX = highdicom.seg.segread(tmp_path / "labels.dcm").get_volume(combine_segments=True)
    assert np.array_equal(stored_ZYX.array, _labels()[3:4])


def test_it_says_what_was_segmented_by_what(tmp_path):
    names = {"SeriesNumber": 7, "PatientID": "p1", "StudyDate": "20240229", "StudyTime": "1030"}
    seg = _write(tmp_path / "labels.dcm", _series(tmp_path / "series", headers=names))
    assert (seg.Modality, seg.SegmentationType, seg.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    assert (seg.PatientID, seg.SeriesNumber) == ("p1", 1007)
    assert (seg.Manufacturer, seg.SoftwareVersions) == ("sparseunet", "1.2.3")
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["liver", "spleen"]
    for segment in seg.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("sparseunet", "1.2.3")
        assert algorithm.AlgorithmParameters == "run=a run"
    colours = [tuple(segment.RecommendedDisplayCIELabValue) for segment in seg.SegmentSequence]
    assert len(set(colours)) == 2


def test_overlapping_regions_are_whole_segments(tmp_path):
    seg = _write(tmp_path / "labels.dcm", _series(tmp_path / "series"), labels=REGIONS)
    assert seg.SegmentsOverlap == "YES"
    sizes = highdicom.seg.segread(tmp_path / "labels.dcm").get_volume().array.sum(axis=(0, 1, 2))
    assert sizes.tolist() == [(_labels() > 0).sum(), (_labels() == 2).sum()]


def test_the_same_input_gives_the_same_bytes_and_another_one_other_uids(tmp_path):
    series = _series(tmp_path / "series")
    first = _write(tmp_path / "first.dcm", series)
    _write(tmp_path / "again.dcm", series)
    assert (tmp_path / "first.dcm").read_bytes() == (tmp_path / "again.dcm").read_bytes()
    higher_ZYX = np.roll(_labels(), 1, axis=0)  # the same planes, one slice further
    others = [
        _write(tmp_path / "higher.dcm", series, labels_ZYX=higher_ZYX),
        _write(
            tmp_path / "model.dcm",
            series,
            algorithm=Algorithm(version="1.2.3", serial_number="f00d", parameters={"run": "b"}),
        ),
    ]
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = {seg.get(name) for seg in (first, *others)}
        assert len(uids) == 3
        assert all(uid.is_valid for uid in uids)
    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID


def test_dates_are_those_of_the_scan(tmp_path):
    headers = {"ContentDate": "20240301", "ContentTime": "1030", "StudyDate": "20240229"}
    seg = _write(tmp_path / "labels.dcm", _series(tmp_path / "series", headers=headers))
    assert (seg.ContentDate, seg.ContentTime, seg.StudyDate) == ("20240301", "1030", "20240229")
    assert "InstanceCreationDate" not in seg


def test_names_in_any_script_are_kept_and_long_ones_cut(tmp_path):
    headers = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Änne"}
    classes = {"background": 0, "Läsion": 1, "海馬\\" + "x" * 100: 2}
    labels = LabelSchema(classes=classes, regions={})
    series = _series(tmp_path / "series", headers=headers)
    seg = _write(tmp_path / "labels.dcm", series, labels=labels)
    assert str(seg.PatientName) == "Müller^Änne"
    first, second = (segment.SegmentLabel for segment in seg.SegmentSequence)
    assert first == "Läsion"
    assert second == "海馬/" + "x" * 61


def test_a_scan_in_which_nothing_was_found_has_all_segments_and_no_voxel(tmp_path):
    empty_ZYX = np.zeros(SHAPE, np.uint8)
    seg = _write(tmp_path / "labels.dcm", _series(tmp_path / "series"), labels_ZYX=empty_ZYX)
    assert len(seg.SegmentSequence) == 2
    assert not seg.pixel_array.any()


def test_headers_that_deidentification_removed_are_left_empty(tmp_path):
    gone = dict.fromkeys(
        ("PatientID", "PatientName", "PatientSex", "StudyID", "StudyDate", "StudyTime")
    )
    series = _series(tmp_path / "series", headers=gone)
    check_dicom_seg(series, CLASSES, ALGORITHM)
    seg = _write(tmp_path / "labels.dcm", series)
    assert not seg.PatientID
    assert seg.ContentDate == "19000101"


def test_a_series_that_cannot_be_referred_to_is_refused_before_anything_is_written(tmp_path):
    series = _series(tmp_path / "series", headers={"FrameOfReferenceUID": None})
    with pytest.raises(UnreadableFileError, match="Frame Of Reference") as caught:
        check_dicom_seg(series, CLASSES, ALGORITHM)
    assert str(series) in str(caught.value)
    with pytest.raises(UnreadableFileError, match="Frame Of Reference"):
        _write(tmp_path / "labels.dcm", series)
    assert not list(tmp_path.glob("*.dcm"))


def test_a_missing_package_is_answered_with_how_to_install_it(monkeypatch):
    require_highdicom()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(RequestError, match=r'needs highdicom.*pip install "sparseunet\[dicom\]"'):
        require_highdicom()
