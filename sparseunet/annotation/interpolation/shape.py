"""Shape-based interpolation: blend signed distances to the outlines of annotated slices.

The idea is that of Herman et al. 1992, which P23 uses through MITK for one object at a time. Here
all classes are interpolated together: in every voxel the class with the greatest blended distance
wins, background among them, so there are neither holes between classes nor double labels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from sparseunet.annotation.interpolation.best_two import FAR_MM, BestTwoClasses
from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import (
    WHOLE,
    Filling,
    Gap,
    complete_slices,
    find_gaps,
)
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.outlines import Box, Outlines, move, union
from sparseunet.data.annotation import Annotation
from sparseunet.data.image import Image

CONE_SLOPE = 1.2
"""Millimetres of radius that an object loses per millimetre of distance towards an annotated slice
from which it is absent; it reaches half-way at least."""
END_SLOPE = 0.1
"""The same beyond the first and the last annotated slice, where it is not known to be absent."""
_RIM_GAPS = 1.5
"""Width of the rim around classes in which distances are computed, in widths of the widest gap."""
_RIM_PIXELS = 24
_BACKGROUND, _FAR = np.zeros(1, np.uint8), np.full(1, FAR_MM, np.float32)
_TIE_PIXELS = 1e-4
"""Distances that differ by less are equal, so that rounding does not decide: then background wins,
or the class of the smaller value."""


def interpolate_shape(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Blend the two ends of each gap linearly; see `Interpolator` and `interpolate_spline`."""
    return _interpolate(image, annotation, request, num_knots=2, method="shape")


