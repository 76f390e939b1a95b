"""Measure a dataset with both packages and plan it, and compare what they found.

Geometry and plans must be equal. Intensities cannot be: nnU-Net draws floor(1e8 / cases) foreground
voxels of each case with replacement, sparseunet uses every voxel with each case weighted equally,
which is what the draw estimates. So each of nnU-Net's figures is shown beside the error that its
draw has: one standard error if the draws of all cases were independent, and if they all erred the
same way, which is possible as nnU-Net starts every case with the same seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from both_packages import Bench, add_arguments, bench, report

from sparseunet.data.io import read_annotation, read_image
from sparseunet.data.load import load_dataset

PLANNERS = {
    "default": ("ExperimentPlanner", "nnUNetPlans"),
    "ResEncM": ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
    "ResEncL": ("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans"),
    "ResEncXL": ("nnUNetPlannerResEncXL", "nnUNetResEncUNetXLPlans"),
}
DRAWN_VOXELS = 10**8
INTENSITIES = "foreground_intensity_properties_per_channel"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--dataset", default="Dataset004_Hippocampus", help="a folder of --data")
    arguments = parser.parse_args()
    with bench(arguments) as where:
        dataset = where.link(arguments.data / arguments.dataset)
        theirs, ours = _measure(where, dataset, num_workers=arguments.num_workers)
        rows = _compare_exactly(where, dataset, theirs, ours)
        errors = _compare_intensities(where.raw / dataset, theirs, ours)
    report(rows, arguments, intensities=errors)
    print()
    report(errors, argparse.Namespace(output=None))
    raise SystemExit(0 if all(row["equal"] for row in rows) else 1)


def _measure(where: Bench, dataset: str, *, num_workers: int) -> tuple[dict, dict]:
    """Run fingerprint and planners of both; return the fingerprints."""
    number, workers = int(dataset[7:10]), ("-np", num_workers)
    where.run(where.nnunet("extract_fingerprint", "-d", number, *workers))
    where.run(where.sparseunet("extract_fingerprint", "-d", number, *workers))
    for planner, (nnunet_name, _) in PLANNERS.items():
        where.run(where.nnunet("plan_experiment", "-d", number, "-pl", nnunet_name))
        where.run(where.sparseunet("plan_experiment", "-d", number, "-pl", planner))
    theirs, ours = (
        _read(where.preprocessed(package, dataset) / "dataset_fingerprint.json")
        for package in ("nnunet", "sparseunet")
    )
    return theirs, ours


def _compare_exactly(where: Bench, dataset: str, theirs: dict, ours: dict) -> list[dict[str, Any]]:
    rows = [
        {"what": f"fingerprint: {key}", "equal": theirs[key] == ours[key], "differing": ""}
        for key in ("shapes_after_crop", "spacings", "median_relative_size_after_cropping")
    ]
    for planner, (_, plans_name) in PLANNERS.items():
        first, second = (
            _read(where.preprocessed(package, dataset) / f"{plans_name}.json")
            for package in ("nnunet", "sparseunet")
        )
        keys = (first.keys() | second.keys()) - {"sparseunet", INTENSITIES}
        differing = sorted(key for key in keys if first.get(key) != second.get(key))
        rows.append(
            {
                "what": f"plans without intensities: {planner}",
                "equal": not differing,
                "differing": ", ".join(differing),
            }
        )
    return rows


def _compare_intensities(folder: Path, theirs: dict, ours: dict) -> list[dict[str, Any]]:
    rows = []
    for channel, by_case in enumerate(_foreground(folder)):
        found, expected = theirs[INTENSITIES][str(channel)], ours[INTENSITIES][str(channel)]
        drawn = DRAWN_VOXELS // len(by_case)
        cases = [values.astype(np.float64) for values in by_case if values.size]
        for name, error in _errors(cases, drawn).items():
            difference = found[name] - expected[name]
            rows.append(
                {
                    "channel": channel,
                    "statistic": name,
                    "nnU-Net": found[name],
                    "sparseunet": expected[name],
                    "difference": difference,
                    "standard error, independent": error[0],
                    "standard error, same way": error[1],
                    "within three": abs(difference) <= 3 * error[1],
                }
            )
    return rows


def _foreground(folder: Path) -> list[list[np.ndarray]]:
    """Return per channel and case the intensities of labelled foreground."""
    dataset = load_dataset(folder)
    channels: list[list[np.ndarray]] = [[] for _ in dataset.channel_names]
    for case in dataset.cases:
        assert case.label is not None
        image, (annotation, _) = (
            read_image(case.images),
            read_annotation(case.label, dataset.labels),
        )
        for found, voxels_ZYX in zip(channels, image.voxels_CZYX, strict=True):
            found.append(voxels_ZYX[annotation.labels_ZYX > 0])
    return channels


def _errors(cases: list[np.ndarray], drawn: int) -> dict[str, tuple[float, float]]:
    """Return per statistic the standard error of `drawn` draws a case, independent and not."""
    count = len(cases)
    center = float(np.mean([values.mean() for values in cases]))
    scale = float(np.sqrt(np.mean([np.square(values - center).mean() for values in cases])))

    def of_a_mean(parts: list[np.ndarray]) -> tuple[float, float]:
        deviations = np.array([part.std() for part in parts]) / np.sqrt(drawn)
        return float(np.sqrt(np.square(deviations).sum()) / count), float(deviations.mean())

    # The deviation's error follows from that of the mean square: d sqrt(v) = dv / (2 sqrt(v)).
    square = of_a_mean([np.square(values - center) for values in cases])
    errors = {"mean": of_a_mean(cases), "std": (square[0] / 2 / scale, square[1] / 2 / scale)}
    values = np.concatenate(cases)
    weights = np.concatenate([np.full(part.size, 1 / part.size / count) for part in cases])
    order = np.argsort(values)
    values, cumulative = values[order], np.cumsum(weights[order])
    for name, share in (("percentile_00_5", 0.005), ("median", 0.5), ("percentile_99_5", 0.995)):
        spread = []
        for independent in (count, 1):
            rank_error = np.sqrt(share * (1 - share) / (drawn * independent))
            low, high = np.interp([share - rank_error, share + rank_error], cumulative, values)
            gap = np.diff(values[np.searchsorted(cumulative, share) - 1 :][:3]).max()
            spread.append(float(max((high - low) / 2, gap)))
        errors[name] = (spread[0], spread[1])
    return errors


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
