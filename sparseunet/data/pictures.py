"""PNG and BMP pictures: planes without physical size, colours as channels."""

import io
from pathlib import Path
from typing import Literal

import numpy as np

from sparseunet.artifacts import atomic_path
from sparseunet.data.itk import ITK_LOCK
from sparseunet.data.stored import (
    StoredGrid,
    StoredVolume,
    picture_geometry,
    reading,
    unreadable,
)
from sparseunet.errors import RequestError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_GREY = 0
_PALETTE_MODE = "P"


def read_picture(path: Path, *, palette: Literal["colour", "index"] = "colour") -> StoredVolume:
    """Read one picture; grey gives one channel, RGB three, RGBA four.

    Args:
        path: A `.png` or `.bmp` file.
        palette: Whether a picture with a palette is read as its colours (scans) or as the indices
            (labels). Grey values of 2 or 4 bits are spread to 0..255 for colours (nnU-Net 2.8.1
            reads them so) and kept as they are for indices.

    Raises:
        UnreadableFileError: Cut off, damaged or no picture.
    """
    with reading(path):
        content = path.read_bytes()
        _require_whole(path, content)
        pixels_YXC = _decode(path, content, palette)
    if pixels_YXC.ndim == 2:
        pixels_YXC = pixels_YXC[:, :, None]
    height, width, _ = pixels_YXC.shape
    return StoredVolume(
        voxels_CZYX=np.moveaxis(pixels_YXC, -1, 0)[:, None],
        geometry=picture_geometry(height, width),
    )


def read_picture_grid(path: Path) -> StoredGrid:
    """Read size and number of channels of one picture."""
    from PIL import Image

    with reading(path), Image.open(path) as picture:
        mode = _colour_mode(picture) if picture.mode == _PALETTE_MODE else picture.mode
        num_channels = 1 if mode.startswith(("I", "F", "1")) else len(mode)
        return StoredGrid(
            geometry=picture_geometry(picture.height, picture.width), num_channels=num_channels
        )


def write_picture(path: Path, pixels_YX: np.ndarray) -> None:
    """Write one grey picture with whole numbers, 8 bits where they suffice, else 16 (PNG only).

    Raises:
        RequestError: Values are not whole numbers, negative or too large for the format.
    """
    from PIL import Image

    highest = 255 if path.suffix.lower() == ".bmp" else 65535
    low, high = float(pixels_YX.min()), float(pixels_YX.max())
    if not (low >= 0 and high <= highest and (pixels_YX == np.floor(pixels_YX)).all()):
        raise RequestError(
            f"{path} cannot hold values from {low:g} to {high:g}; expected whole numbers from 0 to "
            f"{highest}. Write .tif or .nii.gz instead."
        )
    stored_YX = np.ascontiguousarray(pixels_YX, np.uint8 if high < 256 else np.uint16)
    with atomic_path(path) as temporary:
        Image.fromarray(stored_YX).save(temporary)


def _require_whole(path: Path, content: bytes) -> None:
    """Refuse files whose end is missing even where all pixels could be decoded."""
    if content.startswith(_PNG_START):
        is_whole = content.rfind(_PNG_END) >= 0
    else:
        is_whole = not content.startswith(b"BM") or len(content) >= int.from_bytes(
            content[2:6], "little"
        )
    if not is_whole:
        raise unreadable(path, found=f"a cut-off file of {len(content)} bytes")


def _decode(path: Path, content: bytes, palette: Literal["colour", "index"]) -> np.ndarray:
    from PIL import Image

    num_bits, colour_type = _png_type(content)
    if num_bits == 16 and colour_type != _GREY:  # Pillow would reduce 16-bit colour to 8 bits
        import SimpleITK

        with ITK_LOCK:
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    with Image.open(io.BytesIO(content)) as picture:
        if picture.mode == _PALETTE_MODE and palette == "colour":
            pixels = np.asarray(picture.convert(_colour_mode(picture)))
        else:
            pixels = np.asarray(picture)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    elif palette == "index" and colour_type == _GREY and num_bits in (2, 4):
        pixels = pixels // np.uint8(255 // (2**num_bits - 1))
    return pixels


def _png_type(content: bytes) -> tuple[int, int]:
    """Return (bits per value, colour type) of a PNG, or (0, 0) for other formats."""
    return (content[24], content[25]) if content.startswith(_PNG_START) else (0, _GREY)


def _colour_mode(picture: object) -> str:
    return "RGBA" if "transparency" in getattr(picture, "info", {}) else "RGB"
