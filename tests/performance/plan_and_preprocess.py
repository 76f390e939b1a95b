"""Time plan_and_preprocess of nnU-Net and of sparseunet in turn, on the same data and workers.

Both check the dataset first (nnU-Net: --verify_dataset_integrity), and everything they wrote is
removed before every run. nnU-Net gets as many workers for its fingerprint as for preprocessing,
unless --nnunet-npfp says otherwise; its default, which users get who give -np only, is 8. The files
lie in the page cache for all runs but the first.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from both_packages import Bench, add_arguments, bench, report
from measure import Cost, measure
from synthetic_ct import LARGE_SHAPE, LARGE_SPACINGS_MM, write_dataset

FIGURES = ("wall_s", "processor_s", "peak_tree_mib", "peak_process_mib")
DATASETS = {"hippocampus": ("2d", "3d_fullres"), "ct": ("3d_fullres",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=tuple(DATASETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nnunet-npfp", type=int, help="workers of nnU-Net's fingerprint")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with bench(arguments) as where:
        for name in arguments.datasets:
            dataset = where.link(_dataset(name, arguments.data, where))
            for repeat in range(arguments.repeats):
                for package in ("nnunet", "sparseunet"):
                    cost = _run(where, package, dataset, DATASETS[name], arguments)
                    print(f"{name} {package} {cost}", flush=True)
                    runs.append(
                        {"dataset": name, "package": package, "repeat": repeat, **asdict(cost)}
                    )
    report(_summary(runs), arguments, runs=runs, num_workers=arguments.num_workers)


def _dataset(name: str, data: Path, where: Bench) -> Path:
    if name == "hippocampus":
        return data / "Dataset004_Hippocampus"
    folder = where.root / "made" / "Dataset921_LargeCT"
    if (folder / "dataset.json").exists():
        return folder
    return write_dataset(folder, shape=LARGE_SHAPE, spacings_mm=LARGE_SPACINGS_MM)


def _run(
    where: Bench,
    package: str,
    dataset: str,
    configurations: tuple[str, ...],
    options: argparse.Namespace,
) -> Cost:
    where.forget()
    num_workers = options.num_workers
    arguments = ("plan_and_preprocess", "-d", int(dataset[7:10]), "-np", num_workers, "-c")
    if package == "nnunet":
        more = (
            "-npfp",
            options.nnunet_npfp or num_workers,
            "--verify_dataset_integrity",
            "--no_pbar",
        )
        command = where.nnunet(*arguments, *configurations, *more)
    else:
        command = where.sparseunet(*arguments, *configurations)
    log = where.root / f"{package}.log"
    cost = measure(command, environment=where.environment, log=log)
    if cost.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return cost


def _summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per dataset and figure the smallest of each package and their ratio."""
    rows = []
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        for figure in FIGURES:
            of = {
                package: [
                    run[figure]
                    for run in runs
                    if (run["dataset"], run["package"]) == (dataset, package)
                ]
                for package in ("nnunet", "sparseunet")
            }
            theirs, ours = min(of["nnunet"]), min(of["sparseunet"])
            rows.append(
                {
                    "dataset": dataset,
                    "figure": figure,
                    "nnU-Net": theirs,
                    "sparseunet": ours,
                    "sparseunet / nnU-Net": round(ours / theirs, 4),
                    "median ratio": round(
                        float(np.median(of["sparseunet"]) / np.median(of["nnunet"])), 4
                    ),
                }
            )
    return rows


if __name__ == "__main__":
    main()
