"""Plan random datasets with nnU-Net's planners and with ours, and list every field that differs.

Only fingerprints and descriptions are made up, no images. nnU-Net gets the labels without the
ignore label, because our plans do not depend on it (decision record 0003); how often counting it
would have changed nnU-Net's own plan is reported beside.

`data_identifier` differs on purpose where the plans have a name of their own: nnU-Net's residual
encoder planners then still write into the preprocessed folder of its default plans, whatever the
spacing is.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from both_packages import HERE, Bench, add_arguments, bench, report
from PIL import Image

from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import fingerprint_from_json
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.nnunet_plans import plan_to_nnunet

KINDS = ("isotropic", "anisotropic", "extreme", "thin", "flat", "single case", "large", "tiny")
CHANNELS = ("CT", "MRI", "T2", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1", "ct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planners", nargs="+", default=["default", "ResEncL"])
    parser.add_argument("--keep", type=Path, help="folder for the cases that differ")
    arguments = parser.parse_args()
    cases = [
        _case(kind=KINDS[number % len(KINDS)], rng=np.random.default_rng([arguments.seed, number]))
        for number in range(arguments.cases)
    ]
    with bench(arguments) as where:
        requests = list(_requests(cases, arguments.planners, where))
        file = where.root / "requests.json"
        file.write_text(json.dumps([request for request, _ in requests]))
        where.run(where.nnunet_python(HERE / "in_nnunet" / "plan_cases.py", file))
        answers = json.loads(file.with_name("answers.json").read_text())
    outcomes = []
    for (request, number), answer in zip(requests, answers, strict=True):
        if request["counts_ignore"]:
            continue
        outcomes.append(_compare(cases[number], request, answer, number))
        if outcomes[-1]["differs"] and arguments.keep is not None:
            _keep(arguments.keep, cases[number], request, answer, outcomes[-1])
    _summarise(outcomes, _changed_by_ignore(requests, answers), arguments)


def _case(*, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Make up a dataset: description, fingerprint and the options to plan with."""
    num_cases = 1 if kind == "single case" else int(rng.integers(2, 30))
    spacings, shapes = _geometry(kind, num_cases, rng)
    num_channels = int(rng.integers(1, 5))
    names = [str(rng.choice(CHANNELS)) for _ in range(num_channels)]
    num_labels = int(rng.integers(1, 100) if rng.random() < 0.15 else rng.integers(1, 6))
    labels: dict[str, Any] = {
        "background": 0,
        **{f"class_{value}": value for value in range(1, num_labels + 1)},
    }
    description: dict[str, Any] = {
        "channel_names": {str(channel): name for channel, name in enumerate(names)},
        "labels": labels,
        "numTraining": num_cases if rng.random() < 0.7 else int(rng.integers(1, 500)),
        "file_ending": _ending(kind, rng),
    }
    if num_labels >= 2 and rng.random() < 0.2:
        labels["whole"] = list(range(1, num_labels + 1))
        labels.pop("class_1")
        description["regions_class_order"] = [1, *range(2, num_labels + 1)]
    if rng.random() < 0.2:
        labels["ignore"] = num_labels + 1
    fingerprint = {
        "spacings": spacings.tolist(),
        "shapes_after_crop": shapes.tolist(),
        "median_relative_size_after_cropping": float(rng.choice([1.0, 0.751, 0.75, 0.749, 0.3])),
        "foreground_intensity_properties_per_channel": {
            str(channel): _intensities(rng) for channel in range(num_channels)
        },
    }
    options: dict[str, Any] = {}
    if rng.random() < 0.25:
        factor = rng.uniform(0.5, 2.5, 3)
        options["overwrite_target_spacing"] = (np.median(spacings, 0) * factor).tolist()
    if rng.random() < 0.25:
        options["gpu_memory_target_in_gb"] = float(rng.choice([4, 6, 11, 16, 40, 80]))
    if options and rng.random() < 0.7:
        options["plans_name"] = "Changed"  # and the planner's name, see _options
    return {"dataset": description, "fingerprint": fingerprint, "options": options, "kind": kind}


