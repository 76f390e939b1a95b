import numpy as np
import pytest
from phantoms import box, intensities, sphere
from PIL import Image

from sparseunet.data.colours import LABEL_COLOURS, label_colour
from sparseunet.report.overlay import (
    OverlayRow,
    draw_slice_overlay,
    paint_labels,
    stretch_intensities,
)

LABELS_YX = sphere((40, 30), radius_mm=9).astype(np.uint8)
IMAGE_YX = intensities(LABELS_YX, seed=0)


def _pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def _count(pixels: np.ndarray, colour) -> int:
    return int((np.abs(pixels - np.array(colour)).max(axis=-1) < 12).sum())


def test_a_row_shows_every_overlay_in_the_colours_of_its_labels(tmp_path):
    path = tmp_path / "slices.png"
    shown = {"first": LABELS_YX, "second": 2 * LABELS_YX, "none": None}
    row = OverlayRow(title="case\nslice 3", image_YX=IMAGE_YX, overlays=shown, is_annotated=True)

    draw_slice_overlay(path, [row], class_names={1: "anterior", 2: "posterior"}, title="Phantom")

    pixels = _pixels(path)
    legend_square = 16 * 16
    assert _count(pixels, label_colour(1)) > legend_square + 200
    assert _count(pixels, label_colour(2)) > legend_square + 200
    assert _count(pixels, label_colour(3)) == 0


def test_columns_are_the_captions_of_all_rows(tmp_path):
    rows = [
        OverlayRow(title=caption, image_YX=IMAGE_YX, overlays={caption: LABELS_YX})
        for caption in ("reference", "prediction")
    ]
    draw_slice_overlay(tmp_path / "one.png", rows[:1])
    draw_slice_overlay(tmp_path / "two.png", rows)

    one, two = _pixels(tmp_path / "one.png"), _pixels(tmp_path / "two.png")

    assert two.shape[1] > one.shape[1]
    assert two.shape[0] > one.shape[0]


def test_pictures_have_the_proportions_of_the_patient(tmp_path):
    widths = []
    for name, spacing_mm in (("square", (1.0, 1.0)), ("wide", (1.0, 2.0))):
        row = OverlayRow(
            title="", image_YX=IMAGE_YX, overlays={"a": LABELS_YX}, spacing_mm=spacing_mm
        )
        draw_slice_overlay(tmp_path / f"{name}.png", [row])
        widths.append(_pixels(tmp_path / f"{name}.png").shape[1])

    assert widths[1] - widths[0] == 2 * (330 - 165)


def test_an_image_of_one_value_and_many_classes_can_be_drawn(tmp_path):
    labels_YX = np.arange(400, dtype=np.uint16).reshape(20, 20)
    row = OverlayRow(title="x" * 80, image_YX=np.zeros((20, 20)), overlays={"y" * 80: labels_YX})

    draw_slice_overlay(tmp_path / "slices.png", [row])

    assert _pixels(tmp_path / "slices.png").size > 0


def test_a_label_is_a_contour_around_a_tint_and_leaves_the_rest_alone():
    image_YX = np.full((20, 20), 100, np.uint8)
    mask_YX = box((20, 20), start=(5, 5), stop=(15, 15))

    painted = paint_labels(image_YX, mask_YX.astype(np.uint8), contour_pixels=2)

    inner = box((20, 20), start=(7, 7), stop=(13, 13))
    assert (painted[~mask_YX] == 100).all()
    assert (painted[mask_YX & ~inner] == LABEL_COLOURS[0]).all()
    tint = painted[inner]
    assert (tint == tint[0]).all()
    assert not (tint[0] == 100).all()


def test_intensities_are_stretched_from_black_to_white_whatever_the_outliers():
    image_YX = np.linspace(-5, 5, 10_000).reshape(100, 100)
    image_YX[0, 0], image_YX[-1, -1] = -1e9, 1e9

    stretched = stretch_intensities(image_YX)

    assert stretched.dtype == np.uint8
    assert int(stretched[50, 50]) == pytest.approx(128, abs=2)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_neighbouring_labels_have_different_colours_and_colours_repeat():
    assert len(set(LABEL_COLOURS)) == len(LABEL_COLOURS)
    assert label_colour(len(LABEL_COLOURS) + 1) == label_colour(1)


def test_a_label_map_of_another_shape_is_refused(tmp_path):
    row = OverlayRow(title="case", image_YX=IMAGE_YX, overlays={"a": LABELS_YX[1:]})

    with pytest.raises(ValueError, match="same slice"):
        draw_slice_overlay(tmp_path / "slices.png", [row])
    with pytest.raises(ValueError, match="one row"):
        draw_slice_overlay(tmp_path / "slices.png", [])
