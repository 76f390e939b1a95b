"""A folder with one DICOM series is a scan; anything else in it is refused with what was found."""

import numpy as np
import pytest
import SimpleITK
from dicom_series import write_series

from sparseunet.data.dicom import has_dicom
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, read_image, write_image
from sparseunet.errors import RequestError, UnreadableFileError

SPACING = (2.5, 0.7, 0.8)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)


def _voxels():
    return np.random.default_rng(0).integers(-1000, 2000, (6, 9, 11)).astype(np.int16)


@pytest.mark.parametrize("direction", [IDENTITY, OBLIQUE, CORONAL])
def test_a_series_is_read_in_hounsfield_units_where_it_lies(tmp_path, direction):
    voxels_ZYX = _voxels()
    write_series(tmp_path, voxels_ZYX, spacing_mm=SPACING, direction=direction)
    image = read_image([tmp_path])
    assert np.array_equal(image.voxels_CZYX[0], voxels_ZYX)
    assert image.geometry == read_geometry(tmp_path)
    assert image.geometry.spacing_mm == pytest.approx(SPACING)
    assert image.geometry.direction == pytest.approx(direction, abs=1e-6)
    assert image.geometry.origin_mm == pytest.approx((-10.0, 20.0, 5.0))
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    itk = SimpleITK.ReadImage(files)
    assert image.geometry.direction == pytest.approx(itk.GetDirection(), abs=1e-6)
    assert image.geometry.origin_mm == pytest.approx(itk.GetOrigin())


def test_several_series_in_a_folder_are_listed_and_refused(tmp_path):
    write_series(tmp_path, _voxels(), spacing_mm=SPACING, name="arterial")
    write_series(tmp_path, _voxels()[:4], spacing_mm=SPACING, name="venous", number=2)
    with pytest.raises(UnreadableFileError, match="2 DICOM series") as caught:
        read_image([tmp_path])
    assert "'arterial' (6 files" in str(caught.value)
    assert "'venous' (4 files" in str(caught.value)


def test_a_missing_slice_is_refused(tmp_path):
    write_series(tmp_path, _voxels(), spacing_mm=SPACING)
    next(tmp_path.glob("*_002.dcm")).unlink()  # the third of six
    with pytest.raises(UnreadableFileError, match=r"2\.5, 5 mm apart"):
        read_image([tmp_path])


def test_folders_without_dicom_are_none(tmp_path):
    assert not has_dicom(tmp_path)
    assert not has_dicom(tmp_path / "absent")
    geometry = Geometry(shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 1.0))
    write_image(tmp_path / "scan.nii.gz", np.zeros((2, 3, 4)), geometry)
    assert not has_dicom(tmp_path)
    with pytest.raises(UnreadableFileError, match="without DICOM"):
        read_image([tmp_path])
    with pytest.raises(RequestError, match="read only"):
        write_image(tmp_path, np.zeros((2, 3, 4)), geometry)
