"""Files that are cut off, damaged or not what they should be are never read as something else."""

import logging
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, read_image, read_label_map, write_image
from sparseunet.data.stored import picture_geometry
from sparseunet.errors import DatasetError, UnreadableFileError

SHAPE = (9, 20, 30)
VOLUME = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5))


def noise(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write_volume(path: Path, *, compressed: bool = True) -> Path:
    image = SimpleITK.GetImageFromArray(noise())
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


def write_pages(path: Path, **options: object) -> Path:
    tifffile.imwrite(path, noise(), **options)
    return path


def write_pixels(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 48)).astype(np.float32)
    write_image(path, pixels, picture_geometry(64, 48))
    return path


WRITERS = {
    "nii.gz": lambda folder: write_volume(folder / "a_0000.nii.gz"),
    "nii": lambda folder: write_volume(folder / "a_0000.nii"),
    "nrrd, gzip": lambda folder: write_volume(folder / "a_0000.nrrd"),
    "nrrd, raw": lambda folder: write_volume(folder / "a_0000.nrrd", compressed=False),
    "mha, zlib": lambda folder: write_volume(folder / "a_0000.mha"),
    "mha, raw": lambda folder: write_volume(folder / "a_0000.mha", compressed=False),
    "png": lambda folder: write_pixels(folder / "a_0000.png"),
    "bmp": lambda folder: write_pixels(folder / "a_0000.bmp"),
    "tif, one plane": lambda folder: write_pixels(folder / "a_0000.tif"),
    "tif, written by ITK": lambda folder: write_volume(folder / "a_0000.tif"),
    "tif, contiguous": lambda folder: write_pages(folder / "a_0000.tif"),
    "tif, zlib": lambda folder: write_pages(folder / "a_0000.tif", compression="zlib"),
    "tif, ImageJ": lambda folder: write_pages(folder / "a_0000.tif", imagej=True),
    "tif, big": lambda folder: write_pages(folder / "a_0000.tif", bigtiff=True),
    "tif, page by page": lambda folder: write_pages(
        folder / "a_0000.tif", contiguous=False, metadata=None
    ),
}

END_WITH_PADDING = ("tif, contiguous", "tif, ImageJ", "tif, page by page", "tif, big")


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_cut_off_file_is_named(tmp_path: Path, kind: str, keep: float) -> None:
    path = WRITERS[kind](tmp_path)
    whole = path.read_bytes()
    assert read_image([path]).voxels_CZYX.size > 0
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UnreadableFileError, match="a_0000"):
        read_image([path])


@pytest.mark.parametrize("num_lost", [1, 2, 5, 12, 40, 200])
@pytest.mark.parametrize("kind", WRITERS)
def test_few_lost_bytes_are_noticed_unless_no_voxel_needs_them(
    tmp_path: Path, kind: str, num_lost: int
) -> None:
    path = WRITERS[kind](tmp_path)
    expected = read_image([path]).voxels_CZYX
    path.write_bytes(path.read_bytes()[:-num_lost])
    if kind in END_WITH_PADDING:
        with suppress(UnreadableFileError):
            np.testing.assert_array_equal(read_image([path]).voxels_CZYX, expected)
        return
    with pytest.raises(UnreadableFileError, match="a_0000"):
        read_image([path])


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_off_second_file_of_mhd_is_named(tmp_path: Path, compressed: bool) -> None:
    path = write_volume(tmp_path / "a_0000.mhd", compressed=compressed)
    voxels = tmp_path / ("a_0000.zraw" if compressed else "a_0000.raw")
    voxels.write_bytes(voxels.read_bytes()[:-3])
    with pytest.raises(UnreadableFileError, match="a_0000"):
        read_image([path])


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha", "mhd", "png", "bmp", "tif"])
@pytest.mark.parametrize("content", [b"", b"not an image at all" * 50, b"\x1f\x8b" + b"no" * 300])
def test_files_without_an_image_are_named(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    for read in (read_label_map, read_geometry):
        with pytest.raises(UnreadableFileError, match=rf"a\.{ending}") as caught:
            read(path)
        assert content or "0 bytes" in str(caught.value)


def test_a_damaged_byte_in_a_compressed_nifti_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a_0000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((30, 30, 30), np.uint8), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="CRC"):
        read_image([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no such file"):
        read_image([tmp_path / "a_0000.nii.gz"])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
def test_nan_and_infinity_are_counted(tmp_path: Path, ending: str) -> None:
    voxels, path = noise(), tmp_path / f"a_0000{ending}"
    voxels[1, 2, 3:8] = np.nan
    voxels[2, 2, 2], voxels[2, 2, 3] = np.inf, -np.inf
    write_image(path, voxels, VOLUME)
    if "nii" in ending:  # ITK writes them, but reads them as 0
        assert np.isfinite(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))).all()
    with pytest.raises(DatasetError, match="5 NaN and 2 infinite voxels of 5400"):
        read_image([path])


