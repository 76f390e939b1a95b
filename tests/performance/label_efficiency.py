"""Train both packages on the same sparse labels with the same compute, and score dense test labels.

Arms: `nnunet` (its own trainer and ignore label), `sparseunet`, and `without-MEASURE`: sparseunet
with one of its measures for sparse labels taken back (`train_without.py`). Network, batch, steps,
precision (float32), labels and test scans are the same; predictions are made without mirroring.
In settings with a method of interpolation, e.g. `0.05-fused`, `sparseunet interpolate` has filled
the slices between the annotated ones before.

Each training is a row of a JSON lines file as soon as it is scored. The same command again skips
rows that are there, so a long comparison can be interrupted, extended and run in parts. `--show`
only prints the tables.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from both_packages import HERE, Bench, add_arguments, bench, markdown_table
from train_without import MEASURES

HIPPOCAMPUS, ACDC = "Dataset004_Hippocampus", "Dataset027_ACDC"
SETTINGS = {
    "dense": (HIPPOCAMPUS, HIPPOCAMPUS, None),
    "0.20": (HIPPOCAMPUS, "Dataset120_Hip20", None),
    "0.10": (HIPPOCAMPUS, "Dataset110_Hip10", None),
    "0.05": (HIPPOCAMPUS, "Dataset105_Hip05", None),
    "0.10-fused": (HIPPOCAMPUS, "Dataset210_Hip10Fused", None),
    "0.05-fused": (HIPPOCAMPUS, "Dataset205_Hip05Fused", None),
    "scribbles": (ACDC, "Dataset028_ACDCScribbles", [10, 128, 128]),
}
"""Name to source, dataset to train on and patch (None: the plan's)."""
CONFIGURATIONS = ["3d_fullres", "2d"]
ARMS = ["sparseunet", "nnunet", *(f"without-{measure}" for measure in MEASURES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS[:2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=500, help="a multiple of 50")
    parser.add_argument("--base-features", type=int, default=16)
    parser.add_argument("-c", "--configuration", default="3d_fullres", choices=CONFIGURATIONS)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.show:
        with bench(arguments) as where:
            for seed, setting, arm in product(arguments.seeds, arguments.settings, arguments.arms):
                _train_unless_there(where, arguments, setting, arm, seed)
    _show(_read(arguments.rows))


def _train_unless_there(
    where: Bench, arguments: argparse.Namespace, setting: str, arm: str, seed: int
) -> None:
    row: dict[str, Any] = {
        "setting": setting,
        "arm": arm,
        "seed": seed,
        "configuration": arguments.configuration,
        "iterations": arguments.iterations,
        "base_features": arguments.base_features,
        "batch_size": arguments.batch_size,
    }
    if any(row.items() <= each.items() for each in _read(arguments.rows)):
        return
    source = arguments.data / SETTINGS[setting][0]
    dataset = _dataset(where, arguments, setting)
    train = _nnunet if arm == "nnunet" else _sparseunet
    predictions, row["train_s"] = train(where, arguments, dataset, row)
    scores = predictions.parent / f"{predictions.name}.json"
    references = (source / "labelsTs").resolve()
    where.run(where.sparseunet("evaluate", references, predictions, "-o", scores))
    mean = json.loads(scores.read_text())["mean"]
    row["dice"] = {name: values["Dice"] for name, values in mean.items()}
    row["mean"] = statistics.mean(row["dice"].values())
    with arguments.rows.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def _dataset(where: Bench, arguments: argparse.Namespace, setting: str) -> str:
    """Make the labels of a setting, unless they are there, and return the dataset's name."""
    source, name, _ = SETTINGS[setting]
    made = where.raw / name
    if made.exists():
        return name
    where.link(arguments.data / HIPPOCAMPUS)
    if setting == "scribbles":
        made.mkdir(parents=True)
        of = (arguments.data / source).resolve()
        for folder in ("imagesTr", "imagesTs", "labelsTs"):
            (made / folder).symlink_to(of / folder)
        (made / "labelsTr").symlink_to(of / "labelsTr_scribble")
        (made / "dataset.json").write_bytes((of / "dataset_scribble.json").read_bytes())
    elif "-" in setting:
        density, method = setting.split("-")
        sparse = _dataset(where, arguments, density)
        where.run(where.sparseunet("interpolate", "-d", sparse, "--method", method, "-o", name))
    elif setting != "dense":
        flags = ["--density", setting, "--selector", "fixed", "--axis", "0", "-o", name]
        where.run(where.sparseunet("simulate_annotation", "-d", source, *flags))
    return name


def _prepare(where: Bench, package: str, dataset: str) -> None:
    if not where.preprocessed(package, dataset).exists():
        number = str(int(dataset[7:10]))
        flags = ["-d", number, "-c", *CONFIGURATIONS, "-np", "1"]
        if package == "nnunet":
            where.run(where.nnunet("plan_and_preprocess", *flags, "-npfp", "1"))
        else:
            where.run(where.sparseunet("plan_and_preprocess", *flags))


def _sparseunet(
    where: Bench,
    arguments: argparse.Namespace,
    dataset: str,
    row: dict[str, Any],
) -> tuple[Path, float]:
    _prepare(where, "sparseunet", dataset)
    name = f"{row['arm']}_{row['iterations']}_{row['base_features']}_{row['seed']}"
    command = where.sparseunet(
        "train",
        *(dataset, row["configuration"], "all", "--run", name),
        *("-device", "cpu", "--num-workers", "0"),
        *("--precision", "float32", "--seed", row["seed"], "--iterations", row["iterations"]),
        *("--iterations-per-epoch", 50, "--base-features", row["base_features"]),
        *("--batch-size", row["batch_size"]),
        *(["--patch-size", *patch] if (patch := SETTINGS[row["setting"]][2]) else []),
    )
    if row["arm"] != "sparseunet":
        measure = row["arm"].removeprefix("without-")
        command = [sys.executable, str(HERE / "train_without.py"), measure, *command[3:]]
    start = time.time()
    where.run(command, OMP_NUM_THREADS=str(arguments.threads))
    train_s = time.time() - start
    run = where.root / "sparseunet" / "results" / dataset / row["configuration"] / name
    predictions = where.root / "predictions" / dataset / row["configuration"] / name
    scans = where.raw / dataset / "imagesTs"
    where.run(
        where.sparseunet(
            "predict",
            *("-i", scans, "-o", predictions, "-m", run, "-f", "all", "--disable-tta"),
            *("-device", "cpu", "--precision", "float32", "--overwrite", "-np", "1"),
        ),
        OMP_NUM_THREADS=str(arguments.threads),
    )
    return predictions, train_s


def _nnunet(
    where: Bench,
    arguments: argparse.Namespace,
    dataset: str,
    row: dict[str, Any],
) -> tuple[Path, float]:
    _prepare(where, "nnunet", dataset)
    name = f"nnunet_{row['iterations']}_{row['base_features']}"
    predictions = (
        where.root / "predictions" / dataset / row["configuration"] / f"{name}_{row['seed']}"
    )
    predictions.mkdir(parents=True, exist_ok=True)
    request = {
        "dataset": dataset,
        "configuration": row["configuration"],
        "name": name,
        "seed": row["seed"],
        "iterations": row["iterations"],
        "features": row["base_features"],
        "batch": row["batch_size"],
        "patch": SETTINGS[row["setting"]][2],
        "threads": arguments.threads,
        "scans": [str(scan) for scan in sorted((where.raw / dataset / "imagesTs").iterdir())],
        "output": str(predictions),
    }
    file = predictions.parent / f"{predictions.name}_request.json"
    file.write_text(json.dumps(request))
    script = HERE / "in_nnunet" / "train_and_predict.py"
    told = where.run(where.nnunet_python(script, file), OMP_NUM_THREADS=str(arguments.threads))
    return predictions, float(told.split()[-1])


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _show(rows: list[dict[str, Any]]) -> None:
    """Print mean ± standard deviation over seeds, a table for each configuration and size."""
    keys = ("configuration", "iterations", "base_features", "batch_size")
    for size in sorted({tuple(row[key] for key in keys) for row in rows}):
        chosen = [row for row in rows if tuple(row[key] for key in keys) == size]
        print("\n{}, {} steps, {} features, batch {}:".format(*size))
        table = []
        for arm in [arm for arm in ARMS if any(row["arm"] == arm for row in chosen)]:
            line = {"arm": arm}
            for setting in SETTINGS:
                dice = [r["mean"] for r in chosen if (r["arm"], r["setting"]) == (arm, setting)]
                line[setting] = _spread(dice)
            table.append(line)
        print(markdown_table(table))


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread} ({len(values)})"


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(str(error)) from None
