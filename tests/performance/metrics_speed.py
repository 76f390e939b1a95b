"""Our metrics beside those of SimpleITK, MONAI and DeepMind's surface-distance.

    python tests/performance/metrics_speed.py [--pairs N] [--repeats N] [-o FILE]

Prints two Markdown tables: the largest difference of every metric over random pairs of shapes
(anisotropic voxels, some touching the border, some disjoint, some empty), and the processor's
seconds per case on one thread, the fastest of `--repeats`. Exits with 1 where numbers of the same
definition differ by more than 1e-3. MONAI and surface-distance are left out unless they can be
imported; nothing else needs them, so install them aside and put them last on the path:

    python -m pip install --no-deps --target ORACLES monai surface-distance einops
    PYTHONPATH=$PWD:ORACLES python tests/performance/metrics_speed.py

(`--no-deps`, so that no other torch or NumPy comes along.)
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import ndimage
from threadpoolctl import threadpool_limits

from sparseunet.artifacts import write_json
from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.surfaces import find_surface, summarise_distances

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from phantoms import blobs, sphere

TOLERANCE_MM = 1.0
AGREE = 1e-3
METRICS = ("Dice", "IoU", "HD", "HD95", "ASSD", "AHD", "NSD")
SAME_DEFINITION = {"SimpleITK": METRICS, "MONAI": METRICS, "full EDT": METRICS}
"""DeepMind's numbers are of another surface; only its Dice is of the same definition."""

Pair = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]
Found = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    tools: dict[str, Callable[[Pair], Found]] = {"full EDT": by_edt, "SimpleITK": by_simpleitk}
    if find_spec("monai"):
        tools["MONAI"] = by_monai
    if find_spec("surface_distance"):
        tools["surface-distance"] = by_deepmind
    with threadpool_limits(limits=1):
        limit_torch(tools)
        pairs = [random_pair(seed) for seed in range(arguments.pairs)]
        differences = {name: compare(pairs, tool) for name, tool in tools.items()}
        packages = {name: tool for name, tool in tools.items() if tool is not by_edt}
        empty = {name: on_empty(tool) for name, tool in {"ours": ours, **packages}.items()}
        seconds = measure({"ours": ours, **tools}, arguments.repeats)
    show(differences, empty, seconds, num_pairs=arguments.pairs)
    if arguments.output:
        content = {"differences": differences, "empty": empty, "seconds": seconds}
        write_json(arguments.output, content)
    wrong = [
        f"{tool} {metric}: {differences[tool][metric]}"
        for tool, metrics in SAME_DEFINITION.items()
        if tool in differences
        for metric in metrics
        if differences[tool].get(metric, 0.0) > AGREE
    ]
    print("\n".join(["", "Disagree:", *wrong] if wrong else ["", "All of one definition agree."]))
    return 1 if wrong else 0


