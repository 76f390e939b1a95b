"""`sparseunet train` with one of its measures for sparse labels taken back.

Arguments: MEASURE ARGUMENTS..., the latter those of `sparseunet`. For `label_efficiency.py`, which
asks what each measure buys. Users have no such switch, since there is no reason to turn one off.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparseunet.cli.main import main
from sparseunet.training import objective, recipe, sampling
from sparseunet.training.losses import named
from sparseunet.training.losses.comparison import Comparison


def centre_the_chosen_voxel() -> None:
    """Put the voxel that a patch must hold into its middle, as nnU-Net does."""
    draw_anywhere = sampling._start_holding

    def start_around(voxel, shape, patch_size, rng: np.random.Generator):
        start = list(draw_anywhere(voxel, shape, patch_size, rng))
        for axis, (position, size, patch) in enumerate(zip(voxel, shape, patch_size, strict=True)):
            if position is not None:
                low, high = min(0, size - patch), max(0, size - patch)
                start[axis] = min(max(position - patch // 2, low), high)
        return tuple(start)

    sampling._start_holding = start_around


def pick_every_nth_voxel() -> None:
    """Shrink targets to lower levels by picking voxels, which loses most annotated slices."""

    def targets(
        labels_BZYX: Tensor,
        weight_BZYX: Tensor,
        *,
        strides: Sequence[Sequence[int]],
        num_values: int,
    ) -> list[tuple[Tensor, Tensor]]:
        levels = []
        for stride in strides:
            picked = (slice(None), *(slice(step // 2, None, step) for step in stride))
            labels_BZYX, weight_BZYX = labels_BZYX[picked], weight_BZYX[picked]
            levels.append((labels_BZYX, weight_BZYX))
        return levels

    objective.targets_of_levels = targets


def divide_by_all_voxels() -> None:
    """Divide the cross-entropy by all voxels of the batch instead of the annotated ones."""

    def ratio(losses: Tensor, weights: Tensor, comparison: Comparison) -> Tensor:
        (loss,) = comparison.total(torch.stack((losses.sum(),)))
        return loss / weights.numel()

    named._ratio = ratio


def take_dice_of_each_patch() -> None:
    """Take the Dice of each patch, as nnU-Net plans for 3d_fullres, instead of the batch's."""
    made = recipe.Recipe.__init__

    def with_patch_dice(self, **options) -> None:
        made(self, **{**options, "batch_dice": False})

    recipe.Recipe.__init__ = with_patch_dice


MEASURES = {
    "position": [centre_the_chosen_voxel],
    "levels": [pick_every_nth_voxel],
    "division": [divide_by_all_voxels],
    "batch-dice": [take_dice_of_each_patch],
    "all": [centre_the_chosen_voxel, pick_every_nth_voxel, take_dice_of_each_patch],
}
"""Name to what takes the measure back. `all` leaves the division, which nnU-Net does too."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("words", nargs=argparse.REMAINDER, help="as behind `sparseunet`")
    arguments = parser.parse_args()
    for take_back in MEASURES[arguments.measure]:
        take_back()
    sys.exit(main(arguments.words))
