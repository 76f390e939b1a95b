"""Model folders as nnU-Net leaves them, made of the frozen checkpoints in `golden`.

from frozen_models import TITLES, frozen, write_model_folder
"""

from pathlib import Path

import torch

from sparseunet.artifacts import write_json
from sparseunet.networks.checkpoint import read_checkpoint

FROZEN = Path(__file__).parent / "golden" / "nnunet_networks"
TITLES = sorted(path.stem for path in FROZEN.glob("*.pth"))
DATASET = "Dataset007_Tiny"


def frozen(title: str) -> dict:
    """Return the content of a frozen checkpoint: nnU-Net's, and beside it `input` and `logits`."""
    return read_checkpoint(FROZEN / f"{title}.pth")


def write_model_folder(results: Path, title: str, *, folds=(0,), configuration=None) -> Path:
    """Write `Dataset/Trainer__Plans__configuration` below `results` and return it.

    `configuration` gives the model another name than it was frozen with.
    """
    content = frozen(title)
    said = content["init_args"]
    configurations = said["plans"]["configurations"]
    if configuration is not None:
        configurations[configuration] = configurations.pop(said["configuration"])
        said["configuration"] = configuration
    name = f"nnUNetTrainer__{said['plans']['plans_name']}__{said['configuration']}"
    folder = results / DATASET / name
    for fold in folds:
        target = folder / f"fold_{fold}" / "checkpoint_final.pth"
        target.parent.mkdir(parents=True)
        torch.save(content, target)
    write_json(folder / "plans.json", said["plans"])
    write_json(folder / "dataset.json", said["dataset_json"])
    return folder
