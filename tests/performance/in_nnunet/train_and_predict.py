"""Train with nnU-Net's own trainer and predict the test scans. Runs in nnU-Net's environment.

Arguments: REQUEST, a JSON file with dataset, configuration, seed, iterations, features, batch,
patch (or null), threads, scans (files) and output (folder). Case files are written into the
output folder; the last line printed is the seconds that training took.

The trainer is nnU-Net's, in float32 as on any CPU, all cases (fold `all`), with the plan's network,
but for first features, batch and patch. Only the length differs: epochs of 50 iterations, one batch
to validate after each. Batches are made in the same process, so that one thread does everything.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
os.environ["nnUNet_compile"] = "f"  # noqa: SIM112

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_PER_EPOCH = 50


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    random.seed(request["seed"])
    np.random.seed(request["seed"])  # noqa: NPY002 - what nnU-Net's loaders draw from
    torch.manual_seed(request["seed"])
    torch.set_num_threads(request["threads"])
    device = torch.device("cpu")
    plans, description = _plans(request)
    trainer = nnUNetTrainer(plans, request["configuration"], "all", description, device)
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = _PER_EPOCH, 1
    trainer.num_epochs = request["iterations"] // _PER_EPOCH
    trainer.save_every = 10**6
    start = time.time()
    trainer.run_training()
    train_s = time.time() - start

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=device, allow_tqdm=False
    )
    model = str(Path(trainer.output_folder).parent)
    predictor.initialize_from_trained_model_folder(model, ("all",), "checkpoint_final.pth")
    output = Path(request["output"])
    output.mkdir(parents=True, exist_ok=True)
    scans = [[scan] for scan in request["scans"]]
    cases = [str(output / Path(scan).name.replace("_0000.", ".")) for (scan,) in scans]
    predictor.predict_from_files_sequential(scans, cases, overwrite=True)
    print(train_s)


def _plans(request: dict) -> tuple[dict, dict]:
    folder = Path(str(nnUNet_preprocessed)) / request["dataset"]
    plans, description = (
        json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json")
    )
    configuration = plans["configurations"][request["configuration"]]
    configuration["batch_size"] = request["batch"]
    if request["patch"]:
        configuration["patch_size"] = request["patch"]
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [
        min(320, request["features"] * 2**stage) for stage in range(arguments["n_stages"])
    ]
    plans["continue_training"] = False  # as nnUNetv2_train adds it
    plans["plans_name"] = f"{request['name']}_seed{request['seed']}"
    return plans, description


if __name__ == "__main__":
    main()
