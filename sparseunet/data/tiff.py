"""TIFF files: a plane (grey or colour), or a volume with one page per slice.

TIFF has no voxel size of its own that tools agree on. As in nnU-Net 2.8.1 it stands beside the
file in CASE.json: `{"spacing": [z, y, x]}` in millimetres; without it every axis has 1 mm.
"""

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sparseunet.artifacts import atomic_path, write_json
from sparseunet.data.geometry import Geometry
from sparseunet.data.stored import (
    StoredGrid,
    StoredVolume,
    picture_geometry,
    reading,
    several_volumes,
    unreadable,
)

_CHANNEL_NUMBER = re.compile(r"_\d{4}$")
_COLOUR_PLANES = ("YXS", "SYX")
_SEGMENT_TAGS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The struct formats of a page directory: number of tags, one tag, an offset."""

    count: str
    tag: str
    offset: str


_CLASSIC_TIFF = _Layout(count="H", tag="HHI4s", offset="I")
_BIG_TIFF = _Layout(count="Q", tag="HHQ8s", offset="Q")


def read_tiff(path: Path) -> StoredVolume:
    """Read one TIFF file: (y, x) and (y, x, colour) as a plane, (page, y, x) as a volume.

    Raises:
        UnreadableFileError: Cut off, damaged, several series, or more than three axes.
    """
    import tifffile

    with reading(path):
        _require_whole(path)
        try:
            with tifffile.TiffFile(path) as file:
                series = _only_series(path, file)
                contiguous_end = (series.dataoffset or 0) + series.nbytes
                if series.dataoffset and contiguous_end > path.stat().st_size:
                    found = f"a cut-off file, expected {contiguous_end} bytes"
                    raise unreadable(path, found=found)
                pixels = series.asarray()
        except (tifffile.TiffFileError, KeyError, IndexError) as error:
            raise unreadable(path, found=f"a damaged TIFF file ({error})") from error
        grid = _grid(path, series)
    if series.axes == "YXS":
        pixels = np.moveaxis(pixels, -1, 0)
    return StoredVolume(
        voxels_CZYX=pixels.reshape(grid.num_channels, *grid.geometry.shape),
        geometry=grid.geometry,
    )


def read_tiff_grid(path: Path) -> StoredGrid:
    """Read size and number of channels of one TIFF file, and the spacing beside it."""
    import tifffile

    with reading(path):
        try:
            with tifffile.TiffFile(path) as file:
                return _grid(path, _only_series(path, file))
        except (tifffile.TiffFileError, KeyError, IndexError) as error:
            raise unreadable(path, found=f"a damaged TIFF file ({error})") from error


def write_tiff(path: Path, voxels_ZYX: np.ndarray, geometry: Geometry) -> None:
    """Write a plane or a volume, the voxel size of a volume to CASE.json beside it."""
    import tifffile

    is_plane = geometry.dimensions == 2
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            voxels_ZYX[0] if is_plane else voxels_ZYX,
            compression="zlib",
            photometric="minisblack",
        )
    if not is_plane:
        write_json(path.with_suffix(".json"), {"spacing": list(geometry.spacing_mm)})


def _only_series(path: Path, file: Any) -> Any:
    if len(file.series) != 1:
        raise several_volumes(path, found=f"{len(file.series)} series of pages")
    series = file.series[0]
    is_colour_stack = "S" in series.axes and series.axes not in _COLOUR_PLANES
    if series.ndim not in (2, 3) or is_colour_stack:
        found = f"{series.ndim} axes {series.axes} of sizes {series.shape}"
        raise several_volumes(path, found=found)
    return series


def _grid(path: Path, series: Any) -> StoredGrid:
    shape, axes = series.shape, series.axes
    sidecar = _sidecar(path)
    if axes == "YXS":
        return StoredGrid(geometry=picture_geometry(*shape[:2]), num_channels=shape[2])
    if axes == "SYX" and sidecar is None:  # with a voxel size: few slices that were taken for RGB
        return StoredGrid(geometry=picture_geometry(*shape[1:]), num_channels=shape[0])
    if len(shape) == 2 and sidecar is None:
        return StoredGrid(geometry=picture_geometry(*shape))
    spacing_mm = (1.0, 1.0, 1.0) if sidecar is None else _spacing(sidecar)
    z, y, x = (1, *shape)[-3:]
    return StoredGrid(geometry=Geometry(shape=(z, y, x), spacing_mm=spacing_mm))


def _sidecar(path: Path) -> Path | None:
    stem = path.name[: -len(path.suffix)]
    for name in (stem, _CHANNEL_NUMBER.sub("", stem)):
        candidate = path.with_name(f"{name}.json")
        if candidate.is_file():
            return candidate
    return None


def _spacing(sidecar: Path) -> tuple[float, float, float]:
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8-sig"))
        z, y, x = (float(value) for value in content["spacing"])
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong_spacing(sidecar, f"unusable content ({error})") from error
    if not all(0 < value < float("inf") for value in (z, y, x)):
        raise _wrong_spacing(sidecar, f"spacing {[z, y, x]}")
    return z, y, x


def _wrong_spacing(sidecar: Path, found: str) -> Exception:
    return unreadable(
        sidecar,
        found=found,
        expected='{"spacing": [z, y, x]} with three positive numbers in millimetres',
        fix="correct the file",
    )


def _require_whole(path: Path) -> None:
    """Follow the chain of pages and refuse a file that any page or tag points beyond.

    TIFF readers drop pages they cannot reach, so that a cut-off volume would just be shorter.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(16).ljust(16, b"\0")
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        version = struct.unpack(f"{order}H", start[2:4])[0] if order else 0
        if order is None or version not in (42, 43):
            raise unreadable(path, found="no TIFF header")
        layout = _BIG_TIFF if version == 43 else _CLASSIC_TIFF
        (page,) = struct.unpack_from(order + layout.offset, start, 8 if version == 43 else 4)
        visited: set[int] = set()
        while page:
            found = f"a cut-off file of {size} bytes, page {len(visited)} is missing or incomplete"
            if page >= size or page in visited:
                raise unreadable(path, found=found)
            visited.add(page)
            end, page = _walk_page(stream, page, order, layout)
            if end > size:
                raise unreadable(path, found=found)


