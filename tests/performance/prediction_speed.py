"""What prediction costs with nnU-Net and with sparseunet: many small scans, and one large one.

python tests/performance/prediction_speed.py --nnunet-python ~/nnunet/bin/python --model MODEL \
    --images DATA/Dataset004_Hippocampus/imagesTs -o speed.json

MODEL is a folder that nnU-Net trained (plans.json, dataset.json, fold_X/checkpoint_final.pth).
nnU-Net predicts with it. With --same-checkpoint so does sparseunet; without, it takes a network of
the same plan with random weights, which costs the same. Both run in turn, each as a command of its
own with start-up included, in the ways of their defaults: nnU-Net in float32 (all it offers on a
CPU), sparseunet in the precision it finds fastest; a row with --precision float32 says what that is
worth. With --same-checkpoint agreement is given as the share of equal voxels.

What the commands print is shown as they run. On a machine that others use, wall time says nothing:
compare processor seconds, at best with --threads 1. Linux only.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from both_packages import markdown_table
from measure import Cost, measure
from small_run import write_planned_run, write_scan

from sparseunet.artifacts import read_json
from sparseunet.data.io import read_label_map
from sparseunet.planning.nnunet_plans import plan_from_nnunet

LARGE = (160, 256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet-python", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="model folder of nnU-Net")
    parser.add_argument("--fold", default="all", help="its fold (default all)")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--images", type=Path, required=True, help="folder of small scans")
    parser.add_argument("--num-images", type=int, default=60)
    parser.add_argument("--large", default=",".join(map(str, LARGE)), help="none: leave it out")
    parser.add_argument("--mirror", action="store_true", help="also with mirrored passes")
    parser.add_argument("--same-checkpoint", action="store_true")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of both (default: as is)")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many counts")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prediction-speed-") as folder:
        rows = _compare(Path(folder), arguments)
    print(markdown_table(rows))
    if arguments.output is not None:
        content = {"arguments": vars(arguments), "cores": os.cpu_count(), "rows": rows}
        arguments.output.write_text(json.dumps(content, indent=1, default=str))


def _compare(folder: Path, arguments: argparse.Namespace) -> list[dict[str, object]]:
    run = arguments.model
    if not arguments.same_checkpoint:
        plan = plan_from_nnunet(read_json(arguments.model / "plans.json"))
        configuration = plan.configurations[arguments.configuration]
        description = read_json(arguments.model / "dataset.json")
        run = write_planned_run(folder / "run", plan, configuration, description)
    rows = []
    for name, scans in _scan_folders(folder, arguments).items():
        for mirror in (False, True) if arguments.mirror else (False,):
            nnunet_out, our_out = folder / f"{name}_nnunet", folder / f"{name}_ours"
            commands = {
                "nnU-Net": _nnunet(arguments, scans, nnunet_out),
                "sparseunet": _sparseunet(arguments, run, scans, our_out),
                "sparseunet, float32": [
                    *_sparseunet(arguments, run, scans, folder / f"{name}_float32"),
                    "--precision",
                    "float32",
                ],
            }
            off = [] if mirror else ["--disable_tta"]
            costs = {
                who: _fastest([*command, *off], arguments) for who, command in commands.items()
            }
            for who, cost in costs.items():
                row = {"work": name, "mirrored": mirror, "package": who, **asdict(cost)}
                row["times faster"] = round(costs["nnU-Net"].wall_s / cost.wall_s, 2)
                less = costs["nnU-Net"].processor_s / cost.processor_s
                row["times less processor time"] = round(less, 2)
                row["times less memory"] = round(
                    costs["nnU-Net"].peak_tree_mib / cost.peak_tree_mib, 2
                )
                rows.append({key: value for key, value in row.items() if key != "returncode"})
            if arguments.same_checkpoint:
                rows[-2]["equal voxels"] = _agreement(nnunet_out, our_out)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, "") for key in keys} for row in rows]


def _scan_folders(folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    small = folder / "small"
    small.mkdir()
    for image in sorted(arguments.images.glob("*.nii.gz"))[: arguments.num_images]:
        (small / image.name).symlink_to(image.resolve())
    found = {"small": small}
    if arguments.large != "none":
        shape = tuple(map(int, arguments.large.split(",")))
        write_scan(folder / "large" / "large_0000.nii.gz", shape=shape, spacing_mm=(1.0, 1.0, 1.0))
        found["large"] = folder / "large"
    return found


def _nnunet(arguments: argparse.Namespace, scans: Path, output: Path) -> list[str]:
    script = arguments.nnunet_python.parent / "nnUNetv2_predict_from_modelfolder"
    where = ["-i", str(scans), "-o", str(output), "-m", str(arguments.model)]
    return [str(arguments.nnunet_python), str(script), *where, "-f", arguments.fold, *_CPU]


def _sparseunet(arguments: argparse.Namespace, run: Path, scans: Path, output: Path) -> list[str]:
    fold = arguments.fold if arguments.same_checkpoint else "0"
    where = ["-i", str(scans), "-o", str(output), "-m", str(run), "-f", fold, "--overwrite"]
    return [sys.executable, "-m", "sparseunet", "predict", *where, *_CPU]


_CPU = ["-device", "cpu"]


def _fastest(command: list[str], arguments: argparse.Namespace) -> Cost:
    threads = {} if arguments.threads is None else {"OMP_NUM_THREADS": str(arguments.threads)}
    costs = []
    for _ in range(arguments.repeats):
        print(" ".join(command), file=sys.stderr, flush=True)
        costs.append(measure(command, environment={**os.environ, **threads}))
        print(costs[-1], file=sys.stderr, flush=True)
        if costs[-1].returncode:
            raise SystemExit(f"{command[0]} failed, see above")
    return min(costs, key=lambda cost: cost.wall_s)


def _agreement(first: Path, second: Path) -> float:
    equal = [
        (read_label_map(path)[0] == read_label_map(second / path.name)[0]).mean()
        for path in sorted(first.glob("*.nii.gz"))
    ]
    return round(float(np.mean(equal)), 6)


if __name__ == "__main__":
    main()
