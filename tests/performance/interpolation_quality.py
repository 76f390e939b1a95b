"""How good interpolated labels are: against dense labels, and against what was expected of them.

    python tests/performance/interpolation_quality.py --data FOLDER --output TABLES.md

FOLDER holds Dataset004_Hippocampus and Dataset027_ACDC. Constants of the methods and their tables
of confidence were chosen on hippocampus cases 41 to 80 and ACDC's training scans 1 to 16; the cases
here are others: hippocampus 1 to 40, ACDC's training scans 17 and on and its test scans.
`learned` and `combined` train on the images of the cases that they fill, once per axis, on the CPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.allocation import count_for_density
from sparseunet.annotation.interpolation.fill_dataset import (
    InterpolationOptions,
    fill_dataset,
    judge_dataset,
)
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.selection.fixed import fixed_interval_slices
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_image, read_label_map, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.data.provenance import read_case_annotation

DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.8)
CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.75, 0.85, 0.9, 0.95, 0.98, 1.001)

Choose = Callable[[int], Sequence[int]]
"""From the number of slices to those that stay annotated."""


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Cases with dense labels."""

    name: str
    dataset: Dataset
    axes: tuple[int, ...]
    cache: Path
    """Keeps the networks of methods that train."""


def main() -> None:
    """Write all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["nearest", "shape", "spline", "fused"])
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--max-cases", type=int, default=40)
    parser.add_argument("--sets", nargs="+", default=["hippocampus", "ACDC"])
    parser.add_argument("--axes", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--densities", nargs="*", type=float, default=list(DENSITIES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        sets = [
            replace(dense, axes=tuple(axis for axis in dense.axes if axis in arguments.axes))
            for dense in dense_sets(arguments.data, arguments.max_cases, Path(cache))
            if dense.name in arguments.sets
        ]
        lines: list[str] = []
        for text in tables(sets, arguments.methods, arguments.densities, arguments.num_workers):
            print(text, flush=True)
            lines.append(text)
            arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def dense_sets(folder: Path, max_cases: int, cache: Path) -> Iterator[Dense]:
    """Yield the cases that nothing was chosen on."""
    hippocampus = load_dataset(folder / "Dataset004_Hippocampus")
    cases = hippocampus.cases[:max_cases]
    dataset = replace(hippocampus, cases=cases)
    yield Dense(name="hippocampus", dataset=dataset, axes=(0, 1, 2), cache=cache)
    acdc = load_dataset(folder / "Dataset027_ACDC")
    held_out = [
        Case(name=path.name.removesuffix(".nii.gz"), images=test_images(acdc, path), label=path)
        for path in sorted((acdc.folder / "labelsTs").glob("*.nii.gz"))
    ]
    cases = (*acdc.cases[16:], *held_out)[:max_cases]
    yield Dense(name="ACDC", dataset=replace(acdc, cases=cases), axes=(0,), cache=cache)


def test_images(dataset: Dataset, label: Path) -> tuple[Path, ...]:
    """Return the image files of a test case."""
    stem = label.name.removesuffix(".nii.gz")
    return tuple(sorted((dataset.folder / "imagesTs").glob(f"{stem}_*.nii.gz")))


def tables(
    sets: Sequence[Dense], methods: Sequence[str], densities: Sequence[float], num_workers: int
) -> Iterator[str]:
    """Yield the lines of all tables."""
    if {"learned", "combined"} & set(methods):
        yield from training_lines(sets)
    yield from fifth_slice_lines(sets, methods, num_workers)
    pairs: list[tuple[float, float, bool, bool]] = []
    yield "\n## IoU of densified against dense labels (Z25 table 5), mean ± sd over cases\n"
    yield "| dataset | axis | method | " + " | ".join(f"{rho:g}" for rho in densities) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(densities)
    for dense in sets:
        for axis in dense.axes:
            rows: dict[str, list[str]] = {method: [] for method in methods}
            for rho in densities:
                truth: dict[str, float] = {}
                for method in methods:
                    filled = fill(dense, axis, fixed(rho), method, num_workers)
                    scores = [mean_iou(real, guess.labels_ZYX) for real, guess in filled]
                    rows[method].append(f"{np.mean(scores):.3f} ± {np.std(scores):.3f}")
                    truth[method] = filled_iou(filled)
                pairs += estimates(dense, axis, rho, truth, num_workers)
            for method, cells in rows.items():
                yield f"| {dense.name} | {'zyx'[axis]} | {method} | " + " | ".join(cells) + " |"
    if pairs:
        yield "\n## Quality without dense labels\n"
        yield from estimate_lines(pairs)


def fifth_slice_lines(
    sets: Sequence[Dense], methods: Sequence[str], num_workers: int
) -> Iterator[str]:
    """Yield Dice and calibration with every fifth slice annotated."""
    right: dict[tuple[str, str], np.ndarray] = {}
    yield "## Every fifth slice: Dice of the missing slices, mean ± sd over cases\n"
    yield "Second: gaps with the class at both ends only.\n"
    yield "| dataset | axis | " + " | ".join(methods) + " |"
    yield "| --- | --- |" + " --- |" * len(methods)
    for dense in sets:
        for axis in dense.axes:
            cells = []
            for method in methods:
                filled = fill(dense, axis, lambda size: range(0, size, 5), method, num_workers)
                scores = np.array([fifth_slice_dice(*item, axis) for item in filled])
                key = (f"{dense.name} {'zyx'[axis]}", method)
                right[key] = sum(calibration(*item) for item in filled)
                mean, deviation = np.nanmean(scores, axis=0), np.nanstd(scores, axis=0)
                cells.append(f"{mean[0]:.3f} ± {deviation[0]:.3f}, {mean[1]:.3f}")
            yield f"| {dense.name} | {'zyx'[axis]} | " + " | ".join(cells) + " |"
    yield "\n## Confidence against the share that is right, every fifth slice\n"
    yield from calibration_lines(right)


def training_lines(sets: Sequence[Dense]) -> Iterator[str]:
    """Train the networks of learned propagation and yield how long that took."""
    from sparseunet.annotation.interpolation.propagation_scans import trained_network

    for dense in sets:
        for axis in dense.axes:
            request = InterpolationRequest(axis=axis, scans=dense.dataset.cases, cache=dense.cache)
            image = read_image(dense.dataset.cases[0].images)
            start = time.perf_counter()
            trained_network(image, request)
            seconds = time.perf_counter() - start
            yield f"- trained across {'zyx'[axis]} of {dense.name} in {seconds:.0f} s"
    yield ""


def fixed(rho: float) -> Choose:
    """Return equal intervals at a density."""
    return lambda size: fixed_interval_slices(size, count=count_for_density(size, density=rho))


def sparse_copy(dense: Dense, axis: int, choose: Choose, folder: Path) -> Dataset:
    """Write the labels with all but some slices hidden."""
    ignore = max(dense.dataset.labels.values) + 1
    cases = []
    for case in dense.dataset.cases:
        labels_ZYX, geometry = read_label_map(case.label)
        annotation = Annotation.from_label_map(labels_ZYX, ignore=None)
        hidden = hide_slices(annotation, keep=choose(labels_ZYX.shape[axis]), axis=axis)
        path = folder / "sparse" / f"{case.name}.nii.gz"
        write_label_map(path, hidden.to_label_map(ignore=ignore), geometry)
        cases.append(replace(case, label=path))
    labels = replace(dense.dataset.labels, ignore=ignore)
    return replace(dense.dataset, cases=tuple(cases), labels=labels)


def fill(
    dense: Dense,
    axis: int,
    choose: Choose,
    method: str,
    num_workers: int,
) -> list[tuple[np.ndarray, Annotation]]:
    """Return dense labels and filled annotation of every case."""
    with tempfile.TemporaryDirectory() as folder:
        sparse = sparse_copy(dense, axis, choose, Path(folder))
        options = InterpolationOptions(method=method, axis=axis, cache=dense.cache)
        filled, _ = fill_dataset(
            sparse, options=options, folder=Path(folder) / "filled", num_workers=num_workers
        )
        return [
            (read_label_map(real.label)[0], read_case_annotation(case, filled.labels)[0])
            for real, case in zip(dense.dataset.cases, filled.cases, strict=True)
        ]


def fifth_slice_dice(real: np.ndarray, guess: Annotation, axis: int) -> tuple[float, float]:
    """Return the mean Dice over classes of missing slices, and of those with the class around."""
    real_KYX = np.moveaxis(real, axis, 0)
    guess_KYX = np.moveaxis(guess.labels_ZYX, axis, 0)
    missing = np.arange(len(real_KYX)) % 5 != 0
    everywhere, enclosed = [], []
    for value in np.unique(real)[1:]:
        present = (real_KYX == value).any(axis=(1, 2))
        both = np.zeros(len(real_KYX), bool)
        for before in range(0, len(real_KYX) - 5, 5):
            both[before + 1 : before + 5] = present[before] and present[before + 5]
        for slices, scores in ((missing, everywhere), (both, enclosed)):
            a, b = real_KYX[slices] == value, guess_KYX[slices] == value
            if a.any() or b.any():
                scores.append(2 * np.count_nonzero(a & b) / (a.sum() + b.sum()))
    return float(np.mean(everywhere)), float(np.mean(enclosed)) if enclosed else np.nan


def calibration(real: np.ndarray, guess: Annotation) -> np.ndarray:
    """Return per bin of confidence: voxels, sum of confidence, voxels that are right."""
    new = guess.source_ZYX == Source.INTERPOLATED
    confidence = guess.confidence_ZYX[new]
    bins = np.digitize(confidence, CONFIDENCES) - 1
    is_right = (real == guess.labels_ZYX)[new]
    count = len(CONFIDENCES)
    return np.stack(
        [np.bincount(bins, weights=w, minlength=count) for w in (None, confidence, is_right)],
        axis=1,
    )


def calibration_lines(right: dict[tuple[str, str], np.ndarray]) -> Iterator[str]:
    """Yield mean confidence and share that is right per bin, and the expected calibration error."""
    bins = " | ".join(f"{low:g} and up" for low in CONFIDENCES[:-1])
    yield f"| dataset | method | error | {bins} |"
    yield "| --- | --- | --- |" + " --- |" * (len(CONFIDENCES) - 1)
    for (name, method), sums in right.items():
        cells = [
            f"{confidence / count:.3f}: {correct / count:.3f}" if count else "–"
            for count, confidence, correct in sums[:-1]
        ]
        error = np.abs(sums[:, 1] - sums[:, 2]).sum() / sums[:, 0].sum()
        yield f"| {name} | {method} | {error:.4f} | " + " | ".join(cells) + " |"


def mean_iou(real: np.ndarray, guess: np.ndarray) -> float:
    """Return the mean over the classes of a case."""
    return float(
        np.mean(
            [
                np.count_nonzero((real == value) & (guess == value))
                / np.count_nonzero((real == value) | (guess == value))
                for value in np.unique(real)[1:]
            ]
        )
    )


def filled_iou(filled: Sequence[tuple[np.ndarray, Annotation]]) -> float:
    """Return the batched IoU of filled voxels, mean over classes."""
    values = np.unique(np.concatenate([np.unique(real) for real, _ in filled]))[1:]
    both, either = np.zeros(len(values)), np.zeros(len(values))
    for real, guess in filled:
        new = guess.source_ZYX == Source.INTERPOLATED
        for at, value in enumerate(values):
            a, b = (real == value) & new, (guess.labels_ZYX == value) & new
            both[at] += np.count_nonzero(a & b)
            either[at] += np.count_nonzero(a | b)
    return float(np.mean(both / np.maximum(either, 1)))


def estimates(
    dense: Dense, axis: int, rho: float, truth: dict[str, float], num_workers: int
) -> list[tuple[float, float, bool, bool]]:
    """Return expected and true IoU, and whether method and gap were judged right."""
    with tempfile.TemporaryDirectory() as folder:
        sparse = sparse_copy(dense, axis, fixed(rho), Path(folder))
        verdict = judge_dataset(sparse, axis=axis, num_workers=num_workers)
    if verdict is None:
        return []
    known = {item.method: item.iou for item in verdict.estimates if item.method in truth}
    if not known or verdict.method not in truth:
        return []
    best = max(truth[method] for method in known)
    chose_well = truth[verdict.method] > best - 0.02
    return [
        (iou, truth[method], chose_well, (iou >= 0.55) == (truth[method] >= 0.55))
        for method, iou in known.items()
    ]


def estimate_lines(pairs: list[tuple[float, float, bool, bool]]) -> Iterator[str]:
    table = np.array(pairs, float)
    off = table[:, 0] - table[:, 1]
    yield f"- {len(table)} pairs of expected and true IoU of filled voxels"
    yield f"- correlation {np.corrcoef(table[:, 0], table[:, 1])[0, 1]:.3f}"
    yield f"- mean difference {off.mean():+.3f}, mean absolute difference {np.abs(off).mean():.3f}"
    yield f"- the method chosen is within 0.02 of the best it was one of: {table[:, 2].mean():.0%}"
    yield f"- on the right side of 0.55: {table[:, 3].mean():.0%}"


if __name__ == "__main__":
    main()
