"""However a scan lies in its files, its segmentation lies on the same grid, and left stays left.

The network is a real one whose weights make it a threshold: the dark object is class 1, the bright
one class 2.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from dicom_series import write_series
from read_dicom_seg import assert_planes_refer_to_their_slices, assert_same_voxels
from scipy import ndimage
from threshold_network import make_threshold

from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, read_label_map, write_image
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.runs.load import load_trained_model

SHAPE = (20, 28, 24)
SPACING_MM = (1.2, 1.0, 0.9)
OBLIQUE = np.array([[0.64, -0.6, 0.48], [0.48, 0.8, 0.36], [-0.6, 0.0, 0.8]])
"""Turned about two axes, so that no axis of the file is one of the world."""
FLOAT32 = 2.0**-24
"""Relative error of a decimal number of DICOM in a header of NIfTI."""
QUICK = PredictionOptions(device="cpu", precision="float32", num_workers=1, mirror=False)
EIGHT = list(itertools.product([False, True], repeat=3))


def _phantom():
    """A dark object on the right (low x) and a bright one on the left, both asymmetric."""
    labels_ZYX = np.zeros(SHAPE, np.uint8)
    labels_ZYX[4:9, 6:14, 2:8] = 1
    labels_ZYX[4:6, 14:20, 2:4] = 1
    labels_ZYX[11:17, 15:22, 16:21] = 2
    return labels_ZYX


def _intensities(labels_ZYX):
    """10 in the body, 0 outside it, which preprocessing crops away, unevenly."""
    voxels_ZYX = np.zeros(SHAPE)
    voxels_ZYX[3:19, 2:26, 1:23] = 10
    return voxels_ZYX + 100.0 * labels_ZYX


def _turned(array_ZYX, flips, order):
    """The array as it lies in a file whose axes are permuted and point the other way."""
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)
    return np.ascontiguousarray(np.flip(array_ZYX, axes).transpose(order))


def _geometry(flips, order, cosines):
    """Of that file, so that every voxel keeps its place in the world."""
    origin_mm = np.array([-30.0, 12.5, 100.0])
    columns = []
    for axis in order:
        world = 2 - axis
        column = cosines[:, world]
        if flips[axis]:
            origin_mm = origin_mm + column * SPACING_MM[axis] * (SHAPE[axis] - 1)
            column = -column
        columns.append(column)
    return Geometry(
        shape=tuple(SHAPE[axis] for axis in order),
        spacing_mm=tuple(SPACING_MM[axis] for axis in order),
        origin_mm=tuple(origin_mm.tolist()),
        direction=tuple(np.column_stack(columns[::-1]).ravel().tolist()),
    )


def _centers_mm(labels_ZYX, geometry):
    """Where the two objects are in the world, (x, y, z).

    The rim of the bright object, where voxels are half bright, has the class of the dark one; it is
    a component of its own.
    """
    cosines = np.array(geometry.direction).reshape(3, 3)
    found = []
    for value in (1, 2):
        parts_ZYX, _ = ndimage.label(labels_ZYX == value)
        largest = np.bincount(parts_ZYX.ravel())[1:].argmax() + 1
        center_xyz = np.argwhere(parts_ZYX == largest).mean(axis=0)[::-1]
        step = np.array(geometry.spacing_mm[::-1])
        found.append(np.array(geometry.origin_mm) + cosines @ (center_xyz * step))
    return np.array(found)


def _assert_same_grid(geometry, given, *, relative=0.0):
    assert geometry.shape == given.shape
    for field in ("spacing_mm", "origin_mm", "direction"):  # NIfTI holds them in float32
        expected = pytest.approx(getattr(given, field), rel=relative, abs=1e-6)
        assert getattr(geometry, field) == expected


@pytest.fixture
def model(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    make_threshold(run, one=1.3, two=4.6)
    return load_trained_model(run, [0])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["axial", "sagittal"])
@pytest.mark.parametrize("cosines", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_eight_orientations_come_back_where_they_were(model, tmp_path, order, cosines):
    labels_ZYX = _phantom()
    scans = []
    for flips in EIGHT:
        name = "".join("xo"[flip] for flip in flips)
        path = tmp_path / "in" / f"{name}_0000.nii.gz"
        turned_ZYX = _turned(_intensities(labels_ZYX), flips, order)
        write_image(path, turned_ZYX, _geometry(flips, order, cosines))
        scans.append(Case(name=name, images=(path,), label=None))
    files = predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=QUICK)
    expected_mm = _centers_mm(labels_ZYX, _geometry((False,) * 3, (0, 1, 2), cosines))
    assert expected_mm[0, 0] < expected_mm[1, 0]
    for flips, scan, file in zip(EIGHT, scans, files, strict=True):
        found_ZYX, geometry = read_label_map(file)
        _assert_same_grid(geometry, read_geometry(scan.images[0]))
        truth_ZYX = _turned(labels_ZYX, flips, order)
        for value in (1, 2):
            both = 2 * ((found_ZYX == value) & (truth_ZYX == value)).sum()
            dice = both / ((found_ZYX == value).sum() + (truth_ZYX == value).sum())
            assert dice > 0.85, scan.name
        np.testing.assert_allclose(_centers_mm(found_ZYX, geometry), expected_mm, atol=0.5)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["axial", "sagittal"])
@pytest.mark.parametrize("cosines", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_series_of_dicom_come_back_as_nifti_and_as_dicom_seg(model, tmp_path, order, cosines):
    scans = []
    for flips in EIGHT:
        name = "".join("xo"[flip] for flip in flips)
        turned_ZYX = _turned(_intensities(_phantom()), flips, order)
        geometry = _geometry(flips, order, cosines)
        write_series(
            tmp_path / "in" / name,
            turned_ZYX,
            spacing_mm=geometry.spacing_mm,
            direction=geometry.direction,
            origin_mm=geometry.origin_mm,
        )
        scans.append(Case(name=name, images=(tmp_path / "in" / name,), label=None))
    options = replace(QUICK, dicom_seg=True)
    files = predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=options)
    expected_mm = _centers_mm(_phantom(), _geometry((False,) * 3, (0, 1, 2), cosines))
    for scan, file in zip(scans, files, strict=True):
        found_ZYX, geometry = read_label_map(file)
        _assert_same_grid(geometry, read_geometry(scan.images[0]), relative=FLOAT32)
        np.testing.assert_allclose(_centers_mm(found_ZYX, geometry), expected_mm, atol=0.5)
        dicom_seg = tmp_path / "out" / f"{scan.name}.dcm"
        num_voxels = assert_same_voxels(file, dicom_seg, model.labels.foreground)
        assert num_voxels > 0.8 * np.count_nonzero(_phantom())
        assert_planes_refer_to_their_slices(dicom_seg, scan.images[0])