def test_numbers_too_large_for_single_precision_are_counted(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4))
    values[0, 0, 0] = 1e300
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a_0000.nii.gz")
    with pytest.raises(DatasetError, match="1 infinite"):
        read_image([tmp_path / "a_0000.nii.gz"])


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_four_axes_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a_0000{ending}"
    SimpleITK.WriteImage(SimpleITK.Image([5, 6, 7, 2], SimpleITK.sitkFloat32), str(path))
    for read in (read_label_map, read_geometry):
        with pytest.raises(UnreadableFileError, match="CASE_0001"):
            read(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_several_values_per_voxel_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a_0000{ending}"
    SimpleITK.WriteImage(SimpleITK.Image([5, 6, 7], SimpleITK.sitkVectorFloat32, 3), str(path))
    with pytest.raises(UnreadableFileError, match="CASE_0001"):
        read_image([path])


def save_labels(path: Path, values: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def test_almost_whole_labels_are_rounded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.array([0.0, 0.9999999, 1.0000001, 2.0]).reshape(4, 1, 1)
    with caplog.at_level(logging.WARNING):
        labels, _ = read_label_map(save_labels(tmp_path / "a.nii.gz", values))
    assert labels.ravel().tolist() == [0, 1, 1, 2]
    assert "0.9999999, 1.0000001" in caplog.text


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint16])
def test_whole_labels_of_any_type_are_read_without_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type
) -> None:
    values = np.array([0, 1, 2, 1], kind).reshape(4, 1, 1)
    labels, _ = read_label_map(save_labels(tmp_path / "a.nii.gz", values))
    assert labels.dtype == np.uint8
    assert labels.ravel().tolist() == [0, 1, 2, 1]
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 0.5, 1.002, 1.0], "2 voxels with values like 0.5, 1.002"),
        ([0.0, np.nan, 1.0, 1.0], "1 NaN"),
        ([0, -1, -1, 2], "2 voxels with negative values: -1"),
        ([0, 1, 2, 70000], "70000"),
    ],
)
def test_wrong_labels_are_refused_with_their_values(
    tmp_path: Path, values: list[float], found: str
) -> None:
    kind = np.float64 if isinstance(values[0], float) else np.int32
    path = save_labels(tmp_path / "a.nii.gz", np.array(values, kind).reshape(4, 1, 1))
    with pytest.raises(UnreadableFileError, match=found):
        read_label_map(path)


def test_a_label_in_colour_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(UnreadableFileError, match="3 channels"):
        read_label_map(tmp_path / "a.tif")


def test_sheared_axes_are_replaced_by_the_nearest_at_right_angles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    affine = np.array([[1, 0.2, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(noise((4, 5, 6)), None)
    image.header.set_sform(affine, code=1)
    image.header.set_zooms((1.0, 1.0198039, 2.0))
    nibabel.save(image, tmp_path / "a_0000.nii.gz")
    found = read_image([tmp_path / "a_0000.nii.gz"])
    np.testing.assert_array_equal(found.voxels_CZYX[0], np.asarray(image.dataobj).T)
    cosines = np.reshape(found.geometry.direction, (3, 3))
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.geometry.spacing_mm, (2.0, 1.0198039, 1.0), rtol=1e-6)
    np.testing.assert_allclose(found.geometry.origin_mm, (-5.0, -6.0, 7.0))
    assert "78.6901" in caplog.text


def test_a_negative_voxel_size_counts_by_its_absolute_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = nibabel.Nifti1Image(noise((4, 5, 6)), np.diag([-0.5, 1.0, 2.0, 1.0]))
    path = tmp_path / "a_0000.nii"
    nibabel.save(image, path)
    expected = read_geometry(path)
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(-0.5).tobytes()  # pixdim[1]
    path.write_bytes(content)
    assert read_image([path]).geometry == expected
    assert "negative voxel size" in caplog.text


@pytest.mark.parametrize(("axes", "named"), [((0, 1, 2), "x, y, z"), ((2,), "z")])
def test_a_header_without_voxel_size_is_told_with_the_size_that_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, axes: tuple[int, ...], named: str
) -> None:
    path = tmp_path / "a_0000.nii"
    nibabel.save(nibabel.Nifti1Image(noise((4, 5, 6)), np.diag([0.5, 0.5, 3.0, 1.0])), path)
    assert read_image([path]).geometry.spacing_mm == (3.0, 0.5, 0.5)
    assert "no voxel size" not in caplog.text
    content = bytearray(path.read_bytes())
    for axis in axes:
        content[80 + 4 * axis : 84 + 4 * axis] = np.float32(0).tobytes()
    content[252:256] = bytes(4)  # no qform, no sform
    path.write_bytes(content)
    used = read_image([path]).geometry.spacing_mm
    assert f"no voxel size along {named} " in caplog.text
    assert ", ".join(str(used[2 - axis]) for axis in axes) + " mm is used" in caplog.text
