"""Make batches with nnU-Net's own loader and nothing else. Runs in nnU-Net's environment.

Arguments: DATASET CONFIGURATION BATCH_SIZE COUNT OUTPUT [PLANS]. The loader is the one that
`nnUNet_n_proc_DA=0` gives: one process, one thread. Writes seconds per batch as JSON, and per patch
the mean and deviation of its first channel and the share of its voxels that are exactly 0.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - nnU-Net spells it so

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def main() -> None:
    dataset, configuration, batch_size, count, output = sys.argv[1:6]
    plans_name = sys.argv[6] if len(sys.argv) > 6 else "nnUNetPlans"
    torch.set_num_threads(1)
    folder = Path(str(nnUNet_preprocessed)) / dataset
    plans, description = (
        json.loads((folder / name).read_text()) for name in (f"{plans_name}.json", "dataset.json")
    )
    plans["continue_training"] = False  # as nnUNetv2_train adds it
    plans["configurations"][configuration]["batch_size"] = int(batch_size)
    trainer = nnUNetTrainer(plans, configuration, "all", description, torch.device("cpu"))
    trainer._set_batch_size_and_oversample()
    batches, _ = trainer.get_dataloaders()
    wall_s, processor_s, patches = [], [], []
    for _ in range(int(count)):
        start, processor = time.perf_counter(), time.process_time()
        image = next(batches)["data"]
        wall_s.append(time.perf_counter() - start)
        processor_s.append(time.process_time() - processor)
        patches += [
            [float(patch.mean()), float(patch.std()), float((patch == 0).float().mean())]
            for patch in image[:, 0]
        ]
    figures = {"wall_s": wall_s, "processor_s": processor_s, "patches": patches}
    Path(output).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