def _walk_page(stream: BinaryIO, page: int, order: str, layout: "_Layout") -> tuple[int, int]:
    """Return the end of the furthest byte one page directory needs, and where the next one is.

    A directory that is itself cut off needs an unreachable end and has no successor.
    """
    unreachable = (2**63, 0)
    stream.seek(page)
    head = stream.read(struct.calcsize(order + layout.count))
    if len(head) < struct.calcsize(order + layout.count):
        return unreachable
    (num_tags,) = struct.unpack(order + layout.count, head)
    tag_size, tail_size = struct.calcsize(order + layout.tag), struct.calcsize(layout.offset)
    body = stream.read(num_tags * tag_size + tail_size)
    if len(body) < num_tags * tag_size + tail_size:
        return unreachable
    end = stream.tell()
    values: dict[int, tuple[int, ...]] = {}
    for position in range(0, num_tags * tag_size, tag_size):
        tag, kind, count, value = struct.unpack_from(order + layout.tag, body, position)
        num_bytes = count * _VALUE_BYTES.get(kind, 1)
        if num_bytes > tail_size:
            (start,) = struct.unpack(order + layout.offset, value)
            end = max(end, start + num_bytes)
            stream.seek(start)
            value = stream.read(num_bytes) if tag in _SEGMENT_TAGS else b""
        if tag in _SEGMENT_TAGS and kind in _INTEGERS and len(value) >= num_bytes:
            values[tag] = struct.unpack_from(f"{order}{count}{_INTEGERS[kind]}", value)
    for offsets, sizes in ((273, 279), (324, 325)):
        for start, num_bytes in zip(values.get(offsets, ()), values.get(sizes, ()), strict=False):
            end = max(end, start + num_bytes)
    return end, struct.unpack_from(order + layout.offset, body, num_tags * tag_size)[0]
