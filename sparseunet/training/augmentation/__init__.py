"""Random changes of training patches: what a chain of them is, and the chains by name.

A chain says where the voxels of a patch come from (`Movement`) and how intensities change. It never
sees labels: the loader moves them along, each from the nearest voxel, so that a weight of 0
(unannotated) never mixes with its neighbours and no label moves further than half a voxel. What a
movement brings in from outside the scan has weight 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.named_functions import load_function
from sparseunet.training.choices import AUGMENTATIONS, Named


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Movement:
    """Where the voxels of one patch come from; without arguments, each from its own place.

    First the matrix and the displacement say where to sample, then the sampled patch is turned,
    then mirrored.
    """

    matrix: np.ndarray | None = None
    """(D, D): takes offsets from the patch's centre along its last D axes, in voxels, to offsets in
    the scan. Axes before are left alone. None: nothing is rotated or zoomed."""
    displacement: np.ndarray | None = None
    """float32 (D, sizes of the sampled patch's last D axes): voxels added to the offsets before the
    matrix. None: nothing is deformed."""
    quarter_turns: int = 0
    """Turns by 90° in the plane of the last two axes."""
    mirrored_axes: tuple[int, ...] = ()
    """Axes of the patch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How patches are changed. Everything random is drawn from the generator handed in."""

    move: Callable[[np.random.Generator], Movement]
    """Draws how a patch is moved; called first, once per patch."""
    change_intensities: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    """image_CZYX (image_CYX in 2D), float32, of the network's patch size, to the same; it may be
    changed in place."""
    disturb_previous_stage: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    """Changes what the previous stage of a cascade predicted, label values on the patch."""


MakeAugmentation = Callable[[Sequence[int], Sequence[int]], Augmentation]
"""(patch size, axes that may be mirrored) to the chain for such patches."""


def load_augmentation(name: Named) -> MakeAugmentation:
    """Return what makes the chain of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such chain; lists those there are.
    """
    made: MakeAugmentation = load_function(name, AUGMENTATIONS, what="augmentation")
    return made
