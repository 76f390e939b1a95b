"""Plan many datasets with nnU-Net's planners in one process. Runs in nnU-Net's environment.

Argument: a JSON file, a list of {"dataset", "planner", "options"}. Beside it `answers.json` is
written: per request the plans, or what went wrong. Networks are built on torch's meta device, which
allocates nothing; planning only counts the elements of their feature maps.
"""

import contextlib
import copy
import io
import json
import signal
import sys
import traceback
import warnings
from pathlib import Path

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual,
)

PLANNERS = {
    "default": ExperimentPlanner,
    "ResEncM": residual.nnUNetPlannerResEncM,
    "ResEncL": residual.nnUNetPlannerResEncL,
    "ResEncXL": residual.nnUNetPlannerResEncXL,
}
LIMIT_S = 90


def stop(*_: object) -> None:
    raise TimeoutError(f"not done in {LIMIT_S} s")


def plan(request: dict) -> dict:
    planner = PLANNERS[request["planner"]](request["dataset"], **request["options"])
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
            return copy.deepcopy(planner.plan_experiment())
    finally:
        signal.alarm(0)


def main() -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stop)
    source = Path(sys.argv[1])
    answers = []
    for request in json.loads(source.read_text()):
        try:
            answers.append({"plans": json.loads(json.dumps(plan(request)))})
        except Exception as error:  # noqa: BLE001 - whatever nnU-Net raises is the answer
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            answers.append({"error": text})
    source.with_name("answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
