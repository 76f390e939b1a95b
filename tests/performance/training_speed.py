"""Time training steps of nnU-Net and of sparseunet in turn: forward with loss, backward, step.

Networks, losses and optimisers are each package's own, built from the same plans; the batch is
random and lies in memory, so loaders have no part (`loader_speed.py`). On a CPU nnU-Net knows
float32 only. On CUDA it compiles its network unless `nnUNet_compile=f` is set, and the case of
128³ voxels with 6 stages is added, with the memory it takes.
"""

import argparse
import copy
import json
import os
import statistics
import sys
from typing import Any

from both_packages import HERE, Bench, add_arguments, bench, report

CASES = {
    "3d, batch 2": ("3d_fullres", {"batch_size": 2}),
    "3d, batch 7": ("3d_fullres", {"batch_size": 7}),
    "2d, batch 32": ("2d", {"batch_size": 32}),
    "3d of 128³, batch 2": ("3d_fullres", {"batch_size": 2, "patch_size": [128, 128, 128]}),
}
"""Name to configuration of the hippocampus plans, and what is changed of it."""
LARGE = "3d of 128³, batch 2"
LARGE_FEATURES = [32, 64, 128, 256, 320, 320]
VARIANTS = {
    "cpu": [("nnunet", "float32"), ("sparseunet", "float32"), ("sparseunet", "bfloat16")],
    "cuda": [("nnunet", "float16"), ("sparseunet", "float16"), ("sparseunet", "bfloat16")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("-device", "--device", choices=VARIANTS, default="cpu")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: all for the device")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of one run")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    cases = arguments.cases or [
        name for name in CASES if name != LARGE or arguments.device == "cuda"
    ]
    runs: list[dict[str, Any]] = []
    with bench(arguments) as where:
        plans, description = _plan(where, arguments)
        for name in cases:
            for repeat in range(arguments.repeats):
                for package, precision in VARIANTS[arguments.device]:
                    request = _request(name, plans, description, arguments)
                    answer = _run(where, package, {**request, "precision": precision})
                    runs.append(
                        {
                            "case": name,
                            "package": package,
                            "precision": precision,
                            "repeat": repeat,
                            **answer,
                        }
                    )
                    total = min(sum(parts) for parts in answer["times_s"])
                    print(f"{name} {package} {precision}: {total:.3f} s per step", flush=True)
    rows = [
        _summarise(name, variant, runs) for name in cases for variant in VARIANTS[arguments.device]
    ]
    report(rows, arguments, runs=runs, threads=arguments.threads, device=arguments.device)


def _plan(where: Bench, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    dataset = where.link(arguments.data / "Dataset004_Hippocampus")
    folder = where.preprocessed("sparseunet", dataset)
    if not (folder / "nnUNetPlans.json").exists():
        where.run(where.sparseunet("extract_fingerprint", "-d", 4, "-np", arguments.num_workers))
        where.run(where.sparseunet("plan_experiment", "-d", 4))
    plans, description = (
        json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json")
    )
    return plans, description


def _request(
    name: str,
    plans: dict[str, Any],
    description: dict[str, Any],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    configuration, changes = CASES[name]
    changed = copy.deepcopy(plans)
    changed["configurations"][configuration] |= changes
    if name == LARGE:
        stages = len(LARGE_FEATURES)
        options = changed["configurations"][configuration]["architecture"]["arch_kwargs"]
        options |= {
            "n_stages": stages,
            "features_per_stage": LARGE_FEATURES,
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
        }
    return {
        "plans": changed,
        "dataset_json": description,
        "configuration": configuration,
        "device": arguments.device,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "warm_up": arguments.warm_up,
    }


def _run(where: Bench, package: str, request: dict[str, Any]) -> dict[str, Any]:
    asked, answered = where.root / "request.json", where.root / "answer.json"
    asked.write_text(json.dumps(request))
    if package == "nnunet":
        command = where.nnunet_python(HERE / "in_nnunet" / "time_steps.py", asked, answered)
    else:
        command = [sys.executable, str(HERE / "time_steps.py"), str(asked), str(answered)]
    where.run(command)
    answer: dict[str, Any] = json.loads(answered.read_text())
    return answer


def _summarise(name: str, variant: tuple[str, str], runs: list[dict[str, Any]]) -> dict[str, Any]:
    def best(package: str, precision: str) -> tuple[list[float], list[float], Any]:
        own = [
            run
            for run in runs
            if (run["case"], run["package"], run["precision"]) == (name, package, precision)
        ]
        steps = [parts for run in own for parts in run["times_s"]]
        return min(steps, key=sum), [sum(parts) for parts in steps], own[0]["memory_mib"]

    fastest, totals, memory_mib = best(*variant)
    reference = next(
        (run["package"], run["precision"]) for run in runs if run["package"] == "nnunet"
    )
    row = {
        "case": name,
        "package": variant[0],
        "precision": variant[1],
        "forward and loss, s": fastest[0],
        "backward, s": fastest[1],
        "optimiser, s": fastest[2],
        "step, s": sum(fastest),
        "median step, s": statistics.median(totals),
        "steps/s": 1 / sum(fastest),
        "times nnU-Net's speed": sum(best(*reference)[0]) / sum(fastest),
    }
    if memory_mib is not None:
        row["memory, MiB"] = memory_mib
    return row


if __name__ == "__main__":
    main()
