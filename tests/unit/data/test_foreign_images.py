"""Images of SimpleITK and nibabel are taken as if their file had been read."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from sparseunet.data.foreign import image_of
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_image, write_image
from sparseunet.errors import RequestError

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def scan(tmp_path):
    voxels_CZYX = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    geometry = Geometry(
        shape=(3, 4, 5), spacing_mm=(3.0, 0.5, 0.7), origin_mm=(10.0, -4.0, 2.5), direction=TURNED
    )
    path = tmp_path / "a.nii.gz"
    write_image(path, voxels_CZYX[0], geometry)
    return path


def assert_same(found, expected):
    assert np.array_equal(found.voxels_CZYX, expected.voxels_CZYX)
    assert found.voxels_CZYX.dtype == np.float32
    assert found.geometry.shape == expected.geometry.shape
    for name in ("spacing_mm", "origin_mm", "direction"):
        one, other = (getattr(each.geometry, name) for each in (found, expected))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_itk_image_is_what_reading_its_file_gives(scan):
    assert_same(image_of(SimpleITK.ReadImage(str(scan))), read_image([scan]))


def test_a_nibabel_image_is_what_reading_its_file_gives(scan):
    assert_same(image_of(nibabel.load(scan)), read_image([scan]))


def test_components_of_an_itk_image_are_channels():
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5, 2), np.float32), isVector=True)
    assert image_of(image).voxels_CZYX.shape == (2, 3, 4, 5)


def test_a_plane_has_one_slice():
    image = SimpleITK.GetImageFromArray(np.zeros((4, 5), np.uint8))
    found = image_of(image)
    assert found.voxels_CZYX.shape == (1, 1, 4, 5)
    assert found.geometry.dimensions == 2


def test_what_is_no_image_is_refused_with_what_would_be():
    with pytest.raises(RequestError, match=r"Found a builtins.str; expected an array"):
        image_of("scan.nii.gz")


def test_sheared_and_infinite_images_are_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.5
    with pytest.raises(RequestError, match="sheared"):
        image_of(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), affine))
    with pytest.raises(RequestError, match="NaN or infinity"):
        image_of(nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)))