def interpolate_spline(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Blend the two ends of each gap and the slices beyond them by a cubic spline.

    The spline is the local one of Catmull and Rom for knots at unequal distances. Between two
    slices that both hold a class, the outlines move with its centre of mass, if that makes them
    overlap no less. What is absent from one of them ends as a cone (`CONE_SLOPE`) before it gets
    there, part by part of a class. See `Interpolator`.
    """
    return _interpolate(image, annotation, request, num_knots=4, method="spline")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlendedSlice:
    """One slice of a gap as its outlines blend, inside the box of all its objects and a rim.

    Outside the box there is background, `FAR_MM` away from anything else.
    """

    gap: Gap
    index: int
    box: Box
    labels: np.ndarray
    rivals: np.ndarray
    """The label with the second greatest blended distance in each pixel."""
    margin_mm: np.ndarray
    """float32, how far inside its label each pixel is."""

    def whole(self, shape: tuple[int, ...]) -> "BlendedSlice":
        """Return the same with everything outside the box, for slices of that shape."""
        labels, rivals = np.zeros((2, *shape), self.labels.dtype)
        margin_mm = np.full(shape, FAR_MM, np.float32)
        labels[self.box], rivals[self.box] = self.labels, self.rivals
        margin_mm[self.box] = self.margin_mm
        return replace(self, box=WHOLE, labels=labels, rivals=rivals, margin_mm=margin_mm)


def blend_gaps(
    image: Image, annotation: Annotation, request: InterpolationRequest, *, num_knots: int
) -> Iterator[BlendedSlice]:
    """Yield every slice to fill, in order.

    Args:
        image: Gives the spacing.
        annotation: What to interpolate from.
        request: Axis and widest gap.
        num_knots: 2 blends the ends of a gap linearly, 4 is a cubic spline.
    """
    gaps = find_gaps(annotation, image.geometry.spacing_mm, request)
    yield from _blender(gaps, image, annotation, request.axis).blend(gaps, num_knots)


def _blender(gaps: Sequence[Gap], image: Image, annotation: Annotation, axis: int) -> "_Blender":
    """Return a blender for these gaps, or for some of them."""
    spacing_mm = image.geometry.spacing_mm
    return _Blender(
        np.moveaxis(annotation.labels_ZYX, axis, 0),
        complete_slices(annotation, axis).tolist(),
        spacing_mm=(spacing_mm[axis], *(mm for at, mm in enumerate(spacing_mm) if at != axis)),
        widest=max((len(gap.slices) for gap in gaps), default=0),
    )


def _interpolate(
    image: Image,
    annotation: Annotation,
    request: InterpolationRequest,
    *,
    num_knots: int,
    method: str,
) -> Annotation:
    """Fill all gaps with blended slices and their confidence.

    Args:
        image: Gives the spacing.
        annotation: What to interpolate from.
        request: Axis, widest gap and number of threads; a thread fills a run of neighbouring gaps.
        num_knots: 2 blends the ends of a gap linearly, 4 is a cubic spline.
        method: Key of the table of confidences.
    """
    axis, spacing_mm = request.axis, image.geometry.spacing_mm
    gaps = find_gaps(annotation, spacing_mm, request)
    filling = Filling(annotation, axis)

    def fill(some: Sequence[Gap]) -> None:
        for item in _blender(gaps, image, annotation, axis).blend(some, num_knots):
            state = partial(
                confidence,
                gap=item.gap,
                index=item.index,
                spacing_mm=spacing_mm,
                axis=axis,
                method=method,
            )
            reliable = state(item.labels, item.margin_mm)
            certain = state(_BACKGROUND, _FAR)
            filling.fill_slice(
                item.index, item.labels, reliable, box=item.box, beyond=certain.item()
            )

    # Neighbours to the same thread, because they share outlines.
    size = max(1, -(-len(gaps) // request.num_threads))
    with ThreadPoolExecutor(request.num_threads) as threads:
        list(threads.map(fill, [gaps[at : at + size] for at in range(0, len(gaps), size)]))
    return filling.annotation()


def _knot_slices(gap: Gap, complete: Sequence[int], num_knots: int) -> tuple[int, ...]:
    """Return the complete slices that take part, in order: the ends, and with four those beyond."""
    if gap.before is None or gap.after is None:
        return gap.ends
    at, beyond = complete.index(gap.before), num_knots // 2 - 1
    return tuple(complete[max(0, at - beyond) : at + 2 + beyond])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Knot:
    """Signed distances (mm) and centre (pixels) of one class in one annotated slice.

    Where the class is absent from the slice, its outline of the nearer end, shrunk (`CONE_SLOPE`).
    """

    distance_mm: np.ndarray
    center: np.ndarray


class _Blender:
    """Blends the outlines of one gap after the other."""

    def __init__(
        self,
        labels_KYX: np.ndarray,
        complete: Sequence[int],
        *,
        spacing_mm: tuple[float, ...],
        widest: int,
    ) -> None:
        step_mm, rows_mm, columns_mm = spacing_mm
        rim_mm = min(_RIM_GAPS * widest * step_mm, _RIM_PIXELS * min(rows_mm, columns_mm))
        self._outlines = Outlines(
            labels_KYX, complete, spacing_mm=(rows_mm, columns_mm), rim_mm=rim_mm
        )
        self._step_mm = step_mm
        self._shape = labels_KYX.shape[1:]
        self._labels_KYX = labels_KYX
        self._complete = complete
        self._tie_mm = np.float32(_TIE_PIXELS * min(rows_mm, columns_mm))

    def blend(self, gaps: Sequence[Gap], num_knots: int) -> Iterator[BlendedSlice]:
        """Yield every slice to fill of some gaps, in order."""
        for gap in gaps:
            self._prepare_gap(gap, _knot_slices(gap, self._complete, num_knots))
            for index in gap.slices:
                yield self._blend_slice(index)

    def _prepare_gap(self, gap: Gap, slices: tuple[int, ...]) -> None:
        """Prepare for the slices of a gap that are blended from the annotated `slices`."""
        self._gap, self._slices = gap, slices
        self._outlines.keep_only(slices)
        self._knots = {
            value: self._of_class(value)
            for value in self._outlines.values
            if any(self._outlines.outline(end, value) is not None for end in gap.ends)
        }
        self._box = union(self._outlines.box(value) for value in self._knots)
        # Classes that move apart leave no hole: what is an object at both ends is one in between.
        self._covered = np.logical_and.reduce(
            [self._labels_KYX[end][self._box] > 0 for end in gap.ends]
        )
        self._covered &= len(gap.ends) == 2

    def _blend_slice(self, index: int) -> BlendedSlice:
        """Blend one slice of the current gap from the annotated slices around it.

        Example: one row of five pixels of 1 mm, annotated in slices 0 and 2, slice 1 is blended.
        The weights are 1/2 and 1/2, and class 1 has one box around both rows:

            slice 0   labels 0 1 1 1 0   distance of class 1   -1  1  2  1 -1
            slice 2   labels 0 0 1 0 0   distance of class 1   -2 -1  1 -1 -2
            slice 1   mean                                     -1.5 0 1.5 0 -1.5
                      background, the negative of it            1.5 0 -1.5 0 1.5
                      labels 0 0 1 0 0   (a tie goes to background)

        With a second class the background's distance is the negative mean of, per annotated slice,
        the greater of the two classes' distances.
        """
        # 1. How much each annotated slice counts here.
        weights = _weights(self._slices, self._gap, index)
        # 2. Beyond the last annotated slice objects shrink slowly; between two they do not.
        shrunk_mm = np.float32(0)
        if len(self._gap.ends) == 1:
            shrunk_mm = np.float32(END_SLOPE * self._step_mm * self._gap.distance(index))
        # 3. Per class: move the outline of every annotated slice so that its centre lies where the
        #    centres blend, blend the distances there, and compare with the classes before.
        best_two = BestTwoClasses.empty(self._covered.shape, self._labels_KYX.dtype, self._tie_mm)
        nearest_class = np.full((len(weights), *self._covered.shape), -FAR_MM, np.float32)
        for value, knots in self._knots.items():
            box = _within(self._outlines.box(value), self._box)
            center = sum(weight * knot.center for weight, knot in zip(weights, knots, strict=True))
            score = np.zeros(knots[0].distance_mm.shape, np.float32)
            for knot, weight, nearest in zip(knots, weights, nearest_class, strict=True):
                moved = move(knot.distance_mm, center - knot.center)
                if shrunk_mm:
                    moved = moved - shrunk_mm
                score += np.float32(weight) * moved
                np.maximum(nearest[box], moved, out=nearest[box])
            best_two.add(value, score, box)
        # 4. Background is what no class covers: its distance is that to the nearest class, blended
        #    like the others.
        background = np.zeros(self._covered.shape, np.float32)
        for weight, nearest in zip(weights, nearest_class, strict=True):
            background -= np.float32(weight) * nearest
        # 5. The greatest distance wins, background among them.
        labels, rivals, margin_mm = best_two.with_background(background, self._covered)
        return BlendedSlice(
            gap=self._gap,
            index=index,
            box=self._box,
            labels=labels,
            rivals=rivals,
            margin_mm=margin_mm,
        )

    def _of_class(self, value: int) -> list[_Knot]:
        """Return the knots of a class, one per slice that takes part."""
        found = {index: self._outlines.outline(index, value) for index in self._slices}
        present = {
            index: _Knot(distance_mm=outline.distance_mm, center=np.array(outline.center))
            for index, outline in found.items()
            if outline is not None
        }
        here = [end for end in self._gap.ends if end in present]
        if len(here) == 2:
            present = self._aligned(present)
            self._shrink_unmatched_parts(present)
        knots = []
        for index in self._slices:
            nearest = min(here, key=lambda end: abs(end - index))
            knot = present.get(index)
            knots.append(knot or self._shrunk(present[nearest], abs(nearest - index)))
        return knots

    def _shrunk(self, knot: _Knot, num_slices: int) -> _Knot:
        """Return what is left of a class so many slices on; negative everywhere if nothing is."""
        shrunk_mm = min(CONE_SLOPE * self._step_mm * num_slices, 2 * float(knot.distance_mm.max()))
        return replace(knot, distance_mm=knot.distance_mm - np.float32(shrunk_mm))

    def _aligned(self, knots: dict[int, _Knot]) -> dict[int, _Knot]:
        """Keep the centres if moving with them makes the two ends overlap no less."""
        first, second = (knots[end] for end in self._gap.ends)
        moved = _overlap(first, second, moves=True) + _overlap(second, first, moves=True)
        if moved >= 2 * _overlap(first, second, moves=False):
            return knots
        return {index: replace(knot, center=first.center) for index, knot in knots.items()}

    def _shrink_unmatched_parts(self, knots: dict[int, _Knot]) -> None:
        """Let parts of a class that overlap with nothing at the other end vanish on the way."""
        first, second = (knots[end] for end in self._gap.ends)
        width = self._gap.ends[1] - self._gap.ends[0]
        for knot, other, end in ((first, second, 1), (second, first, 0)):
            seen = move(other.distance_mm, knot.center - other.center) > 0
            parts, num_parts = ndimage.label(knot.distance_mm > 0)
            lost = np.ones(num_parts + 1, bool)
            lost[parts[seen]] = False
            lost[0] = False
            if lost.any():
                distance_mm = np.where(
                    lost[parts],
                    np.maximum(other.distance_mm, self._shrunk(knot, width).distance_mm),
                    other.distance_mm,
                )
                knots[self._gap.ends[end]] = replace(other, distance_mm=distance_mm)


def _within(box: Box, outer: Box) -> Box:
    """Return a box in the coordinates of one around it."""
    rows, columns = (
        slice(part.start - around.start, part.stop - around.start)
        for part, around in zip(box, outer, strict=True)
    )
    return rows, columns


def _overlap(knot: _Knot, other: _Knot, *, moves: bool) -> int:
    """Return the pixels in which two knots of a class overlap, one moved to the other or not."""
    distance_mm = other.distance_mm
    if moves:
        distance_mm = move(distance_mm, knot.center - other.center)
    return int(np.count_nonzero((knot.distance_mm > 0) & (distance_mm > 0)))


def _weights(slices: Sequence[int], gap: Gap, index: int) -> np.ndarray:
    """Return the weights of the slices that take part, which sum to 1.

    Cubic Hermite between the ends; the tangent at an end is that of the parabola through it and
    its two neighbours, or the straight line across the gap where there is no neighbour. Beyond the
    first or last annotated slice the only end has weight 1.

    Example: half-way between slices 4 and 8 the weights of slices (4, 8) are 1/2 and 1/2; with
    slices (0, 4, 8, 12) they are -1/16, 9/16, 9/16, -1/16, those of Catmull and Rom.
    """
    weights = np.zeros(len(slices))
    if gap.before is None or gap.after is None:
        weights[0] = 1
        return weights
    at = slices.index(gap.before)
    width = gap.after - gap.before
    t = (index - gap.before) / width
    weights[at] = 1 - t
    weights[at + 1] = t
    # What each tangent adds to the straight line: share · (slope beyond the end - slope across).
    for end, beyond, bend in ((at, at - 1, t * (1 - t) ** 2), (at + 1, at + 2, -(t**2) * (1 - t))):
        if 0 <= beyond < len(slices):
            outer = abs(slices[beyond] - slices[end])
            share = bend * width / (outer + width)
            sign = 1 if beyond < end else -1
            weights[end] += sign * share * width / outer
            weights[beyond] -= sign * share * width / outer
            weights[at] += share
            weights[at + 1] -= share
    return weights
