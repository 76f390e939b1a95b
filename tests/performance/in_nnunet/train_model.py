"""Train a small network with nnU-Net's own trainer. Runs in nnU-Net's environment.

Arguments: DATASET CONFIGURATION PLANS STEPS FEATURES BATCH. One epoch of STEPS on all cases (fold
`all`), on the CPU, from a plans file in which first features and batch are replaced; prints the
model folder.
"""

import json
import sys
from pathlib import Path

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def main() -> None:
    dataset, name, plans_name, steps, features, batch = sys.argv[1:]
    folder = Path(str(nnUNet_preprocessed)) / dataset
    plans, description = (
        json.loads((folder / file).read_text()) for file in (f"{plans_name}.json", "dataset.json")
    )
    configuration = plans["configurations"][name]
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [
        int(features) * 2**stage for stage in range(arguments["n_stages"])
    ]
    configuration["batch_size"] = int(batch)
    plans["continue_training"] = False  # as nnUNetv2_train adds it
    torch.set_num_threads(1)
    trainer = nnUNetTrainer(plans, name, "all", description, torch.device("cpu"))
    trainer.num_epochs = 1
    trainer.num_iterations_per_epoch = int(steps)
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    print(trainer.output_folder_base)


if __name__ == "__main__":
    main()
