"""Go from sparseunet's plans to nnU-Net's training, and from nnU-Net's plans to ours.

Twenty cases of the hippocampus. There: sparseunet plans, nnU-Net preprocesses and trains a few
steps from that plans file. Back: nnU-Net plans, sparseunet preprocesses and trains from that file.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from both_packages import HERE, Bench, add_arguments, bench, report

NUM_CASES = 20
PLANS_OF_OURS = "sparseunetPlans"
PLANS_OF_NNUNET = "nnUNetPlans"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--iterations", type=int, default=20, help="of sparseunet's training")
    arguments = parser.parse_args()
    with bench(arguments) as where:
        source = arguments.data / "Dataset004_Hippocampus"
        dataset = where.link(_subset(source, where.root / "made" / "Dataset920_Hip20"))
        rows = [*_there(where, dataset, arguments), *_back(where, dataset, arguments)]
    report(rows, arguments)


def _subset(source: Path, folder: Path) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / name).iterdir())[:NUM_CASES]:
            if not (folder / name / path.name).exists():
                (folder / name / path.name).symlink_to(path.resolve())
    description = json.loads((source / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": NUM_CASES}))
    return folder


def _there(where: Bench, dataset: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    number, workers = int(dataset[7:10]), ("-np", arguments.num_workers)
    where.run(where.sparseunet("extract_fingerprint", "-d", number))
    where.run(
        where.sparseunet("plan_experiment", "-d", number, "--overwrite-plans-name", PLANS_OF_OURS)
    )
    ours, theirs = where.preprocessed("sparseunet", dataset), where.preprocessed("nnunet", dataset)
    theirs.mkdir(parents=True, exist_ok=True)
    for name in (f"{PLANS_OF_OURS}.json", "dataset_fingerprint.json"):
        shutil.copyfile(ours / name, theirs / name)
    shutil.copyfile(where.raw / dataset / "dataset.json", theirs / "dataset.json")
    output = where.run(
        where.nnunet(
            "preprocess", "-d", number, "-plans_name", PLANS_OF_OURS, "-c", "3d_fullres", *workers
        )
    )
    written = len(list((theirs / f"{PLANS_OF_OURS}_3d_fullres").glob("*_seg.b2nd")))
    yield _row("nnUNetv2_preprocess from sparseunet's plans", output, f"{written} cases")
    script = HERE / "in_nnunet" / "train_few_steps.py"
    output = where.run(
        where.nnunet_python(script, dataset, "3d_fullres", 0, PLANS_OF_OURS),
        nnUNet_compile="f",
        nnUNet_n_proc_DA="0",
    )
    yield _row("nnU-Net's trainer from sparseunet's plans", output, _found(output, r"train_loss.*"))
    yield _row("  its validation", output, _found(output, r"Mean Validation Dice:.*"))


def _back(where: Bench, dataset: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    number, workers = int(dataset[7:10]), ("-np", arguments.num_workers)
    where.run(where.nnunet("extract_fingerprint", "-d", number, "--clean", *workers))
    where.run(where.nnunet("plan_experiment", "-d", number))
    folder = where.preprocessed("sparseunet", dataset)
    shutil.copyfile(
        where.preprocessed("nnunet", dataset) / f"{PLANS_OF_NNUNET}.json",
        folder / f"{PLANS_OF_NNUNET}.json",
    )
    output = where.run(where.sparseunet("preprocess", "-d", number, "-c", "3d_fullres", *workers))
    yield _row("sparseunet preprocess from nnU-Net's plans", output, _found(output, r".*cases.*"))
    output = where.run(
        where.sparseunet(
            "train", number, "3d_fullres", 0, "-p", PLANS_OF_NNUNET, "-device", "cpu",
            "--iterations", arguments.iterations, "--batch-size", 2,
        )
    )  # fmt: skip
    yield _row("sparseunet train from nnU-Net's plans", output, output.splitlines()[-1])
    summary = next((where.root / "sparseunet" / "results").rglob("summary.json"))
    mean = json.loads(summary.read_text())["foreground_mean"]["Dice"]
    yield _row("  its validation", output, f"foreground mean Dice {mean:.4f}")


def _row(step: str, output: str, result: str) -> dict[str, Any]:
    return {"step": step, "result": result, "lines printed": len(output.splitlines())}


def _found(output: str, pattern: str) -> str:
    """Return the last line that has the pattern.

    Raises:
        SystemExit: There is none.
    """
    found = re.findall(pattern, output)
    if not found:
        raise SystemExit(f"expected {pattern!r} in:\n{output[-3000:]}")
    return found[-1].strip()


if __name__ == "__main__":
    main()