def random_pair(seed: int) -> Pair:
    """Return two masks and a spacing; every fourth pair is of blobs that touch the border."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(16, 56, 3).tolist())
    spacing_mm = tuple(np.round(random.uniform(0.5, 4.0, 3), 2).tolist())
    if seed % 4 == 0:
        masks = [blobs(shape, seed=2 * seed + i, num_classes=1, width=3.0) > 0 for i in (0, 1)]
        return masks[0], masks[1], spacing_mm
    extent_mm = np.array(shape) * spacing_mm
    masks = []
    for _ in range(2):
        radius_mm = float(random.uniform(0.15, 0.5) * extent_mm.min())
        center = random.uniform(0.1, 0.9, 3) * shape
        mask = sphere(shape, center=center, radius_mm=radius_mm, spacing_mm=spacing_mm)
        mask[tuple(int(x) for x in center)] = True
        masks.append(mask | (ndimage.binary_dilation(mask) & (random.random(shape) < 0.3)))
    return masks[0], masks[1], spacing_mm


def ours(pair: Pair) -> Found:
    reference, prediction, spacing_mm = pair
    scores = score_label_maps(
        reference.astype(np.uint8),
        prediction.astype(np.uint8),
        classes={"x": (1,)},
        spacing_mm=spacing_mm,
        tolerance_mm=TOLERANCE_MM,
    )["x"]
    return {
        "Dice": scores.dice,
        "IoU": scores.iou,
        "HD": scores.surfaces.hd_mm,
        "HD95": scores.surfaces.hd95_mm,
        "ASSD": scores.surfaces.assd_mm,
        "AHD": scores.surfaces.average_hausdorff_mm,
        "NSD": scores.surfaces.surface_dice,
    }


def by_edt(pair: Pair) -> Found:
    """The same definition by distance maps of the whole image, the other way one could go."""
    reference, prediction, spacing_mm = pair
    surfaces = [find_surface(mask) for mask in (reference, prediction)]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    scores = summarise_distances(
        maps[1][surfaces[0]], maps[0][surfaces[1]], tolerance_mm=TOLERANCE_MM
    )
    return {
        "HD": scores.hd_mm,
        "HD95": scores.hd95_mm,
        "ASSD": scores.assd_mm,
        "AHD": scores.average_hausdorff_mm,
        "NSD": scores.surface_dice,
    }


def by_simpleitk(pair: Pair) -> Found:
    reference, prediction, spacing_mm = pair
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(to_itk(mask, spacing_mm) for mask in (reference, prediction)))
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*(to_itk(find_surface(mask), spacing_mm) for mask in (reference, prediction)))
    return {
        "Dice": overlap.GetDiceCoefficient(),
        "IoU": overlap.GetJaccardCoefficient(),
        "HD": hausdorff.GetHausdorffDistance(),
        "AHD": hausdorff.GetAverageHausdorffDistance(),
    }


def to_itk(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    return image


def by_monai(pair: Pair) -> Found:
    import torch

    metrics = import_module("monai.metrics")
    reference, prediction, spacing_mm = pair
    maps = {
        "y_pred": torch.from_numpy(prediction[None, None].astype(np.float32)),
        "y": torch.from_numpy(reference[None, None].astype(np.float32)),
    }
    options = {"include_background": True, "spacing": spacing_mm}
    return {
        "Dice": float(metrics.compute_dice(**maps, ignore_empty=False)),
        "IoU": float(metrics.compute_iou(**maps, ignore_empty=False)),
        "HD": float(metrics.compute_hausdorff_distance(**maps, **options)),
        "HD95": float(metrics.compute_hausdorff_distance(**maps, **options, percentile=95)),
        "ASSD": float(metrics.compute_average_surface_distance(**maps, **options, symmetric=True)),
        "NSD": float(
            metrics.compute_surface_dice(**maps, **options, class_thresholds=[TOLERANCE_MM])
        ),
    }


def by_deepmind(pair: Pair) -> Found:
    surface_distance = import_module("surface_distance")
    reference, prediction, spacing_mm = pair
    found = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    directions = surface_distance.compute_average_surface_distance(found)
    return {
        "Dice": surface_distance.compute_dice_coefficient(reference, prediction),
        "HD": surface_distance.compute_robust_hausdorff(found, 100),
        "HD95": surface_distance.compute_robust_hausdorff(found, 95),
        "AHD": float(np.mean(directions)),
        "NSD": surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
    }


def limit_torch(tools: dict[str, Callable[[Pair], Found]]) -> None:
    if "MONAI" in tools:
        import torch

        torch.set_num_threads(1)


def compare(pairs: list[Pair], tool: Callable[[Pair], Found]) -> Found:
    """Return the largest absolute difference from ours, by metric."""
    largest: Found = {}
    for pair in pairs:
        expected = ours(pair)
        for metric, value in tool(pair).items():
            difference = abs(float(value) - expected[metric])
            largest[metric] = max(largest.get(metric, 0.0), difference)
    return largest


def on_empty(tool: Callable[[Pair], Found]) -> dict[str, str]:
    """Return what a tool says about empty maps: Dice and HD95 (or HD), or that it raises."""
    full = np.zeros((8, 9, 10), bool)
    full[2:5, 2:6, 3:7] = True
    cases = {"both": (full & False, full & False), "reference": (full & False, full)}
    cases["prediction"] = (full, full & False)
    said = {}
    for name, (reference, prediction) in cases.items():
        try:
            found = tool((reference, prediction, (1.0, 1.0, 1.0)))
            said[name] = ", ".join(
                f"{metric} {found[metric]:.4g}" for metric in ("Dice", "HD95") if metric in found
            )
        except (RuntimeError, ValueError, IndexError, AttributeError) as error:
            said[name] = type(error).__name__
    return said


def measure(tools: dict[str, Callable[[Pair], Found]], repeats: int) -> dict[str, Found]:
    """Return processor seconds per pair by kind of pair and tool."""
    spacing_mm = (1.5, 1.0, 1.0)
    blob = [
        blobs((128, 128, 128), seed=seed, num_classes=1, share=0.08, width=7.0) > 0
        for seed in (0, 1)
    ]
    organ = sphere((200, 200, 200), radius_mm=60)
    good = organ ^ (find_surface(organ) & (np.random.default_rng(0).random(organ.shape) < 0.5))
    corner = [sphere((160, 160, 160), center=[at] * 3, radius_mm=20) for at in (25, 130)]
    kinds: dict[str, Pair] = {
        "two blobs, 128³": (blob[0], blob[1], spacing_mm),
        "organ and good prediction, 200³": (organ, good, spacing_mm),
        "far apart, 160³": (corner[0], corner[1], spacing_mm),
    }
    found: dict[str, Found] = {}
    for kind, pair in kinds.items():
        found[kind] = {}
        for name, tool in tools.items():
            times = []
            for _ in range(repeats):
                start = time.process_time()
                tool(pair)
                times.append(time.process_time() - start)
            found[kind][name] = min(times)
    return found


def show(
    differences: dict[str, Found],
    empty: dict[str, dict[str, str]],
    seconds: dict[str, Found],
    *,
    num_pairs: int,
) -> None:
    print(f"Largest difference from ours over {num_pairs} pairs\n")
    print("| tool |", " | ".join(METRICS), "|")
    print("| --- |", " | ".join("---" for _ in METRICS), "|")
    for tool, found in differences.items():
        cells = [f"{found[metric]:.1e}" if metric in found else "" for metric in METRICS]
        print("|", " | ".join([tool, *cells]), "|")
    print("\nWhat is said about empty maps\n")
    print("| tool | both empty | reference empty | prediction empty |")
    print("| --- | --- | --- | --- |")
    for tool, said in empty.items():
        print("|", " | ".join([tool, said["both"], said["reference"], said["prediction"]]), "|")
    names = ["ours", *differences]
    print("\nProcessor seconds for all of a tool's metrics\n")
    print("| pair |", " | ".join(names), "|")
    print("| --- |", " | ".join("---" for _ in names), "|")
    for kind, times in seconds.items():
        print("|", " | ".join([kind, *(f"{times[name]:.3f}" for name in names)]), "|")


if __name__ == "__main__":
    sys.exit(main())
