"""Slices with what was annotated and what was predicted, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sparseunet.data.colours import LABEL_COLOURS, Colour, label_colour
from sparseunet.data.rounding import is_rounding_noise
from sparseunet.report.canvas import (
    GREY,
    INK,
    RULE,
    WHITE,
    Canvas,
    Point,
    shorten,
    text_width,
)

PANEL_HEIGHT = 220
_GAP = 10
_MARGIN = 28
_TITLE_WIDTH = 150
_HEADER = 34
_FOOTER = 44
_FILL = 0.38
_CONTOUR_PIXELS = 4
_ACCENT: Colour = (30, 140, 90)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OverlayRow:
    """One slice: its image, and label maps to be shown on it."""

    title: str
    """Left of the row; lines are separated by line breaks."""
    image_YX: np.ndarray
    """Any numbers; shown from their 0.5th to their 99.5th percentile."""
    overlays: Mapping[str, np.ndarray | None]
    """Column caption to label map of the image's shape (0 is transparent), or None where nobody
    annotated this slice."""
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    """Along (y, x); pictures have the proportions of the patient."""
    is_annotated: bool = False
    """Whether a person annotated the slice; the row is marked then."""


def draw_slice_overlay(
    path: Path,
    rows: Sequence[OverlayRow],
    *,
    class_names: Mapping[int, str] | None = None,
    title: str = "",
) -> None:
    """Draw one row per slice as a PNG: the image, then one picture per overlay.

    Args:
        path: The PNG to write, whole or not at all.
        rows: At least one; the columns are the captions of all rows in order of appearance.
        class_names: Label value to name for the legend; without it the values that occur.
        title: Above everything.

    Raises:
        ValueError: There is no row, or a label map is not of its image's shape.
    """
    _check_rows(rows)
    captions = list(dict.fromkeys(caption for row in rows for caption in row.overlays))
    panel_width = max(_panel_width(row) for row in rows)
    top = _MARGIN + (40 if title else 0)
    step_x, step_y = panel_width + _GAP, PANEL_HEIGHT + _GAP
    left = _MARGIN + _TITLE_WIDTH
    width = left + step_x * (1 + len(captions)) - _GAP + _MARGIN
    canvas = Canvas(width, top + _HEADER + step_y * len(rows) + _FOOTER)
    canvas.text((_MARGIN, top - 18), title, size=20, bold=True)
    for column, caption in enumerate(["Image", *captions]):
        words = shorten(caption, size=15, width=panel_width)
        middle = left + step_x * column + panel_width / 2
        canvas.text((middle, top + 18), words, size=15, anchor="ms", bold=True)
    for index, row in enumerate(rows):
        y = top + _HEADER + step_y * index
        _draw_title(canvas, row, corner=(_MARGIN, y))
        for column, overlay in enumerate(
            [np.zeros(row.image_YX.shape, np.uint8), *_in(row, captions)]
        ):
            corner = (left + step_x * column, y)
            _draw_picture(canvas, row, overlay, corner=corner, panel_width=panel_width)
    names = class_names or {value: str(value) for value in _values_in(rows)}
    bottom = top + _HEADER + step_y * len(rows)
    _draw_legend(canvas, names, corner=(left, bottom + 18), right=width - _MARGIN)
    canvas.save(path)


def paint_labels(image_YX: np.ndarray, labels_YX: np.ndarray, *, contour_pixels: int) -> np.ndarray:
    """Return the image in grey with every label as a tint and a contour inside its border.

    Args:
        image_YX: uint8.
        labels_YX: Unsigned integers; 0 leaves the image as it is.
        contour_pixels: Width of the contour.

    Returns:
        uint8, shape (y, x, 3).
    """
    colours = np.array([label_colour(value) for value in range(1, len(LABEL_COLOURS) + 1)])
    colour_YXC = colours[(labels_YX.astype(np.int64) - 1) % len(colours)].astype(np.float32)
    grey_YXC = np.repeat(image_YX[..., None], 3, axis=2).astype(np.float32)
    share_YX = np.where(_is_inside(labels_YX, contour_pixels), np.float32(_FILL), np.float32(1))
    share_YX[labels_YX == 0] = 0
    return (grey_YXC + share_YX[..., None] * (colour_YXC - grey_YXC)).round().astype(np.uint8)


def stretch_intensities(image_YX: np.ndarray) -> np.ndarray:
    """Return the image as uint8, its 0.5th percentile black and its 99.5th white."""
    low, high = np.percentile(image_YX, (0.5, 99.5))
    if is_rounding_noise(high - low, largest=max(abs(low), abs(high)), dtype=image_YX.dtype):
        return np.full(image_YX.shape, 128, np.uint8)
    scaled = (image_YX.astype(np.float32) - low) / (high - low)
    return (255 * np.clip(scaled, 0, 1)).round().astype(np.uint8)


def _check_rows(rows: Sequence[OverlayRow]) -> None:
    if not rows:
        raise ValueError("An overlay figure needs at least one row.")
    for row in rows:
        for caption, labels_YX in row.overlays.items():
            if labels_YX is not None and labels_YX.shape != row.image_YX.shape:
                raise ValueError(
                    f"Row {row.title!r}: {caption!r} has shape {labels_YX.shape}, its image "
                    f"{row.image_YX.shape}. Both must describe the same slice."
                )


def _in(row: OverlayRow, captions: Sequence[str]) -> list[np.ndarray | None]:
    return [row.overlays.get(caption) for caption in captions]


def _values_in(rows: Sequence[OverlayRow]) -> list[int]:
    values: set[int] = set()
    for row in rows:
        for labels_YX in row.overlays.values():
            if labels_YX is not None:
                values.update(np.unique(labels_YX).tolist())
    return sorted(values - {0})


def _panel_width(row: OverlayRow) -> int:
    """Return the width of a picture of panel height, within one to two to two to one."""
    height_mm, width_mm = (
        n * step for n, step in zip(row.image_YX.shape, row.spacing_mm, strict=True)
    )
    return round(PANEL_HEIGHT * min(2.0, max(0.5, width_mm / height_mm)))


def _picture_size(row: OverlayRow, panel_width: int) -> tuple[int, int]:
    """Return (width, height) of the largest picture in the patient's proportions that fits."""
    height_mm, width_mm = (
        n * step for n, step in zip(row.image_YX.shape, row.spacing_mm, strict=True)
    )
    scale = min(panel_width / width_mm, PANEL_HEIGHT / height_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def _draw_picture(
    canvas: Canvas,
    row: OverlayRow,
    labels_YX: np.ndarray | None,
    *,
    corner: Point,
    panel_width: int,
) -> None:
    """Draw one slice with the outlines of labels, centred in a panel.

    Args:
        canvas: Receives the picture.
        row: The slice and its pixel size.
        labels_YX: Label values; None draws the slice faded with the note that it is not annotated.
        corner: Upper left corner of the panel.
        panel_width: Width of the panel in pixels of the page.
    """
    size = _picture_size(row, panel_width)
    at = corner[0] + (panel_width - size[0]) / 2, corner[1] + (PANEL_HEIGHT - size[1]) / 2
    large = size[0] * Canvas.SCALE, size[1] * Canvas.SCALE
    grey = Image.fromarray(stretch_intensities(row.image_YX)).resize(
        large, Image.Resampling.BICUBIC
    )
    if labels_YX is None:
        faded = np.asarray(grey.convert("RGB")) * np.float32(0.3) + np.float32(0.7 * 244)
        canvas.paste(Image.fromarray(faded.astype(np.uint8)), at, size)
        middle = corner[0] + panel_width / 2, corner[1] + PANEL_HEIGHT / 2
        half = text_width("not annotated", size=13) / 2 + 10
        canvas.box((middle[0] - half, middle[1] - 13), (2 * half, 26), fill=WHITE, radius=13)
        canvas.text(middle, "not annotated", size=13, colour=GREY, anchor="mm")
        canvas.box(at, size, outline=RULE)
        return
    labels = Image.fromarray(labels_YX.astype(np.int32)).resize(large, Image.Resampling.NEAREST)
    painted = paint_labels(np.asarray(grey), np.asarray(labels), contour_pixels=_CONTOUR_PIXELS)
    canvas.paste(Image.fromarray(painted), at, size)


def _draw_title(canvas: Canvas, row: OverlayRow, *, corner: Point) -> None:
    x, y = corner[0], corner[1] + 22
    for number, line in enumerate(row.title.split("\n")):
        words = shorten(line, size=15 if number == 0 else 13, width=_TITLE_WIDTH - 14)
        if number == 0:
            canvas.text((x, y), words, size=15, bold=True)
        else:
            canvas.text((x, y), words, size=13, colour=GREY)
        y += 20
    if row.is_annotated:
        canvas.box((x, y - 8), (text_width("annotated", size=13) + 20, 24), fill=_ACCENT, radius=12)
        canvas.text((x + 10, y + 4), "annotated", size=13, colour=WHITE, anchor="lm")


def _draw_legend(canvas: Canvas, names: Mapping[int, str], *, corner: Point, right: float) -> None:
    """Write as many names as fit in one row, and how many are left out."""
    x, y = corner
    entries = [(value, name) for value, name in names.items() if value > 0]
    for index, (value, name) in enumerate(entries):
        width = 23 + text_width(name, size=14) + 24
        if x + width + 50 > right and index < len(entries) - 1:
            canvas.text((x, y), f"+ {len(entries) - index} more", size=14, colour=GREY, anchor="lm")
            return
        canvas.box((x, y - 8), (16, 16), fill=label_colour(value), radius=4)
        canvas.text((x + 23, y), name, size=14, colour=INK, anchor="lm")
        x += width


def _is_inside(labels_YX: np.ndarray, pixels: int) -> np.ndarray:
    """Return where no other label lies within that many steps; the image's edge is no border."""
    inside_YX = np.ones(labels_YX.shape, bool)
    for axis in (0, 1):
        same = np.diff(labels_YX.astype(np.int64), axis=axis) == 0
        inside_YX &= np.insert(same, 0, values=True, axis=axis)
        inside_YX &= np.insert(same, same.shape[axis], values=True, axis=axis)
    for _ in range(pixels - 1):
        padded = np.pad(inside_YX, 1, mode="edge")
        inside_YX = (
            inside_YX & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return inside_YX
