"""A sheet to draw on: smooth lines and text in one size of pixel, with Pillow alone.

Everything is drawn at three times the size and reduced when saved. The font is the one inside
Pillow, so the same drawing gives the same bytes on every machine.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sparseunet.artifacts import atomic_path
from sparseunet.data.colours import Colour

Point = tuple[float, float]

WHITE: Colour = (255, 255, 255)
INK: Colour = (31, 36, 48)
GREY: Colour = (110, 118, 132)
RULE: Colour = (226, 229, 235)


class Canvas:
    """A white sheet of the given size in pixels; the origin is the upper left corner."""

    SCALE = 3
    """Size of the drawing over the size of the saved picture."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * Canvas.SCALE, height * Canvas.SCALE), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], *, colour: Colour, width: float = 1.0) -> None:
        """Draw straight lines from point to point; nothing with fewer than two points."""
        if len(points) > 1:
            scaled = [(x * Canvas.SCALE, y * Canvas.SCALE) for x, y in points]
            self._draw.line(scaled, fill=colour, width=round(width * Canvas.SCALE), joint="curve")

    def dot(self, center: Point, *, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self._draw.circle(
            (center[0] * Canvas.SCALE, center[1] * Canvas.SCALE),
            radius=radius * Canvas.SCALE,
            fill=colour,
        )

    def box(
        self,
        corner: Point,
        size: Point,
        *,
        fill: Colour | None = None,
        outline: Colour | None = None,
        radius: float = 0.0,
    ) -> None:
        """Draw a rectangle with corners rounded by `radius`."""
        (x, y), (width, height) = corner, size
        self._draw.rounded_rectangle(
            [
                x * Canvas.SCALE,
                y * Canvas.SCALE,
                (x + width) * Canvas.SCALE - 1,
                (y + height) * Canvas.SCALE - 1,
            ],
            radius=radius * Canvas.SCALE,
            fill=fill,
            outline=outline,
            width=Canvas.SCALE,
        )

    def text(
        self,
        position: Point,
        words: str,
        *,
        size: float = 13.0,
        colour: Colour = INK,
        anchor: str = "ls",
        bold: bool = False,
    ) -> None:
        """Write one line; `anchor` is Pillow's (l, m, r then a top, m middle, s baseline)."""
        self._draw.text(
            (position[0] * Canvas.SCALE, position[1] * Canvas.SCALE),
            words,
            font=_font(size),
            fill=colour,
            anchor=anchor,
            stroke_width=Canvas.SCALE * size / 55 if bold else 0,
        )

    def paste(self, picture: Image.Image, corner: Point, size: tuple[int, int]) -> None:
        """Put a picture with its corner there, stretched to `size`."""
        large = (size[0] * Canvas.SCALE, size[1] * Canvas.SCALE)
        if picture.size != large:
            picture = picture.resize(large, Image.Resampling.BICUBIC)
        self._image.paste(
            picture, (round(corner[0] * Canvas.SCALE), round(corner[1] * Canvas.SCALE))
        )

    def save(self, path: Path) -> None:
        """Write a PNG, whole or not at all."""
        size = self._image.width // Canvas.SCALE, self._image.height // Canvas.SCALE
        with atomic_path(path) as temporary:
            self._image.resize(size, Image.Resampling.BOX).save(temporary, format="PNG")


def text_width(words: str, *, size: float) -> float:
    """Return the width of one line of text in pixels."""
    return _font(size).getlength(words) / Canvas.SCALE


def shorten(words: str, *, size: float, width: float) -> str:
    """Return the text, cut with an ellipsis in the middle where it is wider than `width`."""
    if text_width(words, size=size) <= width:
        return words
    for kept in range(len(words) - 1, 1, -1):
        tail = kept // 2
        cut = f"{words[: kept - tail]}…{words[len(words) - tail :]}"
        if text_width(cut, size=size) <= width:
            return cut
    return "…"


@lru_cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * Canvas.SCALE)