def _geometry(kind: str, num_cases: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return spacings and shapes (cases, 3)."""
    fine = float(rng.uniform(0.3, 2.0))
    ratio, edge, depth = {
        "isotropic": (1.0, rng.integers(40, 300), rng.integers(40, 300)),
        "anisotropic": (rng.uniform(1.5, 8), rng.integers(64, 512), rng.integers(8, 120)),
        "extreme": (rng.uniform(8, 60), rng.integers(200, 1200), rng.integers(2, 60)),
        "thin": (rng.uniform(1, 20), rng.integers(32, 512), rng.integers(1, 5)),
        "flat": (rng.uniform(1, 999), rng.integers(16, 3000), 1),
        "single case": (rng.uniform(1, 6), rng.integers(32, 400), rng.integers(8, 200)),
        "large": (rng.uniform(1, 5), rng.integers(500, 2500), rng.integers(200, 1500)),
        "tiny": (rng.uniform(0.5, 2), rng.integers(6, 40), rng.integers(4, 40)),
    }[kind]
    spread = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.02, 0.4))
    noise = np.exp(rng.normal(0, spread, (num_cases, 3)))
    spacings = np.array([fine * ratio, fine, fine]) * noise
    if kind == "flat":
        spacings[:, 0] = 999 if rng.random() < 0.5 else spacings[:, 1:].max() * 999
    elif rng.random() < 0.3:
        spacings = spacings.round(int(rng.integers(0, 3))).clip(0.1)
    sizes = np.array([depth, edge, edge * rng.uniform(0.5, 1.5)])
    shapes = np.maximum(1, (sizes * np.exp(rng.normal(0, spread, (num_cases, 3)))).round())
    if kind == "flat":
        shapes[:, 0] = 1
    elif rng.random() < 0.4:
        order = rng.permutation(3)
        spacings, shapes = spacings[:, order], shapes[:, order]
    return spacings, shapes.astype(int)


def _ending(kind: str, rng: np.random.Generator) -> str:
    if kind == "flat":
        return str(rng.choice([".png", ".bmp", ".tif", ".nii.gz"]))
    return str(rng.choice([".nii.gz", ".nii.gz", ".nrrd", ".mha", ".tif"]))


def _intensities(rng: np.random.Generator) -> dict[str, float]:
    low, mean, high = sorted(rng.normal(0, 300, 3).tolist())
    return {
        "mean": mean, "median": mean, "std": float(rng.uniform(1, 100)), "min": low - 5,
        "max": high + 5, "percentile_99_5": high, "percentile_00_5": low,
    }  # fmt: skip


def _requests(
    cases: list[dict[str, Any]], planners: list[str], where: Bench
) -> Iterator[tuple[dict[str, Any], int]]:
    """Write what nnU-Net wants to find, and yield what to ask it and the number of the case."""
    for number, case in enumerate(cases):
        labels = dict(case["dataset"]["labels"])
        without = {key: value for key, value in labels.items() if key != "ignore"}
        for counts_ignore, used in ((False, without), (True, labels)):
            if counts_ignore and "ignore" not in labels:
                continue
            name = f"Dataset{2 * number % 1000 + counts_ignore:03d}_F{number}{'I' * counts_ignore}"
            _write_dataset(where, name, {**case["dataset"], "labels": used}, case["fingerprint"])
            for planner in planners:
                options = _options(case, planner)
                request = {"dataset": name, "planner": planner, "options": options}
                yield {**request, "counts_ignore": counts_ignore}, number


def _options(case: dict[str, Any], planner: str) -> dict[str, Any]:
    """Return the options with a plans file of the planner's own.

    In a file that is there already nnU-Net keeps every configuration it does not plan anew.
    """
    options = dict(case["options"])
    if "plans_name" in options:
        options["plans_name"] += planner
    return options


def _write_dataset(
    where: Bench, name: str, description: dict[str, Any], fingerprint: dict[str, Any]
) -> None:
    raw, preprocessed = where.raw / name, where.preprocessed("nnunet", name)
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    (raw / "dataset.json").write_text(json.dumps(description))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    ending = description["file_ending"]
    image = raw / "imagesTr" / f"a_0000{ending}"
    flat = all(shape[0] == 1 for shape in fingerprint["shapes_after_crop"])
    if ending in (".png", ".bmp") or (ending == ".tif" and flat):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(image)
    elif ending == ".tif":
        pages = [Image.fromarray(np.zeros((4, 5), np.uint8)) for _ in range(7)]
        pages[0].save(image, save_all=True, append_images=pages[1:])
    else:
        SimpleITK.WriteImage(SimpleITK.Image([5, 4, 3], SimpleITK.sitkInt16), str(image))


def _compare(
    case: dict[str, Any], request: dict[str, Any], answer: dict[str, Any], number: int
) -> dict[str, Any]:
    options = request["options"]
    outcome: dict[str, Any] = {
        "case": number, "kind": case["kind"], "planner": request["planner"], "differs": []
    }  # fmt: skip
    try:
        ours = plan_to_nnunet(
            make_plan(
                fingerprint_from_json(case["fingerprint"]),
                dataset_json=case["dataset"],
                dataset_name=request["dataset"],
                planner=request["planner"],
                target_spacing_mm=options.get("overwrite_target_spacing"),
                gpu_memory_gb=options.get("gpu_memory_target_in_gb"),
                plans_name=options.get("plans_name"),
            )
        )
    except RequestError as error:
        ours = None
        outcome["refused"] = str(error)
    except Exception as error:  # noqa: BLE001 - a crash is a finding, not the end of the comparison
        ours = None
        crash = f"{type(error).__name__}: {error}"
        outcome["differs"] = [("sparseunet crashed", crash, answer.get("error", "planned"))]
        return outcome
    if "error" in answer:
        outcome["nnunet_error"] = answer["error"]
    elif ours is None:
        outcome["differs"] = [("refused by sparseunet", outcome["refused"], "planned")]
    else:
        plain = json.loads(json.dumps(ours))
        outcome["differs"] = list(_differences(plain, answer["plans"], ""))
    return outcome


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            missing = "(missing)"
            yield from _differences(
                ours.get(key, missing), theirs.get(key, missing), f"{path}/{key}"
            )
    elif ours != theirs or type(ours) is not type(theirs):
        yield path, ours, theirs


def _changed_by_ignore(
    requests: list[tuple[dict[str, Any], int]], answers: list[dict[str, Any]]
) -> dict[str, int]:
    """Count nnU-Net's plans that are others when it counts the ignore label."""
    plans: dict[tuple[int, str], list[Any]] = {}
    for (request, number), answer in zip(requests, answers, strict=True):
        configurations = answer.get("plans", {}).get("configurations")
        plans.setdefault((number, request["planner"]), []).append(configurations)
    pairs = [pair for pair in plans.values() if len(pair) == 2]
    return {"with ignore": len(pairs), "changed": sum(first != second for first, second in pairs)}


def _keep(folder: Path, *parts: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    case, request, answer, outcome = parts
    content = {"case": case, "request": request, "nnunet": answer, "outcome": outcome}
    name = f"{outcome['case']:04d}_{outcome['planner']}.json"
    (folder / name).write_text(json.dumps(content, indent=1))


def _summarise(
    outcomes: list[dict[str, Any]], ignore: dict[str, int], arguments: argparse.Namespace
) -> None:
    names_only, rows = "data_identifier", []
    for outcome in outcomes:
        paths = [path for path, *_ in outcome["differs"]]
        outcome["in name only"] = all(path.endswith(names_only) for path in paths)
    for kind in KINDS:
        of_kind = [outcome for outcome in outcomes if outcome["kind"] == kind]
        failed = [outcome for outcome in of_kind if "nnunet_error" in outcome]
        rows.append(
            {
                "kind": kind,
                "plans": len(of_kind),
                "equal": sum(
                    not outcome["differs"] and "nnunet_error" not in outcome for outcome in of_kind
                ),
                "other data_identifier": sum(
                    bool(outcome["differs"]) and outcome["in name only"] for outcome in of_kind
                ),
                "different": sum(not outcome["in name only"] for outcome in of_kind),
                "nnU-Net failed": len(failed),
                "of these refused by us": sum("refused" in outcome for outcome in failed),
            }
        )
    report(rows, arguments, outcomes=outcomes, ignore=ignore, seed=arguments.seed)
    print(f"\nPlans of datasets with an ignore label that change when it is counted: {ignore}")
    for outcome in outcomes:
        for path, ours, theirs in outcome["differs"]:
            if not outcome["in name only"]:
                print(f"case {outcome['case']} {outcome['planner']} {path}: {ours}, not {theirs}")
    raise SystemExit(0 if all(outcome["in name only"] for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
