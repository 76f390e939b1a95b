"""Read training patches from preprocessed cases, moved as an augmentation wants them."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from sparseunet.data.annotation import Source
from sparseunet.preprocessing.previous_stage import PreviousStage
from sparseunet.preprocessing.store import Box, Patch
from sparseunet.training.augmentation import Movement
from sparseunet.training.augmentation.points import SamplePoints


class ReadsPatches(Protocol):
    """A `CaseStore`, or cases in memory."""

    def read_patch(self, case: str, start: Box, stop: Box) -> Patch:
        """Return the voxels from `start` to before `stop`, within the case."""
        ...


class TrainingPatch(NamedTuple):
    """What a network learns from, on the same box. Outside the case everything is 0."""

    image_CZYX: np.ndarray
    """float32, an array that nothing else refers to."""
    labels_ZYX: np.ndarray
    """Label values, unsigned."""
    weight_ZYX: np.ndarray
    """float32; 0 is unannotated."""
    inside_ZYX: np.ndarray
    """bool, the image's own nonzero mask."""
    previous_ZYX: np.ndarray | None
    """Label values of the previous stage of a cascade."""


def weight_table(trust: Mapping[Source, float]) -> np.ndarray:
    """Return the loss weight by source, float32; `Source.NONE` has 0 whatever is said."""
    table = np.zeros(len(Source), np.float32)
    for source, weight in trust.items():
        table[source] = weight
    table[Source.NONE] = 0
    return table


def read_training_patch(
    cases: ReadsPatches,
    case: str,
    start: Box,
    size: Box,
    *,
    shape: Box,
    weights: np.ndarray,
    movement: Movement | None = None,
    previous_stage: PreviousStage | None = None,
) -> TrainingPatch:
    """Read a patch that may reach outside the case and may be moved.

    Images are interpolated linearly, everything else is taken from the nearest voxel. Exactly the
    box that holds the needed voxels is read.

    Args:
        cases: Where to read.
        case: Name.
        start: First voxel of the unmoved patch.
        size: Voxels of the patch along (z, y, x).
        shape: Voxels of the case.
        weights: From `weight_table`.
        movement: Where the patch's voxels come from, its axes counted from z; None: from their
            own place.
        previous_stage: What the first stage of a cascade predicted.
    """
    moved = Movement() if movement is None else movement
    if moved.quarter_turns % 2:
        size, start = _turned_box(size, start)
    if moved.matrix is None and moved.displacement is None:
        box = _read_box(cases, case, start, size, shape, previous_stage)
    else:
        points = SamplePoints(size, moved)
        z, y, x = (first + offset for first, offset in zip(start, points.start, strict=True))
        box = _sample(points, _read_box(cases, case, (z, y, x), points.size, shape, previous_stage))
    weight_ZYX = weights.take(box.source_ZYX)
    if box.confidence_ZYX is not None:
        weight_ZYX *= box.confidence_ZYX
    patch = TrainingPatch(
        box.image_CZYX, box.labels_ZYX, weight_ZYX, box.inside_ZYX, box.previous_ZYX
    )
    return _turn_and_mirror(patch, moved)


class _Read(NamedTuple):
    """The arrays of one box as stored; fields as in `Patch`, then the previous stage."""

    image_CZYX: np.ndarray
    labels_ZYX: np.ndarray
    source_ZYX: np.ndarray
    confidence_ZYX: np.ndarray | None
    inside_ZYX: np.ndarray
    previous_ZYX: np.ndarray | None


def _read_box(
    cases: ReadsPatches,
    case: str,
    start: Box,
    size: Box,
    shape: Box,
    previous_stage: PreviousStage | None,
) -> _Read:
    """Read a box that may reach outside the case, filled with 0 there.

    Along an axis of 10 voxels a box of 6 from -2 reads voxels 0 to 3 and writes them to positions 2
    to 5. A box wholly outside reads nothing.
    """
    low = tuple(min(max(0, first), length) for first, length in zip(start, shape, strict=True))
    high = tuple(
        max(bottom, min(length, first + extent))
        for bottom, first, extent, length in zip(low, start, size, shape, strict=True)
    )
    # Only what lies inside is read; most boxes lie inside wholly and are returned as they are.
    box: tuple[Box, Box] = (low[0], low[1], low[2]), (high[0], high[1], high[2])
    previous = None if previous_stage is None else previous_stage.read_patch(case, *box)
    read = _Read(*cases.read_patch(case, *box), previous)
    if all(top - bottom == extent for bottom, top, extent in zip(low, high, size, strict=True)):
        return read
    z, y, x = (
        slice(bottom - first, top - first)
        for bottom, top, first in zip(low, high, start, strict=True)
    )

    def pad(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        padded = np.zeros((*array.shape[:-3], *size), array.dtype)
        padded[..., z, y, x] = array
        return padded

    return _Read(*(pad(array) for array in read))  # type: ignore[arg-type]


def _sample(points: SamplePoints, box: _Read) -> _Read:
    """Sample every array at the points: the image linearly, the others from the nearest voxel."""
    kept = {
        name: array
        for name, array in box._asdict().items()
        if array is not None and name != "image_CZYX"
    }
    sampled = dict(zip(kept, points.nearest(list(kept.values())), strict=True))
    return box._replace(image_CZYX=points.linear(box.image_CZYX), **sampled)


def _turned_box(size: Box, start: Box) -> tuple[Box, Box]:
    """Return size and start of the patch that a quarter turn about its centre brings to `size`.

    A patch of (1, 4, 8) from (0, 10, 10) has its centre at (12, 14). The turned one has the size
    (1, 8, 4) and starts at (0, 8, 12).
    """
    turned = size[0], size[2], size[1]
    z, y, x = (
        first + (before - after) // 2
        for first, before, after in zip(start, size, turned, strict=True)
    )
    return turned, (z, y, x)


def _turn_and_mirror(patch: TrainingPatch, movement: Movement) -> TrainingPatch:
    """Return views, but of the image a copy: what was read may lie in memory for all patches."""
    turns = movement.quarter_turns
    flipped = tuple(
        slice(None, None, -1 if axis in movement.mirrored_axes else None) for axis in range(3)
    )

    def change(array: np.ndarray) -> np.ndarray:
        if turns:
            array = np.rot90(array, turns, (-2, -1))
        return array[..., *flipped]

    return TrainingPatch(
        image_CZYX=change(patch.image_CZYX).copy(order="C"),
        labels_ZYX=change(patch.labels_ZYX),
        weight_ZYX=change(patch.weight_ZYX),
        inside_ZYX=change(patch.inside_ZYX),
        previous_ZYX=None if patch.previous_ZYX is None else change(patch.previous_ZYX),
    )
