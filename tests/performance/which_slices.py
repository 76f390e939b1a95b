"""Train on chosen slices of a dense dataset and score its dense test labels, a row per training.

Asks which slices of which scans are worth a person's time (`--selector`, `--slices`, `--scans`,
`--axis`) and how to learn from few of them (`--recipe`, `--patch-size`, `--batch-size`). All that
tells one training from another stands in its row; the same command again skips rows that are there,
so a long study can be interrupted, extended and run in parts. `--show` only prints the table.

    python tests/performance/which_slices.py --data DATA/Dataset004_Hippocampus --root WORK \\
        --rows documentation/experiments/which_slices.jsonl --slices 200 --scans 200 \\
        --selector fixed staggered random --seeds 0 1 2
"""

import argparse
import json
import re
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import sparseunet as su
from sparseunet.annotation.simulate import simulate_plan
from sparseunet.annotation.spending import AXES, SpendingOptions, parse_axis

_FIRST_ID = 600
"""Simulated datasets get ids from here on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="densely labelled raw dataset")
    parser.add_argument("--root", type=Path, required=True, help="workspace, kept between runs")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines file of results")
    parser.add_argument("--slices", nargs="+", default=["200"], help="numbers, or dense")
    parser.add_argument("--scans", nargs="+", default=["auto"], help="numbers, or auto")
    parser.add_argument("--selector", nargs="+", default=["staggered"])
    parser.add_argument("--axis", default="0", choices=tuple(map(str, AXES)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--base-features", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--patch-size", type=int, nargs="+")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--show", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.show:
        for seed, slices, scans, selector in product(
            arguments.seeds, arguments.slices, arguments.scans, arguments.selector
        ):
            _train_unless_there(arguments, seed, slices, scans, selector)
    _show(_read(arguments.rows))


def _train_unless_there(
    arguments: argparse.Namespace, seed: int, slices: str, scans: str, selector: str
) -> None:
    pairs = (pair.split("=", 1) for pair in arguments.recipe)
    recipe = {name: json.loads(value) for name, value in pairs}
    setting = {
        "data": arguments.data.name,
        "slices": slices,
        "scans": scans if slices != "dense" else "all",
        "selector": selector if slices != "dense" else "",
        "axis": arguments.axis,
        "seed": seed,
        "configuration": arguments.configuration,
        "iterations": arguments.iterations,
        "base_features": arguments.base_features,
        "batch_size": arguments.batch_size,
        "patch_size": arguments.patch_size,
        "precision": arguments.precision,
        "recipe": recipe,
    }
    if any(row | setting == row for row in _read(arguments.rows)):
        return
    print(json.dumps(setting), flush=True)
    dataset = su.load_dataset(arguments.data)
    sparse, kept = dataset, {}
    if slices != "dense":
        sparse, kept = _simulate(arguments.root, dataset, setting)
    start = time.perf_counter()
    prepared = su.prepare(
        sparse, workspace=arguments.root, configurations=[arguments.configuration]
    )
    run = su.train(
        prepared,
        arguments.configuration,
        "all",
        recipe={"iterations": arguments.iterations, "seed": seed, **recipe},
        device="cpu",
        base_features=arguments.base_features,
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size,
        precision=arguments.precision,
    )
    options = su.PredictionOptions(device="cpu", mirror=False)
    predictions = run.folder / "predictions"
    su.predict(su.load_model(run, options=options), sparse.folder / "imagesTs", output=predictions)
    scores = su.evaluate(sparse.folder / "labelsTs", predictions)
    row = {
        **setting,
        **kept,
        "dice": round(scores.foreground_mean("Dice"), 4),
        "hd95_mm": round(scores.foreground_mean("HD95"), 2),
        "by_class": {name: round(scores.mean(name, "Dice"), 4) for name in scores.classes},
        "seconds": round(time.perf_counter() - start),
        "step_s": round(sum(one["duration_s"] for one in run.log) / arguments.iterations, 3),
        "version": su.__version__,
    }
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    with arguments.rows.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def _simulate(
    root: Path, dataset: su.Dataset, setting: dict[str, Any]
) -> tuple[su.Dataset, dict[str, Any]]:
    """Return the sparse copy, made unless it is there, and what was kept in it."""
    wanted = "auto" if setting["scans"] == "auto" else int(setting["scans"])
    plan = su.make_annotation_plan(
        dataset,
        budget=f"{setting['slices']}slices",
        selector=setting["selector"],
        axis=parse_axis(setting["axis"]),
        seed=setting["seed"],
        options=SpendingOptions(
            num_volumes=wanted, dimensions=2 if setting["configuration"] == "2d" else 3
        ),
    )
    parts = [dataset.name.split("_")[1], *(str(setting[n]) for n in ("slices", "scans"))]
    parts += [setting["selector"], f"axis{setting['axis']}", f"seed{setting['seed']}"]
    name = re.sub(r"\W+", "", "x".join(parts))
    raw = root / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    there = {folder.name.split("_", 1)[1]: folder for folder in raw.iterdir()}
    folder = there.get(name, raw / f"Dataset{_FIRST_ID + len(there)}_{name}")
    if name not in there:
        simulate_plan(dataset, plan, folder=folder, num_workers=2)
    kept = {"kept_slices": plan.num_slices, "kept_scans": len({one.case for one in plan.cases})}
    return su.load_dataset(folder), kept


def _read(rows: Path) -> list[dict[str, Any]]:
    if not rows.is_file():
        return []
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]


def _show(rows: list[dict[str, Any]]) -> None:
    """Print mean and standard deviation over seeds of every setting."""
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        names = ("data", "configuration", "slices", "kept_scans", "selector", "axis")
        sizes = ("iterations", "base_features", "batch_size", "patch_size", "recipe")
        key = " ".join(f"{row.get(name)}" for name in (*names, *sizes))
        by_setting.setdefault(key, []).append(row)
    for key, some in sorted(by_setting.items()):
        dice = [row["dice"] for row in some]
        spread = f" ± {np.std(dice, ddof=1):.3f}" if len(dice) > 1 else ""
        print(f"{key}: {np.mean(dice):.3f}{spread} ({len(dice)})")


if __name__ == "__main__":
    main()
