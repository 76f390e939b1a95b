"""Peak memory of `sparseunet predict` against the number of classes and the size of the scan.

python tests/performance/prediction_memory.py -o memory.json
python tests/performance/prediction_memory.py --shapes 1000,512,512 --classes 20 --max-memory 4

The network is a U-Net of random weights with few features, so that a large scan is predicted in
minutes on a CPU; its patch and what happens around the network are those of a real one. The second
line is the target: a CT of 512×512×1000 with 20 classes in 4 GiB. Linux only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from both_packages import markdown_table
from measure import measure
from small_run import write_run, write_scan

SPACING_MM = (1.0, 0.8, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["200,256,256", "400,256,256"])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20, 100])
    parser.add_argument("--patch", default="96,96,96", help="voxels along z, y, x")
    parser.add_argument("--features", type=int, default=4, help="at full resolution")
    parser.add_argument("--max-memory", type=float, nargs="+", default=[4.0], metavar="GIB")
    parser.add_argument(
        "--spacing", type=float, default=1.0, help="of the network's grid, times that of the scan"
    )
    parser.add_argument("--step", type=float, default=0.5, help="between patches; 1 is fastest")
    parser.add_argument("--stages", type=int, default=4, help="of the network")
    parser.add_argument("--root", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prediction-memory-", dir=arguments.root) as folder:
        rows = [
            _measure(Path(folder), arguments, shape, num_classes, limit)
            for shape in arguments.shapes
            for limit in arguments.max_memory
            for num_classes in arguments.classes
        ]
    print(markdown_table(rows), flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(rows, indent=1))
    raise SystemExit(any(row["peak GiB"] > row["limit GiB"] for row in rows))


def _measure(
    folder: Path, arguments: argparse.Namespace, shape: str, num_classes: int, limit: float
) -> dict[str, object]:
    sizes = tuple(map(int, shape.split(",")))
    run = write_run(
        folder / f"run_{num_classes}",
        num_classes=num_classes,
        patch_size=tuple(map(int, arguments.patch.split(","))),
        spacing_mm=[arguments.spacing * spacing for spacing in SPACING_MM],
        num_features=arguments.features,
        num_stages=arguments.stages,
    )
    scan = folder / "scans" / f"{shape.replace(',', 'x')}_0000.nii.gz"
    if not scan.exists():
        write_scan(scan, shape=sizes, spacing_mm=SPACING_MM)
    output, log = folder / "predictions", folder / "log.txt"
    command = [sys.executable, "-m", "sparseunet", "predict", "-i", str(scan), "-o", str(output)]
    how = ["--disable-tta", "-device", "cpu", "--max-memory", str(limit), "--overwrite"]
    how += ["--step-size", str(arguments.step)]
    cost = measure([*command, "-m", str(run), *how], log=log)
    if cost.returncode:
        raise SystemExit(log.read_text()[-4000:])
    voxels = sizes[0] * sizes[1] * sizes[2]
    print(f"{shape}, {num_classes} classes: {cost}", file=sys.stderr, flush=True)
    return {
        "scan": shape.replace(",", "×"),
        "classes": num_classes,
        "limit GiB": limit,
        "all logits, float32, GiB": round(4 * num_classes * voxels / 2**30, 2),
        "peak GiB": round(max(cost.peak_tree_mib, cost.peak_process_mib) / 1024, 2),
        "seconds": cost.wall_s,
        "processor seconds": cost.processor_s,
    }


if __name__ == "__main__":
    main()
