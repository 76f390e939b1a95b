"""Seconds every selector takes per scan, beside P23's table 1; prints a Markdown table.

    python tests/performance/selector_speed.py [DATASET...] [--selectors NAME...] [--cases N]

Besides the datasets one made-up scan of 155 slices with 240 × 240 voxels is timed, the size of
P23's BraTS19 volumes. Times include reading, and training where features are learned, on one
thread; the wall clock is what a user waits for, the processor's time what the work costs on a
machine that others use too. Of `--repeats` runs the fastest counts. AlexNet's weights are random:
they take the same time.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from sparseunet.annotation.allocation import count_for_density
from sparseunet.annotation.selection import SELECTORS, load_selector
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import load_dataset
from sparseunet.data.synthetic import CLASSES, make_scan

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from phantoms import alexnet_weights

P23_S = {"fixed": 0.764, "kmeans": 7.27, "histogram": 1.77, "perceptual": 64.0, "ssim": 143.0}
"""Table 1: seconds for one volume of BraTS19."""
DENSITY = 0.2
SHAPE = (155, 240, 240)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path, nargs="*")
    parser.add_argument("--selectors", nargs="+", default=list(SELECTORS))
    parser.add_argument("--cases", type=int, default=10, help="of every dataset, the first ones")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = alexnet_weights(folder / "alexnet-random.pth")
        groups = {}
        for path in arguments.datasets:
            dataset = load_dataset(path)
            groups[dataset.name] = (stacks_of(dataset.cases[: arguments.cases]), dataset.labels)
        groups["240 × 240 × 155"] = (
            stacks_of([made_up_case(folder)]),
            LabelSchema(classes=CLASSES, regions={}),
        )
        print("Seconds per scan, wall (processor)\n")
        print(
            "| selector |",
            " | ".join(groups),
            "| Payer et al. 2023 | Payer et al. 2023 / processor |",
        )
        print("| --- |", " | ".join("---" for _ in groups), "| --- | --- |")
        for selector in arguments.selectors:
            times = [
                seconds_per_scan(selector, stacks, labels, weights, arguments.repeats)
                for stacks, labels in groups.values()
            ]
            cells = [f"{wall_s:.3g} ({processor_s:.3g})" for wall_s, processor_s in times]
            paper_s = P23_S.get(selector)
            versus = [f"{paper_s:g}", f"{paper_s / times[-1][1]:.0f}"] if paper_s else ["", ""]
            print("|", " | ".join([selector, *cells, *versus]), "|", flush=True)


def stacks_of(cases: Sequence[Case]) -> list[SliceStack]:
    geometries = [read_geometry(case.images[0]) for case in cases]
    return [
        SliceStack(case=case, axis=0, num_slices=geometry.shape[0], spacing_mm=geometry.spacing_mm)
        for case, geometry in zip(cases, geometries, strict=True)
    ]


def made_up_case(folder: Path) -> Case:
    """Write one scan in air, like a skull-stripped head, and its labels."""
    scan = make_scan(seed=0, shape=(SHAPE[0], 150, 150))
    voxels_ZYX, labels_ZYX = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    depth, height, width = (min(*sizes) for sizes in zip(scan.voxels_ZYX.shape, SHAPE, strict=True))
    place = (slice(depth), slice(40, 40 + height), slice(40, 40 + width))
    voxels_ZYX[place] = scan.voxels_ZYX[:depth, :height, :width]
    labels_ZYX[place] = scan.labels_ZYX[:depth, :height, :width]
    geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
    write_image(folder / "image.nii.gz", voxels_ZYX, geometry)
    write_label_map(folder / "label.nii.gz", labels_ZYX, geometry)
    return Case(name="made_up", images=(folder / "image.nii.gz",), label=folder / "label.nii.gz")


def seconds_per_scan(
    selector: str, stacks: Sequence[SliceStack], labels: LabelSchema, weights: Path, repeats: int
) -> tuple[float, float]:
    counts = tuple(count_for_density(stack.num_slices, density=DENSITY) for stack in stacks)
    request = SelectionRequest(counts=counts, total=sum(counts), labels=labels, weights=weights)
    choose = load_selector(selector)
    warm_up = SelectionRequest(  # what is imported once is not the selector's time
        counts=(1,), total=1, labels=labels, weights=weights, time_budget_s=0.0
    )
    choose(stacks[:1], request=warm_up)
    times = []
    with threadpool_limits(limits=1):
        for _ in range(repeats):
            start, start_processor = time.perf_counter(), time.process_time()
            choose(stacks, request=request)
            times.append((time.perf_counter() - start, time.process_time() - start_processor))
    wall_s, processor_s = min(times, key=lambda pair: pair[1])
    return wall_s / len(stacks), processor_s / len(stacks)


if __name__ == "__main__":
    main()
