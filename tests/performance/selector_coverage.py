"""What chosen slices catch of the objects, per selector and density; prints Markdown tables.

On densely labelled datasets, for every selector, density and seed:

- foreground slices: share of all slices with any object that were chosen;
- foreground voxels: share of all voxels of objects that lie on chosen slices;
- classes: share of all pairs of a case and a class it holds with at least one chosen slice of it.

    python tests/performance/selector_coverage.py DATASET... [--selectors NAME...] [--weights FILE]
        [--cache FOLDER]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparseunet.annotation.allocation import count_for_density
from sparseunet.annotation.selection import SELECTORS, load_selector
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.data.dataset import Dataset
from sparseunet.data.io import read_geometry, read_label_map
from sparseunet.data.load import load_dataset

DENSITIES = (0.05, 0.1, 0.2)
SEEDS = (0, 1, 2)
ANYWHERE = "dataset (any scan)"
"""The selector `dataset` without a number of slices per scan."""
MEASURES = ("foreground slices", "foreground voxels", "classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--selectors", nargs="+", default=[*SELECTORS, ANYWHERE])
    parser.add_argument("--weights", type=Path, help="AlexNet's, for perceptual")
    parser.add_argument("--cache", type=Path, help="folder that keeps learned features")
    parser.add_argument("-np", "--num-workers", type=int, default=1)
    arguments = parser.parse_args()
    names = [name for name in arguments.selectors if name != "perceptual" or arguments.weights]
    for folder in arguments.datasets:
        dataset = load_dataset(folder)
        stacks = stacks_of(dataset)
        pixels = [count_pixels(stack, dataset) for stack in stacks]
        num_slices = sum(stack.num_slices for stack in stacks)
        print(
            f"\n**{dataset.name}**: {len(stacks)} scans, {num_slices} slices, % caught at ", end=""
        )
        print("/".join(f"{100 * density:g}" for density in DENSITIES), "% of the slices\n")
        print("| selector |", " | ".join(MEASURES), "| s for all |")
        print("| --- |", " | ".join("---" for _ in MEASURES), "| --- |")
        with tempfile.TemporaryDirectory() as temporary:
            cache = arguments.cache or Path(temporary)
            for name in names:
                start = time.perf_counter()
                cells = measure(name, dataset, stacks, pixels, cache, arguments)
                seconds = time.perf_counter() - start
                print("|", name, "|", " | ".join(cells), "|", f"{seconds:.0f} |", flush=True)


def stacks_of(dataset: Dataset) -> list[SliceStack]:
    stacks = []
    for case in dataset.cases:
        assert case.label is not None, f"{case.name} has no label to compare with"
        geometry = read_geometry(case.label)
        spacing_mm = geometry.spacing_mm
        stacks.append(
            SliceStack(case=case, axis=0, num_slices=geometry.shape[0], spacing_mm=spacing_mm)
        )
    return stacks


def count_pixels(stack: SliceStack, dataset: Dataset) -> np.ndarray:
    """Return the pixels of every class on every slice, shape (K, classes)."""
    assert stack.case.label is not None
    labels_ZYX, _ = read_label_map(stack.case.label)
    return np.stack(
        [
            np.isin(labels_ZYX, values).sum(axis=(1, 2))
            for values in dataset.labels.foreground.values()
        ],
        axis=1,
    )


def measure(
    name: str,
    dataset: Dataset,
    stacks: Sequence[SliceStack],
    pixels: Sequence[np.ndarray],
    cache: Path,
    arguments: argparse.Namespace,
) -> list[str]:
    """Return a cell per measure: mean ± standard deviation over seeds, densities in turn."""
    found = np.zeros((len(DENSITIES), len(SEEDS), len(MEASURES)))
    for row, density in enumerate(DENSITIES):
        counts = tuple(count_for_density(stack.num_slices, density=density) for stack in stacks)
        for column, seed in enumerate(SEEDS):
            request = SelectionRequest(
                counts=None if name == ANYWHERE else counts,
                total=sum(counts),
                seed=seed,
                labels=dataset.labels,
                cache=cache,
                weights=arguments.weights,
                num_workers=arguments.num_workers,
            )
            chosen = load_selector(name.split(" ", maxsplit=1)[0])(stacks, request=request)
            found[row, column] = caught(
                [
                    [item.index for item in chosen if item.stack == number]
                    for number in range(len(stacks))
                ],
                pixels,
            )
    return [
        " / ".join(
            f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}" for values in by_density
        )
        for by_density in np.moveaxis(found, 2, 0)
    ]


def caught(chosen: Sequence[Sequence[int]], pixels: Sequence[np.ndarray]) -> tuple[float, ...]:
    hit = [pixels_KC[list(slices)] for slices, pixels_KC in zip(chosen, pixels, strict=True)]
    return tuple(
        sum(of(part) for part in hit) / sum(of(part) for part in pixels)
        for of in (
            lambda pixels_KC: int(pixels_KC.any(axis=1).sum()),
            lambda pixels_KC: int(pixels_KC.sum()),
            lambda pixels_KC: int(pixels_KC.any(axis=0).sum()),
        )
    )


if __name__ == "__main__":
    main()
