"""How much memory a scan will need, from its header."""

from math import prod

from sparseunet.data.dataset import Case
from sparseunet.data.io import read_geometry
from sparseunet.errors import DatasetError
from sparseunet.prediction.loaded_model import LoadedModel
from sparseunet.prediction.memory import BYTES_OF_SLABS
from sparseunet.preprocessing.interpolation import resampled_shape

_COPIES_AS_READ = 2
"""float32 volumes that reading holds: the file's own numbers (or its channels) and the scan."""
_MASKS = 5
"""bool volumes while holes in the mask of nonzero voxels are filled."""


def bytes_of_scan(loaded: LoadedModel, scan: Case) -> int:
    """Return the most that a scan needs at a time, from being read to being written.

    As if nothing were cropped. 0 if the header cannot be read.
    """
    try:
        geometry = read_geometry(scan.images[0])
    except DatasetError:
        return 0
    plan, configuration = loaded.model.plan, loaded.model.configuration
    shape = [geometry.shape[axis] for axis in plan.transpose_forward]
    spacing_mm = [geometry.spacing_mm[axis] for axis in plan.transpose_forward]
    kept = 3 - configuration.dimensions
    new_spacing_mm = (*spacing_mm[:kept], *configuration.spacing_mm)
    new_shape = resampled_shape(shape, spacing_mm, new_spacing_mm)
    voxels, new_voxels = prod(shape), prod(new_shape)
    as_read = 4 * len(plan.intensities) * voxels
    prepared = 4 * len(plan.intensities) * new_voxels
    num_masks = _MASKS if any(configuration.use_mask_for_norm) else 1
    preparing = max(
        _COPIES_AS_READ * as_read,
        as_read + num_masks * voxels,
        as_read + (prepared + BYTES_OF_SLABS if new_shape != tuple(shape) else 0),
    )
    if configuration.previous_stage is not None:
        one_hot = 4 * len(loaded.model.labels.foreground_values) * new_voxels
        preparing = max(preparing, 2 * (prepared + one_hot))
        prepared += one_hot
    logits = loaded.bytes_of_logits(new_shape)
    predicting = prepared + logits + loaded.bytes_beside_logits(geometry.shape, new_shape)
    return max(preparing, predicting)
