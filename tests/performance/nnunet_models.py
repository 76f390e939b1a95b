"""Models from nnU-Net to sparseunet and back: how closely both predict the same.

- A reference model of nnU-Net (`--reference`: `model/`, `images/`, `predictions_tta/`,
  `predictions_notta/`, some with probabilities) against its own predictions, mirrored and not.
- Small networks that nnU-Net trains here (plain 2D, residual-encoder 3D), the same scans predicted
  by `nnUNetv2_predict_from_modelfolder` and by `sparseunet predict -m`.
- A small run of sparseunet, exported `--as nnunet`, predicted by both.
- The networks in `tests/golden/nnunet_networks` (regions, second stage of a cascade and others):
  logits of both for the same input.

Ours runs in float32; nnU-Net adds up logits in half precision, so voxels that differ are near ties.
Dice is between the two predictions of a case, mean over foreground classes, of the worst case; with
it that of the worst class. Probabilities are those of one case.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from both_packages import HERE, Bench, add_arguments, bench, report

NUM_CASES = 12
NUM_SCANS = 2
FLAGS = ("-device", "cpu", "--precision", "float32", "-np", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--reference", type=Path, help="folder of a model with its predictions")
    parser.add_argument("--iterations", type=int, default=400, help="of the networks trained here")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = list(_frozen())
    with bench(arguments) as where:
        if arguments.reference is not None:
            rows += _reference(where, arguments.reference)
        source = arguments.data / "Dataset004_Hippocampus"
        dataset = where.link(_subset(source, where.root / "made" / "Dataset921_Hip12"))
        rows += _from_nnunet(where, dataset, arguments)
        rows += _to_nnunet(where, dataset, arguments)
    report(rows, arguments)
    if not all(row["equal"] for row in rows):
        sys.exit(1)


def _frozen() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(HERE.parent))
    import tempfile

    import torch
    from frozen_models import TITLES, frozen, write_model_folder

    from sparseunet.networks.trained_model import load_network
    from sparseunet.runs.exchange.nnunet_model import load_nnunet_model

    for title in TITLES:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            model = load_nnunet_model(write_model_folder(Path(folder), title), [0])
            golden = frozen(title)
            logits = load_network(model, model.checkpoints[0])(golden["input"])
        difference = float((logits - golden["logits"]).abs().max())
        yield {
            "what": f"frozen {title}",
            "cases": 1,
            "worst Dice": "–",
            "worst class": "–",
            "voxels that differ": "–",
            "largest difference": difference,
            "of": "logits",
            "equal": difference <= 1e-5,
        }


def _reference(where: Bench, reference: Path) -> Iterator[dict[str, Any]]:
    for name, flags in (("predictions_notta", ("--disable-tta",)), ("predictions_tta", ())):
        ours = where.root / "ours" / name
        _predict(where, reference / "model", reference / "images", ours, *flags)
        for row in _compare(reference / name, ours, reference / "model", reference / "images"):
            yield {"what": f"reference, {name}", **row}


def _from_nnunet(
    where: Bench, dataset: str, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    number, workers = int(dataset[7:10]), ("-np", arguments.num_workers)
    where.run(where.nnunet("extract_fingerprint", "-d", number, *workers))
    networks = [
        ("2d", "nnUNetPlans", "ExperimentPlanner", 3 * arguments.iterations, 8, 8),
        (
            "3d_fullres",
            "nnUNetResEncUNetMPlans",
            "nnUNetPlannerResEncM",
            arguments.iterations,
            8,
            2,
        ),
    ]
    for name, plans, planner, steps, features, batch in networks:
        where.run(where.nnunet("plan_experiment", "-d", number, "-pl", planner))
        preprocess = ("-d", number, "-plans_name", plans, "-c", name, *workers)
        where.run(where.nnunet("preprocess", *preprocess))
        output = where.run(
            where.nnunet_python(
                HERE / "in_nnunet" / "train_model.py", dataset, name, plans, steps, features, batch
            ),
            nnUNet_compile="f",
            nnUNet_n_proc_DA="0",
        )
        model = Path(output.splitlines()[-1])
        for row in _both_predict(where, model, f"{plans}_{name}", folds=("all",)):
            yield {"what": f"nnU-Net trained {plans} {name}, {steps} steps", **row}


def _to_nnunet(
    where: Bench, dataset: str, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    number = int(dataset[7:10])
    where.run(where.sparseunet("plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", 1))
    where.run(
        where.sparseunet(
            "train", number, "3d_fullres", "all", "-device", "cpu", "--precision", "float32",
            "--iterations", arguments.iterations, "--base-features", 8, "--batch-size", 2,
        )
    )  # fmt: skip
    target = where.root / "exported"
    shutil.rmtree(target, ignore_errors=True)
    where.run(
        where.sparseunet(
            "export_model", "-d", number, "-c", "3d_fullres", "-o", target, "--as", "nnunet"
        )
    )
    (model,) = (target / dataset).iterdir()
    for row in _both_predict(where, model, "exported", folds=("all",)):
        yield {"what": f"sparseunet trained 3d_fullres, {arguments.iterations} steps", **row}
    (run,) = (where.root / "sparseunet" / "results" / dataset / "3d_fullres").iterdir()
    scans, again = where.root / "scans", where.root / "ours" / "own_run"
    _predict(where, run, scans, again, "--disable-tta")
    for row in _compare(where.root / "theirs" / "exported", again, run, scans, probabilities=False):
        yield {"what": "  the same, our own run of it", **row}


def _both_predict(
    where: Bench, model: Path, name: str, *, folds: Sequence[object]
) -> Iterator[dict[str, Any]]:
    scans, theirs, ours = (
        where.root / "scans",
        where.root / "theirs" / name,
        where.root / "ours" / name,
    )
    shutil.rmtree(theirs, ignore_errors=True)
    where.run(
        where.nnunet(
            "predict_from_modelfolder", "-i", scans, "-o", theirs, "-m", model, "-f", *folds,
            "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta", "--save_probabilities",
        )
    )  # fmt: skip
    _predict(where, model, scans, ours, "--disable-tta")
    yield from _compare(theirs, ours, model, scans)


def _predict(where: Bench, model: Path, scans: Path, output: Path, *flags: str) -> None:
    words = ("-m", model, "-i", scans, "-o", output, "--overwrite", *FLAGS, *flags)
    where.run(where.sparseunet("predict", *words))


def _compare(
    theirs: Path, ours: Path, model: Path, scans: Path, *, probabilities: bool = True
) -> Iterator[dict[str, Any]]:
    from sparseunet.data.io import read_label_map

    different, foreground, files = 0, 0, sorted(theirs.glob("*.nii.gz"))
    dice_of_cases: list[list[float]] = []
    for file in files:
        first, second = read_label_map(file)[0], read_label_map(ours / file.name)[0]
        different += int((first != second).sum())
        foreground += int((first > 0).sum())
        dice_of_cases.append(
            [
                2
                * float(((first == value) & (second == value)).sum())
                / float((first == value).sum() + (second == value).sum())
                for value in np.union1d(first, second)
                if value
            ]
        )
    worst = min((float(np.mean(dice)) for dice in dice_of_cases if dice), default=1.0)
    largest: float | str = "–"
    saved = sorted(theirs.glob("*.npz"))[:1] if probabilities else []
    if saved:
        with np.load(saved[0], allow_pickle=False) as content:
            expected = content["probabilities"].astype(np.float32)
        mirror = theirs.name.endswith("predictions_tta")
        found = _probabilities(model, scans, saved[0].stem, mirror=mirror)
        largest = float(np.abs(found - expected).max())
    yield {
        "cases": len(files),
        "worst Dice": f"{worst:.5f}" if foreground else "no foreground",
        "worst class": f"{min((min(dice) for dice in dice_of_cases if dice), default=1.0):.5f}",
        "voxels that differ": f"{different} of {foreground} foreground",
        "largest difference": largest,
        "of": "probabilities" if saved else "–",
        "equal": worst >= 0.999,
    }


def _probabilities(model: Path, scans: Path, case: str, *, mirror: bool) -> np.ndarray:
    from sparseunet.data.dataset import Case
    from sparseunet.prediction.options import PredictionOptions
    from sparseunet.prediction.probabilities import predict_probabilities
    from sparseunet.runs.exchange.find_models import open_models
    from sparseunet.runs.load import load_found_model

    options = PredictionOptions(device="cpu", precision="float32", mirror=mirror, num_workers=1)
    with open_models(model) as (found,):
        loaded = load_found_model(found, found.default_folds)
        images = tuple(sorted(scans.glob(f"{case}_*")))
        scan = Case(name=case, images=images, label=None)
        return next(iter(predict_probabilities(loaded, [scan], options=options)))


def _subset(source: Path, folder: Path) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / name).iterdir())[:NUM_CASES]:
            if not (folder / name / path.name).exists():
                (folder / name / path.name).symlink_to(path.resolve())
    scans = folder.parent.parent / "scans"
    scans.mkdir(exist_ok=True)
    for path in sorted((source / "imagesTs").iterdir())[:NUM_SCANS]:
        if not (scans / path.name).exists():
            (scans / path.name).symlink_to(path.resolve())
    description = json.loads((source / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": NUM_CASES}))
    return folder


if __name__ == "__main__":
    main()
