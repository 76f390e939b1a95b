"""A trainer that shows that nnU-Net trains, in seconds. Found by nnU-Net in nnUNet_extTrainer."""

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class FewIterations(nnUNetTrainer):
    """One epoch of three steps, with nnU-Net's loss, optimiser, loader and validation."""

    # nnU-Net stores the arguments by the names of this signature.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = 3
        self.num_val_iterations_per_epoch = 1
