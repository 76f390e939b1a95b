"""Time and memory to interpolate 120 x 512 x 512 voxels, 5 classes, every tenth slice known.

    python tests/performance/interpolation_speed.py --methods nearest shape spline

Memory is the most that was allocated at a time beyond what was given, results included. With ITK's
module installed, `--methods morphological` measures our use of it, gap by gap, and `--methods itk`
its filter alone on the whole volume, by how much the process grew, because its allocations are not
seen otherwise. ITK's start, some ten seconds, is not counted.
"""

import argparse
import resource
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from scipy import ndimage

from sparseunet.annotation.interpolation import load_interpolator
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image

SHAPE = (120, 512, 512)


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["nearest", "shape", "spline"])
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    arguments = parser.parse_args()
    labels_ZYX = organs()
    geometry = Geometry(shape=SHAPE, spacing_mm=(2.5, 0.8, 0.8))
    image = Image(voxels_CZYX=np.zeros((0, *SHAPE), np.float32), geometry=geometry)
    dense = Annotation.from_label_map(labels_ZYX, ignore=None)
    given = hide_slices(dense, keep=range(0, SHAPE[0], 10), axis=0)
    shares = np.bincount(labels_ZYX.ravel()) / labels_ZYX.size
    print(f"voxels per class: {', '.join(f'{share:.1%}' for share in shares)}")
    for method in arguments.methods:
        if method in {"itk", "morphological"}:
            warm_up_itk()
        if method == "itk":
            time_itk(given.labels_ZYX, labels_ZYX, arguments.repeats)
            continue
        interpolate = load_interpolator(method)
        request = InterpolationRequest(axis=0, num_threads=arguments.num_threads)
        seconds, busy = fastest(
            partial(interpolate, image, given, request=request), arguments.repeats
        )
        filled = interpolate(image, given, request=request)
        right = np.mean(filled.labels_ZYX == labels_ZYX)
        del filled
        tracemalloc.start()
        filled = interpolate(image, given, request=request)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = sum(
            array.nbytes for array in (filled.labels_ZYX, filled.source_ZYX, filled.confidence_ZYX)
        )
        print(
            f"{method}: {seconds:.2f} s, {busy:.2f} s of processors, {right:.2%} of voxels right; "
            f"peak {peak / 2**20:.0f} MiB, "
            f"of these {result / 2**20:.0f} MiB result (labels {labels_ZYX.nbytes / 2**20:.0f})"
        )


def warm_up_itk() -> None:
    """Use the filter once, so that its lazy imports are not counted."""
    itk = import_module("itk")
    small = itk.image_from_array(np.zeros((3, 8, 8), np.uint8))
    itk.MorphologicalContourInterpolator[type(small)].New(small).Update()


def fastest(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the least seconds and the least seconds of processors that some work took."""
    times = []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start, time.process_time() - busy))
    return min(wall for wall, _ in times), min(busy for _, busy in times)


def time_itk(given_ZYX: np.ndarray, labels_ZYX: np.ndarray, repeats: int) -> None:
    """Print the line of ITK's filter with its default settings."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    filled_ZYX = morph(given_ZYX)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    seconds, busy = fastest(partial(morph, given_ZYX), repeats)
    right = np.mean(filled_ZYX == labels_ZYX)
    print(
        f"itk: {seconds:.2f} s, {busy:.2f} s of processors, {right:.2%} of voxels right; "
        f"the process grew by {peak:.0f} MiB"
    )


def morph(given_ZYX: np.ndarray) -> np.ndarray:
    """Return what ITK's filter makes of a volume."""
    itk = import_module("itk")
    volume = itk.image_from_array(np.ascontiguousarray(given_ZYX))
    filter_ = itk.MorphologicalContourInterpolator[type(volume)].New(volume)
    filter_.SetAxis(2)  # ITK counts from x
    filter_.Update()
    return np.asarray(itk.array_from_image(filter_.GetOutput()))


def organs() -> np.ndarray:
    """Return five smooth bodies of different size, as uint8."""
    z, y, x = (np.linspace(-1, 1, size)[:, None, None] for size in SHAPE)
    y, x = y.reshape(1, -1, 1), x.reshape(1, 1, -1)
    bend = 0.1 * np.sin(4 * z)
    labels_ZYX = np.zeros(SHAPE, np.uint8)
    bodies = ((0.35, 0.3, 0.8, 0.35), (-0.4, 0.25, 0.7, 0.25), (0, -0.4, 0.95, 0.12),
              (0.1, 0.05, 0.5, 0.1), (-0.2, -0.1, 0.6, 0.18))  # fmt: skip
    for value, (row, column, height, radius) in enumerate(bodies, start=1):
        squared = ((y - row - bend) / radius) ** 2 + ((x - column + bend) / (1.3 * radius)) ** 2
        labels_ZYX[squared + (z / height) ** 2 < 1] = value
    grown = ndimage.grey_dilation(labels_ZYX[:, ::2, ::2], size=(1, 3, 3))
    return np.repeat(np.repeat(grown, 2, axis=1), 2, axis=2)


if __name__ == "__main__":
    main()
