"""Preprocess the same cases with the same plans in nnU-Net and in sparseunet, and compare arrays.

nnU-Net plans and preprocesses; sparseunet preprocesses from nnU-Net's plans file as it is. Images
must agree within 1e-4 of normalised units, labels in 99.5 % of voxels.
"""

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import blosc2
import numpy as np
from both_packages import Bench, add_arguments, bench, report
from explain_labels import explain_labels
from synthetic_ct import (
    BRAIN_SHAPE,
    BRAIN_SPACINGS_MM,
    SAGITTAL_SHAPE,
    SAGITTAL_SPACINGS_MM,
    THICK_SHAPE,
    THICK_SPACINGS_MM,
    write_dataset,
)

from sparseunet.data.load import load_dataset
from sparseunet.preprocessing.case import PreprocessedCase
from sparseunet.preprocessing.store import CaseStore

IMAGE_GOAL = 1e-4
LABEL_GOAL = 0.995
PLANS = "nnUNetPlans"
COMPARISONS: dict[str, tuple[str, tuple[float, float, float] | None]] = {
    "hippocampus": ("hippocampus", None),
    "hippocampus 0.5 mm": ("hippocampus", (0.5, 0.5, 0.5)),
    "hippocampus 1.7 mm": ("hippocampus", (1.7, 1.5, 1.6)),
    "acdc": ("acdc", None),
    "acdc 7 mm": ("acdc", (7.0, 1.3, 1.3)),
    "spleen": ("spleen", None),
    "spleen 3 mm": ("spleen", (3.0, 1.1, 1.1)),
    "thick CT": ("thick_ct", None),
    "thick sagittal CT": ("sagittal_ct", None),
    "stripped MR": ("brain", None),
}
"""Name to dataset and the spacing to plan with in place of the planner's, (z, y, x)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=tuple(COMPARISONS))
    arguments = parser.parse_args()
    rows = []
    with bench(arguments) as where:
        for shown in arguments.only:
            name, spacing_mm = COMPARISONS[shown]
            dataset = where.link(dataset_folder(name, arguments.data, where))
            configurations = _preprocess(
                where, dataset, spacing_mm=spacing_mm, num_workers=arguments.num_workers
            )
            rows += [_compare(where, dataset, shown, item) for item in configurations.items()]
    report(rows, arguments, image_goal=IMAGE_GOAL, label_goal=LABEL_GOAL)
    missed = [
        row
        for row in rows
        if row["image max diff"] > IMAGE_GOAL or float(row["labels equal"]) < LABEL_GOAL
    ]
    raise SystemExit(1 if missed else 0)


def dataset_folder(name: str, data: Path, where: Bench) -> Path:
    if name == "hippocampus":
        return data / "Dataset004_Hippocampus"
    if name == "acdc":
        return data / "Dataset027_ACDC"
    if name == "spleen":
        return _one_spleen(data / "example_spleen_ct", where.root / "made" / "Dataset909_Spleen")
    made = where.root / "made"
    if name == "brain":
        folder = made / "Dataset912_StrippedMR"
        shape, spacings_mm, channels = BRAIN_SHAPE, BRAIN_SPACINGS_MM, ("T1", "T2")
    elif name == "sagittal_ct":
        folder = made / "Dataset911_SagittalCT"
        shape, spacings_mm, channels = SAGITTAL_SHAPE, SAGITTAL_SPACINGS_MM, ("CT",)
    else:
        folder = made / "Dataset910_ThickCT"
        shape, spacings_mm, channels = THICK_SHAPE, THICK_SPACINGS_MM, ("CT",)
    return write_dataset(folder, shape=shape, spacings_mm=spacings_mm, channels=channels)


def _one_spleen(source: Path, folder: Path) -> Path:
    """Make a dataset of the one case."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "spleen2_0000.nii.gz", folder / "imagesTr" / "spleen2_0000.nii.gz")
    shutil.copyfile(source / "spleen2.nii.gz", folder / "labelsTr" / "spleen2.nii.gz")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "spleen": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def _preprocess(
    where: Bench, dataset: str, *, spacing_mm: Sequence[float] | None, num_workers: int
) -> dict[str, str]:
    """Preprocess in both packages; return the folder of each configuration by its name."""
    number, workers = int(dataset[7:10]), ("-np", num_workers)
    name, changed = PLANS, []
    if spacing_mm is not None:
        name = "At_" + "_".join(map(str, spacing_mm))
        changed = ["-overwrite_target_spacing", *spacing_mm, "-overwrite_plans_name", name]
    planned = ("-d", number, "-npfp", num_workers, *workers, *changed, "--no_pbar")
    where.run(where.nnunet("plan_and_preprocess", *planned, "-c", "2d", "3d_fullres", "3d_lowres"))
    plans_file = where.preprocessed("nnunet", dataset) / f"{name}.json"
    folder = where.preprocessed("sparseunet", dataset)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plans_file, folder / plans_file.name)
    plans = json.loads(plans_file.read_text())["configurations"]
    names = [item for item in plans if "data_identifier" in plans[item]]
    where.run(
        where.sparseunet("preprocess", "-d", number, "--plans-name", name, "-c", *names, *workers)
    )
    return {item: plans[item]["data_identifier"] for item in names}


