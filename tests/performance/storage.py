"""Compare ways to store preprocessed images: time to read a patch, size, time to write, precision.

Arrays and patch sizes are those nnU-Net plans and preprocesses; its own parameters are read from
the files it writes. One thread. Times are minima over repeats, files lie in the page cache.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from both_packages import Bench, add_arguments, bench, report
from preprocessed_arrays import dataset_folder

DATASETS = ("hippocampus", "acdc", "spleen", "thick_ct")
"""Scans at their own spacing, and resampled ones."""
BLOCK_BYTES = 2**17
CHUNK_BYTES = 2**20
SHUFFLE, PLAIN = blosc2.Filter.SHUFFLE, blosc2.Filter.NOFILTER
CODECS = {
    "LZ4-1": (blosc2.Codec.LZ4, 1, SHUFFLE),
    "LZ4-1 no shuffle": (blosc2.Codec.LZ4, 1, PLAIN),
    "ZSTD-1": (blosc2.Codec.ZSTD, 1, SHUFFLE),
    "ZSTD-1 no shuffle": (blosc2.Codec.ZSTD, 1, PLAIN),
    "ZSTD-8": (blosc2.Codec.ZSTD, 8, SHUFFLE),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to store an array."""

    name: str
    dtype: str
    write: Callable[[Path, np.ndarray], object]
    open: Callable[[Path], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--max-cases", type=int, default=6)
    parser.add_argument("--patches", type=int, default=100, help="reads per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    blosc2.set_nthreads(1)
    rows = []
    with bench(arguments) as where:
        for name in arguments.datasets:
            dataset = where.link(dataset_folder(name, arguments.data, where))
            for configuration in ("3d_fullres", "2d"):
                files, patch = _files(where, dataset, configuration, arguments)
                rows += [
                    {"dataset": name, "configuration": configuration, **row}
                    for row in _measure(files, patch, arguments)
                ]
    report(rows, arguments)


def _files(
    where: Bench, dataset: str, configuration: str, arguments: argparse.Namespace
) -> tuple[list[Path], tuple[int, ...]]:
    """Let nnU-Net preprocess, and return its image files and the planned patch."""
    folder, number = where.preprocessed("nnunet", dataset), int(dataset[7:10])
    if not (folder / f"nnUNetPlans_{configuration}").exists():
        workers = ("-npfp", arguments.num_workers, "-np", arguments.num_workers, "--no_pbar")
        where.run(where.nnunet("plan_and_preprocess", "-d", number, "-c", configuration, *workers))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    files = sorted((folder / f"nnUNetPlans_{configuration}").glob("*.b2nd"))
    images = [path for path in files if not path.stem.endswith("_seg")]
    patch = plans["configurations"][configuration]["patch_size"]
    return images[: arguments.max_cases], tuple(patch)


def _measure(
    files: Sequence[Path], patch: tuple[int, ...], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    originals = [blosc2.open(str(path), mode="r") for path in files]
    images = [np.asarray(original[:]) for original in originals]
    ways = _ways(patch)
    totals = {way.name + way.dtype: _Total() for way in ways}
    for number, (image_CZYX, original) in enumerate(zip(images, originals, strict=True)):
        boxes = _boxes(image_CZYX.shape, patch, arguments.patches, seed=number)
        for way in [*ways[:-1], _as_nnunet(original)]:
            total = totals[way.name + way.dtype]
            total.add(way, image_CZYX, boxes, repeats=arguments.repeats)
    raw_bytes = sum(image.nbytes for image in images)
    return [
        {
            "way": way.name,
            "dtype": way.dtype,
            "open + read ms": totals[way.name + way.dtype].read_s / len(files) * 1000,
            "share of float32 size": totals[way.name + way.dtype].num_bytes / raw_bytes,
            "write ms per MB": totals[way.name + way.dtype].write_s / raw_bytes * 1e9,
            "max error": totals[way.name + way.dtype].max_error,
        }
        for way in ways
    ]


@dataclass
class _Total:
    read_s: float = 0.0
    write_s: float = 0.0
    num_bytes: int = 0
    max_error: float = 0.0

    def add(
        self, way: Way, image_CZYX: np.ndarray, boxes: list[tuple[slice, ...]], *, repeats: int
    ) -> None:
        """Write and read one image."""
        stored_CZYX = np.ascontiguousarray(image_CZYX.astype(way.dtype))
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "image"
            self.write_s += min(_time(partial(_rewrite, way, path, stored_CZYX), min(repeats, 3)))
            self.num_bytes += path.stat().st_size

            def read() -> None:
                for box in boxes:
                    np.asarray(way.open(path)[box]).astype(np.float32)

            self.read_s += min(_time(read, repeats)) / len(boxes)
        error = float(np.abs(stored_CZYX.astype(np.float32) - image_CZYX).max())
        self.max_error = max(self.max_error, error)


def _rewrite(way: Way, path: Path, array: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    way.write(path, array)


def _time(work: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def _ways(patch: tuple[int, ...]) -> list[Way]:
    """Every way; the last one, nnU-Net's, is completed per file by `_as_nnunet`."""
    ways = []
    for dtype in ("float32", "float16"):
        ways.append(Way(name="npy", dtype=dtype, write=_write_npy, open=_open_npy))
        for name, (codec, level, kind) in CODECS.items():
            settings = {"codec": codec, "clevel": level, "filters": [kind], "nthreads": 1}
            write = partial(_write_patch_chunks, patch=patch, settings=settings)
            ways.append(Way(name=f"blosc2 {name}", dtype=dtype, write=write, open=_open_blosc))
    ways.append(Way(name="nnU-Net's blosc2", dtype="float32", write=_write_npy, open=_open_mapped))
    return ways


def _as_nnunet(original: Any) -> Way:
    """Chunks, blocks, codec and filter of a file that nnU-Net wrote."""
    found = original.schunk.cparams
    settings = {
        "codec": found.codec,
        "clevel": found.clevel,
        "filters": [item for item in found.filters if item != blosc2.Filter.NOFILTER]
        or [blosc2.Filter.NOFILTER],
        "nthreads": 1,
    }
    write = partial(_write_blosc, chunks=original.chunks, blocks=original.blocks, settings=settings)
    return Way(name="nnU-Net's blosc2", dtype="float32", write=write, open=_open_mapped)


def _write_npy(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array)


def _open_npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _write_patch_chunks(
    path: Path, array: np.ndarray, *, patch: tuple[int, ...], settings: dict[str, Any]
) -> None:
    """Chunks of a patch (of several slices where patches are 2D), blocks that fit a fast cache."""
    leading = array.ndim - len(patch)
    sizes = zip(array.shape[leading:], patch, strict=True)
    chunks = [1] * leading + [min(size, edge) for size, edge in sizes]
    blocks = list(chunks)
    while np.prod(blocks) * array.itemsize > BLOCK_BYTES:
        largest = blocks.index(max(blocks))
        blocks[largest] = -(-blocks[largest] // 2)
    if len(patch) == 2:
        room = CHUNK_BYTES // int(np.prod(chunks) * array.itemsize)
        chunks[leading - 1] = max(1, min(array.shape[leading - 1], room))
    _write_blosc(path, array, chunks=chunks, blocks=blocks, settings=settings)


def _write_blosc(
    path: Path,
    array: np.ndarray,
    *,
    chunks: Sequence[int],
    blocks: Sequence[int],
    settings: dict[str, Any],
) -> None:
    blosc2.asarray(
        array, urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=settings
    )


def _open_blosc(path: Path) -> Any:
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1})


def _open_mapped(path: Path) -> Any:
    """Open as nnU-Net does."""
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, mmap_mode="r")


def _boxes(
    shape: Sequence[int], patch: tuple[int, ...], count: int, *, seed: int
) -> list[tuple[slice, ...]]:
    """Return random boxes of a patch, all channels, within an image."""
    rng = np.random.default_rng(seed)
    edges = [1] * (3 - len(patch)) + list(patch)
    boxes = []
    for _ in range(count):
        box = [slice(0, shape[0])]
        for size, edge in zip(shape[1:], edges, strict=True):
            start = int(rng.integers(0, max(size - edge, 0) + 1))
            box.append(slice(start, min(start + edge, size)))
        boxes.append(tuple(box))
    return boxes


if __name__ == "__main__":
    main()
