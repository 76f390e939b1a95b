"""Voxels and geometry survive reading and writing in every format."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Picture

from sparseunet.data.annotation import Source
from sparseunet.data.geometry import SLICE_SPACING_2D_MM, Geometry
from sparseunet.data.io import (
    count_values,
    read_annotation,
    read_geometry,
    read_image,
    read_label_map,
    write_image,
    write_label_map,
)
from sparseunet.data.labels import LabelSchema
from sparseunet.data.stored import picture_geometry
from sparseunet.errors import DatasetError, RequestError, UnreadableFileError

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
PICTURE_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
SHAPE = (4, 5, 6)
SPACING = (2.5, 0.75, 0.5)  # exact in the single precision of NIfTI headers


def random_labels(shape: tuple[int, ...], *, highest: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, shape).astype(np.uint8)


def grid(direction: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    return Geometry(
        shape=shape,
        spacing_mm=SPACING,
        origin_mm=(-12.5, 40.25, 7.0),
        direction=tuple(float(value) for value in direction.ravel()),
    )


def oblique() -> np.ndarray:
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return rotation


def assert_same_grid(found: Geometry, expected: Geometry, *, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert found.dimensions == expected.dimensions
    for name in ("spacing_mm", "origin_mm", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance)


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
@pytest.mark.parametrize("signs", list(itertools.product((1.0, -1.0), repeat=3)))
def test_the_eight_orientations_come_back_exactly(
    tmp_path: Path, ending: str, signs: tuple[float, ...]
) -> None:
    geometry, labels = grid(np.diag(signs)), random_labels(SHAPE)
    path = tmp_path / f"case{ending}"
    write_label_map(path, labels, geometry)
    found, found_geometry = read_label_map(path)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.uint8
    assert found_geometry == geometry == read_geometry(path)


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_permuted_axes_come_back_exactly(
    tmp_path: Path, ending: str, axes: tuple[int, ...]
) -> None:
    geometry = grid(np.eye(3)[list(axes)])
    path = tmp_path / f"case{ending}"
    write_label_map(path, random_labels(SHAPE), geometry)
    assert read_geometry(path) == geometry


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_an_oblique_direction_comes_back_within_the_precision_of_the_header(
    tmp_path: Path, ending: str
) -> None:
    geometry, path = grid(oblique()), tmp_path / f"case{ending}"
    write_label_map(path, random_labels(SHAPE), geometry)
    tolerance = 1e-6 if "nii" in ending else 1e-12
    assert_same_grid(read_geometry(path), geometry, tolerance=tolerance)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_plane_in_a_volume_format_stays_a_plane(tmp_path: Path, ending: str) -> None:
    geometry = Geometry(
        shape=(1, 5, 6),
        spacing_mm=(999 * 0.75, 0.5, 0.75),
        origin_mm=(3.0, -4.0),
        direction=(1.0, 0.0, 0.0, -1.0),
        dimensions=2,
    )
    labels, path = random_labels((1, 5, 6)), tmp_path / f"case{ending}"
    write_label_map(path, labels, geometry)
    found, found_geometry = read_label_map(path)
    np.testing.assert_array_equal(found, labels)
    assert found_geometry == geometry
    assert SimpleITK.ReadImage(str(path)).GetDimension() == 2


@pytest.mark.parametrize("ending", PICTURE_ENDINGS)
def test_a_picture_comes_back_with_unit_spacing(tmp_path: Path, ending: str) -> None:
    labels, path = random_labels((1, 5, 7)), tmp_path / f"case{ending}"
    geometry = picture_geometry(5, 7)
    write_label_map(path, labels, geometry)
    found, found_geometry = read_label_map(path)
    np.testing.assert_array_equal(found, labels)
    assert found_geometry == geometry == read_geometry(path)
    assert geometry.spacing_mm == (SLICE_SPACING_2D_MM, 1.0, 1.0)


def test_a_png_label_is_8_bit_grey(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.png", random_labels((1, 5, 7)), picture_geometry(5, 7))
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.mode == "L"


@pytest.mark.parametrize("num_slices", [1, 3, 4, 9])
@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_a_tiff_volume_keeps_its_spacing_beside_it(
    tmp_path: Path, ending: str, num_slices: int
) -> None:
    geometry = Geometry(shape=(num_slices, 5, 6), spacing_mm=(2.5, 0.7, 0.3))
    labels, path = random_labels(geometry.shape), tmp_path / f"case{ending}"
    write_label_map(path, labels, geometry)
    found, found_geometry = read_label_map(path)
    np.testing.assert_array_equal(found, labels)
    assert found_geometry == geometry


def test_the_spacing_of_a_tiff_image_stands_in_the_file_named_after_the_case(
    tmp_path: Path,
) -> None:
    voxels = np.random.default_rng(0).normal(size=(7, 5, 6)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a_b_0000.tif", voxels)
    assert read_image([tmp_path / "a_b_0000.tif"]).geometry.spacing_mm == (1.0, 1.0, 1.0)
    (tmp_path / "a_b.json").write_text('{"spacing": [3, 2, 1.5]}')
    image = read_image([tmp_path / "a_b_0000.tif"])
    assert image.geometry.spacing_mm == (3.0, 2.0, 1.5)
    np.testing.assert_array_equal(image.voxels_CZYX[0], voxels)
    (tmp_path / "a_b.json").write_text('{"spacing": [3, 2]}')
    with pytest.raises(DatasetError, match=r"a_b\.json.*spacing"):
        read_image([tmp_path / "a_b_0000.tif"])


@pytest.mark.parametrize("num_slices", [3, 4])
def test_a_voxel_size_tells_few_slices_from_colours(tmp_path: Path, num_slices: int) -> None:
    voxels = random_labels((num_slices, 5, 6))
    path = tmp_path / "a_0000.tif"
    tifffile.imwrite(path, voxels, photometric="rgb", planarconfig="separate")
    assert read_image([path]).voxels_CZYX.shape == (num_slices, 1, 5, 6)
    (tmp_path / "a.json").write_text('{"spacing": [3, 2, 1.5]}')
    np.testing.assert_array_equal(read_image([path]).voxels_CZYX, voxels[None])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int64]),
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.integers(0, 255),
    ),
    spacing=st.tuples(*[st.floats(0.125, 8.0, width=32)] * 3),
    origin=st.tuples(*[st.floats(-512.0, 512.0, width=32)] * 3),
    ending=st.sampled_from(VOLUME_ENDINGS),
)
def test_writing_what_was_read_gives_the_same_bytes(
    tmp_path: Path, labels: np.ndarray, spacing: tuple, origin: tuple, ending: str
) -> None:
    geometry = Geometry(shape=labels.shape, spacing_mm=spacing, origin_mm=origin)
    path = tmp_path / f"case{ending}"
    write_label_map(path, labels, geometry)
    before = path.read_bytes()
    found, found_geometry = read_label_map(path)
    np.testing.assert_array_equal(found, labels)
    assert found_geometry == geometry
    write_label_map(path, found, found_geometry)
    assert path.read_bytes() == before


def test_writing_real_labels_back_changes_neither_voxels_nor_geometry(
    tmp_path: Path, data_root: Path
) -> None:
    for source in sorted((data_root / "Dataset004_Hippocampus" / "labelsTr").glob("*.nii.gz"))[:5]:
        labels, geometry = read_label_map(source)
        write_label_map(tmp_path / "a.nii.gz", labels, geometry)
        again, again_geometry = read_label_map(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(again, labels)
        assert again_geometry == geometry


def test_real_scans_are_read_as_itk_reads_them(data_root: Path) -> None:
    folder = data_root / "Dataset004_Hippocampus" / "imagesTr"
    spleen = data_root / "example_spleen_ct" / "spleen2_0000.nii.gz"
    paths = [*sorted(folder.glob("*.nii.gz"))[:5], spleen]
    for path in paths:
        image, expected = read_image([path]), SimpleITK.ReadImage(str(path))
        np.testing.assert_array_equal(
            image.voxels_CZYX[0], SimpleITK.GetArrayViewFromImage(expected).astype(np.float32)
        )
        assert image.geometry.spacing_mm == expected.GetSpacing()[::-1]
        assert image.geometry.origin_mm == expected.GetOrigin()
        np.testing.assert_allclose(image.geometry.direction, expected.GetDirection(), atol=1e-12)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float64, ">i2", ">f4"])
def test_a_scaling_in_the_header_is_applied_as_itk_does(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, (6, 5, 4)).astype(kind)
    header = nibabel.Nifti1Header(endianness=">" if str(kind).startswith(">") else "<")
    header.set_data_dtype(np.dtype(kind))
    image = nibabel.Nifti1Image(values, np.eye(4), header)
    image.header.set_slope_inter(0.37, -1024.5)
    path = tmp_path / "a_0000.nii"
    image.to_filename(path)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    assert expected.min() < -900
    np.testing.assert_allclose(read_image([path]).voxels_CZYX[0], expected, rtol=1e-6)


def test_images_are_contiguous_writable_float32(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for ending in (*VOLUME_ENDINGS, ".tif"):
        path = tmp_path / f"a_0000{ending}"
        write_image(path, voxels, grid(np.eye(3)))
        found = read_image([path]).voxels_CZYX
        np.testing.assert_array_equal(found[0], voxels)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert found.flags.writeable


def test_channels_are_stacked_in_the_order_given(tmp_path: Path) -> None:
    paths = [tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(3)]
    for value, path in enumerate(paths):
        write_image(path, np.full(SHAPE, value, np.float32), grid(np.eye(3)))
    found = read_image(paths).voxels_CZYX
    assert found.shape == (3, *SHAPE)
    assert found[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]


def test_every_channel_on_another_grid_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(3)]
    for num_slices, path in zip((4, 5, 6), paths, strict=True):
        shape = (num_slices, 5, 6)
        write_image(path, np.zeros(shape, np.float32), grid(np.eye(3), shape))
    with pytest.raises(DatasetError) as caught:
        read_image(paths)
    text = str(caught.value)
    assert "a_0001.nii.gz" in text
    assert "(5, 5, 6)" in text
    assert "a_0002.nii.gz" in text
    assert "(6, 5, 6)" in text


@pytest.mark.parametrize(("mode", "num_channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colours_become_channels(tmp_path: Path, mode: str, num_channels: int, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, num_channels)).astype(np.uint8)
    path = tmp_path / f"a_0000{ending}"
    Picture.fromarray(pixels[:, :, 0] if num_channels == 1 else pixels, mode).save(path)
    found = read_image([path])
    np.testing.assert_array_equal(found.voxels_CZYX[:, 0], np.moveaxis(pixels, -1, 0))
    assert found.geometry == picture_geometry(5, 7)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_16_bit_pictures_keep_their_values(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    image = SimpleITK.GetImageFromArray(pixels, isVector=len(shape) == 3)
    SimpleITK.WriteImage(image, str(tmp_path / "a_0000.png"))
    found = read_image([tmp_path / "a_0000.png"]).voxels_CZYX[:, 0]
    np.testing.assert_array_equal(found, np.moveaxis(pixels.reshape(5, 7, -1), -1, 0))


def test_a_grey_bmp_has_one_channel(tmp_path: Path) -> None:
    pixels = random_labels((5, 7), highest=255)
    Picture.fromarray(pixels).save(tmp_path / "a_0000.bmp")
    np.testing.assert_array_equal(read_image([tmp_path / "a_0000.bmp"]).voxels_CZYX[0, 0], pixels)


def test_a_palette_is_colour_in_scans_and_indices_in_labels(tmp_path: Path) -> None:
    labels = random_labels((5, 7))
    picture = Picture.fromarray(labels).convert("P")
    picture.putdata(labels.ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png")[0][0], labels)
    assert len(read_image([tmp_path / "a.png"]).voxels_CZYX) == 3


@pytest.mark.parametrize("num_bits", [1, 2, 4])
def test_labels_in_few_bits_are_not_spread(tmp_path: Path, num_bits: int) -> None:
    labels = random_labels((5, 8), highest=2**num_bits - 1)
    path = tmp_path / "a.png"
    if num_bits == 1:
        Picture.fromarray(labels.astype(bool)).save(path)
    else:
        path.write_bytes(few_bit_png(labels, num_bits))
    np.testing.assert_array_equal(read_label_map(path)[0][0], labels)


def few_bit_png(pixels_YX: np.ndarray, num_bits: int) -> bytes:
    """Return a grey PNG with 2 or 4 bits per pixel, which Pillow does not write."""
    import struct
    import zlib

    per_byte = 8 // num_bits
    shifts = np.arange(per_byte - 1, -1, -1) * num_bits
    packed = (pixels_YX.reshape(len(pixels_YX), -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    height, width = pixels_YX.shape
    head = struct.pack(">IIBBBBB", width, height, num_bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_labels_above_255_are_16_bit(tmp_path: Path) -> None:
    labels = np.full(SHAPE, 300, np.int64)
    for name in ("a.nii.gz", "a.mha"):
        write_label_map(tmp_path / name, labels, grid(np.eye(3)))
        found, _ = read_label_map(tmp_path / name)
        assert found.dtype == np.uint16
        assert (found == 300).all()


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    volume = Geometry(shape=SHAPE, spacing_mm=SPACING)
    with pytest.raises(RequestError, match="4 slices"):
        write_label_map(tmp_path / "a.png", random_labels(SHAPE), volume)
    with pytest.raises(RequestError, match="whole numbers"):
        write_image(tmp_path / "a.png", np.full((1, 2, 2), 0.5), picture_geometry(2, 2))
    with pytest.raises(ValueError, match="same grid"):
        write_label_map(tmp_path / "a.nii.gz", random_labels((1, 2, 3)), volume)
    with pytest.raises(ValueError, match="-1"):
        write_label_map(tmp_path / "a.nii.gz", np.full(SHAPE, -1), volume)
    with pytest.raises(UnreadableFileError, match=r"\.jpg"):
        write_label_map(tmp_path / "a.jpg", random_labels(SHAPE), volume)
    assert not list(tmp_path.iterdir())


def test_a_fourth_axis_of_one_volume_does_not_count(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 4, 1)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a_0000.nii.gz")
    image = read_image([tmp_path / "a_0000.nii.gz"])
    np.testing.assert_array_equal(image.voxels_CZYX[0], values[..., 0].T)
    assert image.geometry.dimensions == 3


def test_voxels_of_the_ignore_value_are_unannotated(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1], labels[2] = 1, 2
    write_label_map(tmp_path / "a.nii.gz", labels, grid(np.eye(3)))
    schema = LabelSchema(classes={"background": 0, "organ": 1}, regions={}, ignore=2)
    annotation, geometry = read_annotation(tmp_path / "a.nii.gz", schema)
    assert geometry == grid(np.eye(3))
    assert (annotation.source_ZYX[2] == Source.NONE).all()
    assert (annotation.source_ZYX[[0, 1, 3]] == Source.MANUAL).all()
    assert annotation.labels_ZYX.max() == 1
    dense = LabelSchema(classes={"background": 0, "organ": 1}, regions={})
    with pytest.raises(UnreadableFileError, match="30 voxels of value 2"):
        read_annotation(tmp_path / "a.nii.gz", dense)


def test_values_are_counted_whatever_the_size() -> None:
    labels = np.zeros((3, 1500, 1000), np.uint16)
    labels[2, :2, :5], labels[0, 0, 0] = 65535, 3
    assert count_values(labels) == {0: 4_499_989, 3: 1, 65535: 10}