def _compare(where: Bench, dataset: str, shown: str, item: tuple[str, str]) -> dict[str, object]:
    configuration, identifier = item
    worst, total, num_image, num_over = 0.0, 0.0, 0, 0
    num_voxels = num_equal = num_cases = num_resampled = 0
    reasons: Counter[str] = Counter(ties=0, outside=0, unexplained=0)
    raw = load_dataset(where.raw / dataset)
    cases = {case.name: case for case in raw.cases}
    for image_CZYX, labels_ZYX, ours in _pairs(where, dataset, identifier):
        assert ours.annotation is not None
        restoration = ours.restoration
        num_cases += 1
        num_resampled += restoration.crop_shape != restoration.network_shape
        difference = np.abs(image_CZYX - ours.image_CZYX)
        worst = max(worst, float(difference.max()))
        total += float(difference.sum(dtype=np.float64))
        num_over += int((difference > IMAGE_GOAL).sum())
        num_image += difference.size
        num_voxels += labels_ZYX.size
        num_equal += int((labels_ZYX == ours.annotation.labels_ZYX).sum())
        reasons.update(
            explain_labels(
                labels_ZYX, ours.annotation.labels_ZYX, cases[ours.name], raw.labels, restoration
            )
        )
    return {
        "dataset": shown,
        "configuration": configuration,
        "cases": num_cases,
        "resampled": num_resampled,
        "image max diff": worst,
        "image mean diff": total / num_image,
        "voxels over the goal": num_over,
        "labels equal": f"{num_equal / num_voxels:.6f}",
        "differing labels": num_voxels - num_equal,
        **reasons,
    }


def _pairs(
    where: Bench, dataset: str, identifier: str
) -> Iterator[tuple[np.ndarray, np.ndarray, PreprocessedCase]]:
    """Yield nnU-Net's image_CZYX and labels_ZYX, and our case, for every case."""
    folder = where.preprocessed("nnunet", dataset) / identifier
    store = CaseStore(where.preprocessed("sparseunet", dataset) / identifier)
    files = sorted(path for path in folder.glob("*.b2nd") if not path.stem.endswith("_seg"))
    if [path.stem for path in files] != sorted(store.cases):
        raise SystemExit(f"{folder} and {store.folder} hold different cases")
    for path in files:
        image_CZYX = blosc2.open(str(path), mode="r")[:]
        labels_CZYX = blosc2.open(str(path.with_name(f"{path.stem}_seg.b2nd")), mode="r")[:]
        case = store.read(path.stem)
        if case.image_CZYX.shape != image_CZYX.shape:
            raise SystemExit(f"{path}: shapes {image_CZYX.shape} and {case.image_CZYX.shape}")
        # nnU-Net marks the outside of the nonzero mask with -1 and trains it as background.
        yield image_CZYX, np.maximum(labels_CZYX[0], 0), case


if __name__ == "__main__":
    main()
