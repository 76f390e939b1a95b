"""Train a few steps and validate with nnU-Net's own trainer. Runs in nnU-Net's environment.

Arguments: DATASET CONFIGURATION FOLD PLANS. One epoch of three steps, on the CPU; the rest is as
in nnU-Net. The trainer is made here, because looking one up by name imports all of them, and some
need timm.
"""

import json
import sys
from pathlib import Path

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def main() -> None:
    dataset, configuration, fold, plans_name = sys.argv[1:]
    folder = Path(str(nnUNet_preprocessed)) / dataset
    plans, description = (
        json.loads((folder / name).read_text()) for name in (f"{plans_name}.json", "dataset.json")
    )
    plans["continue_training"] = False  # as nnUNetv2_train adds it
    device = torch.device("cpu")
    trainer = nnUNetTrainer(plans, configuration, int(fold), description, device)
    trainer.num_epochs = 1
    trainer.num_iterations_per_epoch = 3
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    trainer.perform_actual_validation(save_probabilities=False)


if __name__ == "__main__":
    main()
