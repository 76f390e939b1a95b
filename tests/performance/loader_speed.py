"""Time the loaders of nnU-Net and of sparseunet alone, one process and one thread each, in turn.

nnU-Net's is the one that `nnUNet_n_proc_DA=0` gives. Both read what they preprocessed themselves
from the same scans, with the same patch and batch, and augment as nnU-Net does. Besides patches per
second it compares what comes out: mean and deviation of patches, and the share of voxels that are
exactly 0 (padding).
"""

import argparse
import json
import statistics
import sys
from typing import Any

import numpy as np
from both_packages import HERE, Bench, add_arguments, bench, report
from synthetic_ct import write_dataset

CASES = {
    "hippocampus 3d, batch 2": ("Dataset004_Hippocampus", "3d_fullres", 2, 60),
    "hippocampus 3d, batch 7": ("Dataset004_Hippocampus", "3d_fullres", 7, 20),
    "hippocampus 2d, batch 281": ("Dataset004_Hippocampus", "2d", 281, 4),
    "ACDC 3d, batch 2": ("Dataset027_ACDC", "3d_fullres", 2, 20),
    "synthetic CT 3d, batch 2": ("Dataset922_CubeCT", "3d_fullres", 2, 8),
}
"""Name to dataset, configuration, batch and number of batches of one run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=tuple(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, help="batches of one run (default: by case)")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with bench(arguments) as where:
        for name in arguments.cases:
            dataset, configuration, batch_size, count = CASES[name]
            _prepare(where, dataset, configuration, arguments)
            for repeat in range(arguments.repeats):
                for package in ("nnunet", "sparseunet"):
                    output = where.root / "batches.json"
                    asked = dataset, configuration, batch_size, arguments.batches or count, output
                    where.run(_command(where, package, *asked), OMP_NUM_THREADS="1")
                    figures = json.loads(output.read_text())
                    runs.append({"case": name, "package": package, "repeat": repeat, **figures})
                    print(
                        f"{name} {package} {_speed(figures, batch_size):.0f} patches/s", flush=True
                    )
    summary = [_summarise(name, runs) for name in arguments.cases]
    report(summary, arguments, repeats=arguments.repeats)


def _prepare(where: Bench, dataset: str, configuration: str, arguments: argparse.Namespace) -> None:
    """Preprocess with both packages, if that is not done yet."""
    folder = arguments.data / dataset
    if dataset == "Dataset922_CubeCT":
        folder = where.root / "made" / dataset
        if not (folder / "dataset.json").exists():
            write_dataset(folder, shape=(200, 200, 200), spacings_mm=[(1.0, 1.0, 1.0)] * 3)
    where.link(folder)
    number = int(dataset[7:10])
    if not (where.preprocessed("nnunet", dataset) / f"nnUNetPlans_{configuration}").exists():
        options = ["-np", arguments.num_workers, "-npfp", arguments.num_workers]
        where.run(where.nnunet("plan_and_preprocess", "-d", number, "-c", configuration, *options))
    if not (where.preprocessed("sparseunet", dataset) / f"nnUNetPlans_{configuration}").exists():
        options = ["-np", arguments.num_workers]
        where.run(
            where.sparseunet(
                "plan_and_preprocess", "-d", int(number), "-c", configuration, *options
            )
        )


def _command(where: Bench, package: str, dataset: str, *options: object) -> list[str]:
    if package == "nnunet":
        return where.nnunet_python(HERE / "in_nnunet" / "make_batches.py", dataset, *options)
    folder = where.preprocessed("sparseunet", dataset)
    return [sys.executable, str(HERE / "make_batches.py"), str(folder), *map(str, options)]


def _speed(figures: dict[str, Any], batch_size: int) -> float:
    """Patches per second of processor time; the first batch, which fills caches, is left out."""
    times_s = figures["processor_s"][1:] or figures["processor_s"]
    return batch_size * len(times_s) / sum(times_s)


def _summarise(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": name}
    batch_size = CASES[name][2]
    best = {}
    for package in ("nnunet", "sparseunet"):
        own = [run for run in runs if run["case"] == name and run["package"] == package]
        speeds = [_speed(run, batch_size) for run in own]
        best[package] = max(speeds)
        patches = np.array([patch for run in own for patch in run["patches"]])
        row[f"{package}, patches/s"] = round(max(speeds))
        row[f"{package}, median run"] = round(statistics.median(speeds))
        row[f"{package}, mean ± sd of patch means"] = _both(patches[:, 0])
        row[f"{package}, mean ± sd of patch deviations"] = _both(patches[:, 1])
        row[f"{package}, share of zeros"] = float(patches[:, 2].mean())
    row["ratio"] = best["sparseunet"] / best["nnunet"]
    return row


def _both(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std():.3f}"


if __name__ == "__main__":
    main()
