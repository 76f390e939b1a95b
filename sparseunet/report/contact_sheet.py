"""Planned slices on sheets of paper, to be hung beside the screen and ticked off."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sparseunet.annotation.exchange.export import PlannedPicture
from sparseunet.artifacts import atomic_path
from sparseunet.report.canvas import GREY, RULE, Canvas, Point, shorten
from sparseunet.report.overlay import stretch_intensities

CONTACT_SHEETS_PDF = "contact_sheets.pdf"
_PAGE = (1000, 1414)
"""Pixels of a page in the proportions of A4."""
_COLUMNS, _ROWS = 4, 5
_MARGIN = 44
_HEADER = 40
_GAP = 14
_CAPTION = 44
_DOTS_PER_INCH = 121
"""Dots per inch at which a page has the size of A4."""


def draw_contact_sheets(folder: Path, pictures: Sequence[PlannedPicture]) -> tuple[Path, ...]:
    """Draw all slices, twenty to a page, as PNG pages and one PDF of them.

    Args:
        folder: Where to write `contact_sheet_001.png`, ... and `contact_sheets.pdf`.
        pictures: In the order they are drawn; each is shown from its 0.5th to its 99.5th
            percentile, in the proportions of the patient.

    Returns:
        The pages; nothing is written without pictures.
    """
    per_page = _COLUMNS * _ROWS
    starts = range(0, len(pictures), per_page)
    pages = [pictures[start : start + per_page] for start in starts]
    paths = []
    for number, page in enumerate(pages, start=1):
        path = folder / f"contact_sheet_{number:03d}.png"
        _draw_page(path, page, title=f"Slices to annotate, page {number} of {len(pages)}")
        paths.append(path)
    if paths:
        _bind(folder / CONTACT_SHEETS_PDF, paths)
    return tuple(paths)


def _draw_page(path: Path, pictures: Sequence[PlannedPicture], *, title: str) -> None:
    canvas = Canvas(*_PAGE)
    canvas.text((_MARGIN, _MARGIN + 12), title, size=18, bold=True)
    width = (_PAGE[0] - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
    height = (_PAGE[1] - 2 * _MARGIN - _HEADER - (_ROWS - 1) * _GAP) / _ROWS
    for position, picture in enumerate(pictures):
        row, column = divmod(position, _COLUMNS)
        corner = (
            _MARGIN + column * (width + _GAP),
            _MARGIN + _HEADER + row * (height + _GAP),
        )
        _draw_picture(canvas, picture, corner=corner, box=(width, height - _CAPTION))
    canvas.save(path)


def _draw_picture(canvas: Canvas, picture: PlannedPicture, *, corner: Point, box: Point) -> None:
    extents_mm = [
        count * step for count, step in zip(picture.image_YX.shape, picture.spacing_mm, strict=True)
    ]
    scale = min(box[0] / extents_mm[1], box[1] / extents_mm[0])
    size = max(1, round(extents_mm[1] * scale)), max(1, round(extents_mm[0] * scale))
    at = corner[0] + (box[0] - size[0]) / 2, corner[1] + (box[1] - size[1]) / 2
    grey = np.repeat(stretch_intensities(picture.image_YX)[..., None], 3, axis=2)
    canvas.paste(Image.fromarray(grey), at, size)
    below = corner[1] + box[1]
    canvas.box((corner[0], below + 8), (14, 14), outline=GREY, radius=2)
    canvas.text(
        (corner[0] + 21, below + 20), shorten(picture.case, size=13, width=box[0] - 21), bold=True
    )
    caption = f"{picture.caption}, no. {picture.priority}"
    canvas.text(
        (corner[0] + 21, below + 37),
        shorten(caption, size=12, width=box[0] - 21),
        size=12,
        colour=GREY,
    )
    canvas.line(
        [(corner[0], below + _CAPTION), (corner[0] + box[0], below + _CAPTION)], colour=RULE
    )


def _bind(path: Path, pages: Sequence[Path]) -> None:
    first, *others = [Image.open(page) for page in pages]
    with atomic_path(path) as temporary:
        first.save(
            temporary,
            format="PDF",
            save_all=True,
            append_images=others,
            resolution=_DOTS_PER_INCH,
        )
