"""Labels carried from slice to slice by what the scan shows (Z25 appendix F)."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import ndimage

from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import Filling, Gap, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.outlines import signed_distance
from sparseunet.annotation.interpolation.shape import CONE_SLOPE, END_SLOPE, interpolate_spline
from sparseunet.data.annotation import Annotation
from sparseunet.data.image import Image

if TYPE_CHECKING:
    from sparseunet.annotation.interpolation.propagation_scans import GapWalker
    from sparseunet.networks.propagation import PropagationNetwork

Mask = TypeVar("Mask")

CLIP_PIXELS = 4
"""What is carried of each class is the signed distance to its outline, cut off here: a soft
one-hot mask. Sharp masks blur away from slice to slice."""
SHAPE_SHARE = 0.3
"""Weight of the spline's outlines in `interpolate_combined`."""
DISTRUST = 10.0
"""A pass weighs e times less per 1 / DISTRUST of intensity range that it reconstructs wrongly."""
_RIM_PIXELS = 16
"""Slices are cut to what the ends of the gap hold and so many pixels around it."""


def interpolate_learned(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Carry labels from annotated slices through the gaps; see `Interpolator` and `propagate`.

    The network is trained on `request.scans`, or else on this scan alone, without labels, unless
    `request.cache` holds it from a call before.
    """
    if not find_gaps(annotation, image.geometry.spacing_mm, request):
        return annotation
    from sparseunet.annotation.interpolation.propagation_scans import trained_network

    return propagate(image, annotation, network=trained_network(image, request), request=request)


def interpolate_combined(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Blend learned propagation with the spline between outlines; see `Interpolator`.

    In every voxel the signed distances of both are averaged, `SHAPE_SHARE` of the spline's.
    """
    if not find_gaps(annotation, image.geometry.spacing_mm, request):
        return annotation
    from sparseunet.annotation.interpolation.propagation_scans import trained_network

    prior = interpolate_spline(image, annotation, request=request)
    network = trained_network(image, request)
    return propagate(image, annotation, network=network, request=request, prior=prior)


def propagate(
    image: Image,
    annotation: Annotation,
    *,
    network: "PropagationNetwork",
    request: InterpolationRequest,
    prior: Annotation | None = None,
) -> Annotation:
    """Fill the gaps of an annotation with a trained network, without training.

    Two passes go through each gap, up from its lower end and down from its upper one. Each is a
    queue of slices (`spread`). In every voxel the passes are averaged, weighted by the distance to
    their ends and by how well they reconstruct the scan itself there; then the class with the
    greatest signed distance wins. A class that one end lacks shrinks towards it as in shape-based
    interpolation.

    Args:
        image: The scan.
        annotation: On the same grid.
        network: From `propagation_training.train_propagation`, in evaluation mode.
        request: What to fill; scans, seed, time budget and cache are not used.
        prior: The same annotation filled by another method, to blend with.
    """
    from sparseunet.annotation.interpolation.propagation_scans import GapWalker, stack_of

    axis, spacing_mm = request.axis, image.geometry.spacing_mm
    labels_KYX = np.moveaxis(annotation.labels_ZYX, axis, 0)
    prior_KYX = None if prior is None else np.moveaxis(prior.labels_ZYX, axis, 0)
    stack = stack_of(image, axis)
    filling = Filling(annotation, axis)
    for gap in find_gaps(annotation, spacing_mm, request):
        part = _Part.of(gap, labels_KYX, spacing_mm=spacing_mm, axis=axis)
        if len(part.values) == 1:
            passes: list[dict[int, np.ndarray]] = [{} for _ in gap.ends]
        else:
            walker = GapWalker(
                network,
                stack[:, :, *part.box],
                gap,
                pixels_mm=part.pixels_mm,
                device=request.device,
            )
            passes = [_walk(walker, gap, end, part) for end in gap.ends]
        for index in gap.slices:
            scores_CYX = _fuse(passes, gap, index, part, stack)
            if prior_KYX is not None:
                shape_CYX = part.distances(prior_KYX[index][part.box])
                scores_CYX = (1 - SHAPE_SHARE) * scores_CYX + SHAPE_SHARE * shape_CYX
            labels, margin_mm = part.decide(scores_CYX)
            filling.fill_slice(
                index,
                labels,
                confidence(
                    labels,
                    margin_mm,
                    gap=gap,
                    index=index,
                    spacing_mm=spacing_mm,
                    axis=axis,
                    method="learned" if prior is None else "combined",
                ),
            )
    return filling.annotation()


def spread(
    masks: Mapping[int, Mask],
    *,
    new: Iterable[int],
    steps: tuple[int, ...],
    carry_mask: Callable[[Mask, int, int], Mask],
    holds_object: Callable[[Mask], bool],
) -> dict[int, Mask]:
    """Carry masks from slice to slice until nothing new is reached (Z25 algorithm 1).

    A queue starts with the known masks. Each mask taken from it is carried to the neighbouring
    slices that are new; a neighbour that then holds an object joins the end of the queue. Every
    slice is reached once at most; those left out of the result hold background.

    Args:
        masks: Known masks by slice.
        new: Slices to reach; known slices are never new.
        steps: To which neighbours masks are carried: -1 down, +1 up, or both.
        carry_mask: Makes the mask of the second slice from that of the first.
        holds_object: Whether a mask is more than background.

    Returns:
        The masks of the slices that were reached, in the order in which they were.
    """
    waiting = deque((index, mask) for index, mask in masks.items() if holds_object(mask))
    left = set(new) - set(masks)
    reached: dict[int, Mask] = {}
    while waiting:
        here, mask = waiting.popleft()
        for there in (here + step for step in steps):
            if there in left:
                left.remove(there)
                reached[there] = carry_mask(mask, here, there)
                if holds_object(reached[there]):
                    waiting.append((there, reached[there]))
    return reached


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """What one gap is about: the part of its slices where its objects can be, and its classes."""

    box: tuple[slice, slice]
    values: tuple[int, ...]
    """Label values of background and every class of the ends."""
    ends_CYX: Mapping[int, np.ndarray]
    """By end: signed distance to the outline of each class without background, in millimetres."""
    is_present: Mapping[int, np.ndarray]
    """End to bool per class, whether it occurs there."""
    pixels_mm: tuple[float, float]
    step_mm: float
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, gap: Gap, labels_KYX: np.ndarray, *, spacing_mm: Sequence[float], axis: int
    ) -> "_Part":
        rows_mm, columns_mm = (size for other, size in enumerate(spacing_mm) if other != axis)
        ends = [labels_KYX[end] for end in gap.ends]
        values = (0, *(int(value) for value in np.unique(ends) if value > 0))
        box = _box_around(np.any([labels > 0 for labels in ends], axis=0), (rows_mm, columns_mm))
        part = cls(
            box=box,
            values=values,
            ends_CYX={},
            is_present={
                end: np.isin(values[1:], labels) for end, labels in zip(gap.ends, ends, strict=True)
            },
            pixels_mm=(rows_mm, columns_mm),
            step_mm=spacing_mm[axis],
            shape=ends[0].shape,
        )
        distances = {end: part.distances(labels_KYX[end][box])[1:] for end in gap.ends}
        return replace(part, ends_CYX=distances)

    @property
    def clip_mm(self) -> float:
        """Greatest distance; distances beyond it count as equal to it."""
        return CLIP_PIXELS * min(self.pixels_mm)

    def distances(self, labels: np.ndarray) -> np.ndarray:
        """Return the clipped signed distance to each class, background first, (C, Y, X)."""
        distances = [signed_distance(labels == value, self.pixels_mm) for value in self.values]
        return np.clip(np.stack(distances), -self.clip_mm, self.clip_mm)

    def decide(self, scores_CYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and their margin in millimetres, of whole slices."""
        labels = np.zeros(self.shape, np.int64)
        margin_mm = np.full(self.shape, self.clip_mm, np.float32)
        if len(self.values) > 1:
            labels[self.box] = np.array(self.values)[scores_CYX.argmax(axis=0)]
            second, best = np.partition(scores_CYX, -2, axis=0)[-2:]
            margin_mm[self.box] = (best - second) / 2
        return labels, margin_mm


def _walk(walker: "GapWalker", gap: Gap, end: int, part: _Part) -> dict[int, np.ndarray]:
    """Return, per slice that a pass from one end reaches, distances and intensities (C, Y, X)."""
    reached = spread(
        {end: walker.start(end, part.ends_CYX[end])},
        new=gap.slices,
        steps=(1 if end == gap.before else -1,),
        carry_mask=walker.carry,
        holds_object=walker.holds_object,
    )
    return {index: walker.to_numpy(mask) for index, mask in reached.items()}


def _fuse(
    passes: Sequence[Mapping[int, np.ndarray]],
    gap: Gap,
    index: int,
    part: _Part,
    stack: np.ndarray,
) -> np.ndarray:
    """Return the distances of all passes as one, background first (C, Y, X)."""
    num_classes = len(part.values) - 1
    intensities = stack[index][:, *part.box]
    lost = np.full((num_classes, *intensities.shape[1:]), -part.clip_mm, np.float32)
    away_mm = [abs(index - end) * part.step_mm for end in gap.ends]
    distances = [each[index][:num_classes] if index in each else lost for each in passes]
    if len(gap.ends) == 1:
        distances = [distances[0] - np.float32(END_SLOPE * away_mm[0])]
    else:
        distances = _end_what_one_end_lacks(distances, gap, part)
    errors = [
        np.abs(each[index][num_classes:] - intensities).mean(axis=0) if index in each else None
        for each in passes
    ]
    scores = np.zeros((num_classes + 1, *lost.shape[1:]), np.float32)
    total = np.zeros(lost.shape[1:], np.float32)
    for distance_CYX, error, mm in zip(distances, errors, away_mm, strict=True):
        # A pass that found nothing has reconstructed nothing: it is trusted like the other one.
        wrong = next((known for known in (error, *errors) if known is not None), np.float32(0))
        weight = np.exp(-np.float32(DISTRUST) * wrong) / np.float32(mm)
        scores[1:] += weight * distance_CYX
        if num_classes:
            # Before the mean is taken: a voxel between two classes is far from background in both.
            scores[0] -= weight * distance_CYX.max(axis=0)
        total += weight
    return scores / total


def _end_what_one_end_lacks(
    distances: Sequence[np.ndarray], gap: Gap, part: _Part
) -> list[np.ndarray]:
    """Let classes that only one end holds shrink on the way to the other, as a cone."""
    lower, upper = (part.is_present[end][:, None, None] for end in gap.ends)
    cone_mm = np.float32(CONE_SLOPE * (gap.ends[1] - gap.ends[0]) * part.step_mm)
    first, second = distances
    return [
        np.where(upper & ~lower, second - cone_mm, first),
        np.where(lower & ~upper, first - cone_mm, second),
    ]


def _box_around(inside: np.ndarray, pixels_mm: tuple[float, float]) -> tuple[slice, slice]:
    (found,) = ndimage.find_objects(inside.astype(np.uint8)) or (None,)
    if found is None:
        return slice(0, 0), slice(0, 0)
    rims = [max(1, round(_RIM_PIXELS * min(pixels_mm) / mm)) for mm in pixels_mm]
    rows, columns = (
        slice(max(0, part.start - rim), min(size, part.stop + rim))
        for part, rim, size in zip(found, rims, inside.shape, strict=True)
    )
    return rows, columns
