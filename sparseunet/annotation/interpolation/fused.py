"""Shape-based interpolation, corrected by the image where shapes leave doubt.

Outlines say little close to a border: there the two labels that come first and second in the
spline are nearly equal. Which of the two is right also shows in the intensities, compared to those
of the two classes in the annotated slices at the ends of the gap. How much that is worth differs
between datasets, so it is learned from the dataset itself: every second annotated slice is hidden,
interpolated from the others, and a classifier learns in which pixels the first of the two labels is
right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import Filling, complete_slices
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.quality import hide_some
from sparseunet.annotation.interpolation.shape import BlendedSlice, blend_gaps
from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case
from sparseunet.data.image import Image
from sparseunet.data.io import read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.data.provenance import read_case_annotation
from sparseunet.data.rounding import divisors

DOUBTFUL_RATIO = 1.5
"""A label is in doubt where its margin is less than this times the distance to the nearer end."""
_CASES, _PIXELS_PER_SLICE, _LEAST_PIXELS = 40, 2000, 500
"""Most cases to learn from, most pixels of each of their slices, and the fewest pixels that do."""
_RIM_PIXELS = 4
"""Background is compared to that near objects, within so many pixels."""
_SMOOTHING = (0.0, 1.0, 2.0)
"""Deviations in pixels of the filters through which intensities are seen."""
_NUM_KNOTS = 4

_LEAST_IOU = 0.15
"""With hidden slices restored worse than this, the annotated slices lie too far apart: what is
learned from gaps of twice the width is then wrong in the real ones."""
_MAX_ITERATIONS, _LEARNING_RATE, _MAX_LEAVES = 150, 0.08, 15


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Training samples from one hidden slice: doubtful pixels whose right label is known."""

    features: np.ndarray
    """float32, (pixels, features), see `_Scan.features`."""
    is_right: np.ndarray
    """bool, whether the first of the two labels is the right one."""
    both: int
    """Pixels that are an object in truth and in the interpolation."""
    either: int
    """Pixels that are an object in truth or in the interpolation."""


def interpolate_fused(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Fill by `interpolate_spline`, then let the image decide where labels are in doubt.

    Learns from `request.scans`, those with labels, or from the given scan if there are none. Beyond
    the first and the last annotated slice, and where there is too little to learn from, the result
    is the spline's. See `Interpolator`.
    """
    if request.scans and request.labels is not None:
        cases = tuple(case for case in request.scans if case.label is not None)
        classifier = _learn_from_cases(cases, _Classes(request.labels), request.axis, request.seed)
    else:
        samples = list(_samples(image, annotation, axis=request.axis, seed=request.seed))
        classifier = _learn(samples, seed=request.seed)
    scan = _Scan(image, annotation, request.axis)
    filling = Filling(annotation, request.axis)
    for blended in blend_gaps(image, annotation, request, num_knots=_NUM_KNOTS):
        item = blended.whole(scan.shape)
        labels = item.labels.copy()
        reliable = confidence(
            labels,
            item.margin_mm,
            gap=item.gap,
            index=item.index,
            spacing_mm=image.geometry.spacing_mm,
            axis=request.axis,
            method="spline",
        )
        # Correct the spline in doubtful pixels. Example: label 1 with confidence 0.7, rival 0. The
        # classifier gives label 1 a probability of 0.2, so the pixel becomes 0, with the confidence
        # 1 - (0.2 + 0.7) / 2 = 0.55.
        doubtful = scan.doubtful(item)
        if classifier is not None and doubtful.any():
            probability = classifier.predict_proba(scan.features(item, doubtful))[:, 1]
            swapped = probability < 0.5
            # Averaged, as a classifier trained in gaps of twice the width is overconfident.
            first_is_right = (probability + reliable[doubtful]) / 2
            labels[doubtful] = np.where(swapped, item.rivals[doubtful], labels[doubtful])
            reliable[doubtful] = np.where(swapped, 1 - first_is_right, first_is_right)
        filling.fill_slice(item.index, labels, reliable)
    return filling.annotation()


class _Scan:
    """A scan as slices across an axis, and how pixels of a slice look beside the ends of a gap."""

    def __init__(self, image: Image, annotation: Annotation, axis: int) -> None:
        self.step_mm = image.geometry.spacing_mm[axis]
        self._labels_KYX = np.moveaxis(annotation.labels_ZYX, axis, 0)
        self.shape = self._labels_KYX.shape[1:]
        self._voxels_KCYX = np.moveaxis(image.voxels_CZYX, axis + 1, 0)
        spread = image.voxels_CZYX.std(axis=(1, 2, 3), dtype=np.float64)
        self._spread_C = divisors(
            spread,
            largest=np.abs(image.voxels_CZYX).max(axis=(1, 2, 3)),
            dtype=image.voxels_CZYX.dtype,
            num_values=image.voxels_CZYX[0].size,
        )
        self._filtered_slices: dict[int, list[np.ndarray]] = {}

    def doubtful(self, item: BlendedSlice) -> np.ndarray:
        """Return the pixels between two ends whose label may be wrong and has a rival."""
        if len(item.gap.ends) == 1:
            return np.zeros(item.labels.shape, bool)
        limit_mm = DOUBTFUL_RATIO * item.gap.distance(item.index) * self.step_mm
        return (item.margin_mm < limit_mm) & (item.labels != item.rivals)

    def features(self, item: BlendedSlice, where: np.ndarray) -> np.ndarray:
        """Return the features of some pixels of a slice, float32 (pixels, 6 + 3 · images).

        Six are from labels: margin over the distance to the nearer end, distance over the width of
        the gap, whether the first and the second label are background, and the share of the two
        ends in which the pixel has the first and the second label. Then, per channel and filter:
        intensity less the usual intensity of the first label, less that of the second, and less
        the two ends' intensities blended by distance.

        No feature depends on the direction along the axis, on units, or on label values beyond
        being background.

        Example: a gap from slice 4 to 8, the slice 5, 1 mm steps, a pixel with margin 0.5 mm, label
        1 before rival 0, and labels 1 and 0 at the ends: 0.5 / 1, 1 / 4, 0, 1, 1/2, 1/2. Its
        intensity 2.0, with a usual 2.5 in class 1, 0.5 in background, and 2.4 and 1.6 at the ends
        adds -0.5, 1.5 and 2.0 - (3/4 · 2.4 + 1/4 · 1.6) = -0.2.
        """
        first, second = item.labels[where], item.rivals[where]
        ends, distance = item.gap.ends, item.gap.distance(item.index)
        width = ends[1] - ends[0]
        shares = (ends[1] - item.index) / width, (item.index - ends[0]) / width
        at_ends = [self._labels_KYX[end][where] for end in ends]
        rows = [
            item.margin_mm[where] / (distance * self.step_mm),
            np.full(first.shape, distance / width),
            first == 0,
            second == 0,
            np.mean([labels == first for labels in at_ends], axis=0),
            np.mean([labels == second for labels in at_ends], axis=0),
        ]
        at_end, at_other = (self._filtered(end) for end in ends)
        for here, *beside in zip(self._filtered(item.index), at_end, at_other, strict=True):
            value = here[where]
            rows += [
                value - self._mean_of_label(first, ends, beside),
                value - self._mean_of_label(second, ends, beside),
                value - shares[0] * beside[0][where] - shares[1] * beside[1][where],
            ]
        self._forget(keep=ends)
        return np.stack([row.astype(np.float32) for row in rows], axis=1)

    def _filtered(self, index: int) -> list[np.ndarray]:
        """Return a slice in units of its channels' spread, once per channel and filter."""
        if index not in self._filtered_slices:
            channels = self._voxels_KCYX[index] / self._spread_C[:, None, None].astype(np.float32)
            self._filtered_slices[index] = [
                ndimage.gaussian_filter(channel, width) if width else channel
                for channel in channels
                for width in _SMOOTHING
            ]
        return self._filtered_slices[index]

    def _forget(self, *, keep: tuple[int, ...]) -> None:
        self._filtered_slices = {
            index: images for index, images in self._filtered_slices.items() if index in keep
        }

    def _mean_of_label(
        self, labels: np.ndarray, ends: tuple[int, ...], images: list[np.ndarray]
    ) -> np.ndarray:
        """Return for each label the mean intensity of its region in both ends; 0 for no region."""
        means = np.zeros(labels.shape, np.float32)
        for value in np.unique(labels):
            regions = [self._region(end, value) for end in ends]
            values = np.concatenate(
                [pixels[region] for pixels, region in zip(images, regions, strict=True)]
            )
            means[labels == value] = values.mean() if values.size else 0.0
        return means

    def _region(self, index: int, value: int) -> np.ndarray:
        """Return the pixels of a label in a slice; of background only those near objects."""
        labels = self._labels_KYX[index]
        if value:
            return labels == value
        near = ndimage.binary_dilation(labels > 0, iterations=_RIM_PIXELS)
        return near & (labels == 0)


class _Classes:
    """A label schema that is hashed by content, as part of the key of `_learn_from_cases`."""

    def __init__(self, labels: LabelSchema) -> None:
        self.labels = labels
        self._content = repr(labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Classes) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


@lru_cache(maxsize=2)
def _learn_from_cases(cases: tuple[Case, ...], classes: _Classes, axis: int, seed: int) -> Any:
    """Return `_learn` for samples of up to `_CASES` cases, spread evenly over all."""
    samples: list[Samples] = []
    for case in cases[:: max(1, -(-len(cases) // _CASES))]:
        annotation, _ = read_case_annotation(case, classes.labels)
        if len(complete_slices(annotation, axis)) > 1:
            samples += _samples(read_image(case.images), annotation, axis=axis, seed=seed)
    return _learn(samples, seed=seed)


def _samples(image: Image, annotation: Annotation, *, axis: int, seed: int) -> Iterator[Samples]:
    """Yield pixels of annotated slices that were hidden, those with a right label among the two."""
    complete = complete_slices(annotation, axis).tolist()
    truth_KYX = np.moveaxis(annotation.labels_ZYX, axis, 0)
    generator = np.random.default_rng(seed)
    for first in (0, 1):
        kept = complete[first::2]
        if not kept or len(kept) == len(complete):
            continue
        thinned = hide_some(annotation, complete, kept, axis)
        scan = _Scan(image, thinned, axis)
        request = InterpolationRequest(axis=axis)
        for blended in blend_gaps(image, thinned, request, num_knots=_NUM_KNOTS):
            item = blended.whole(scan.shape)
            truth = truth_KYX[item.index]
            # Where neither label is right there is nothing to choose between.
            known = (truth == item.labels) | (truth == item.rivals)
            rows, columns = np.nonzero(scan.doubtful(item) & known)
            if len(item.gap.ends) == 1:
                continue
            chosen = generator.permutation(rows.size)[:_PIXELS_PER_SLICE]
            where = np.zeros(truth.shape, bool)
            where[rows[chosen], columns[chosen]] = True
            real, guess = truth > 0, item.labels > 0
            yield Samples(
                features=scan.features(item, where),
                is_right=(truth == item.labels)[where],
                both=int(np.count_nonzero(real & guess)),
                either=int(np.count_nonzero(real | guess)),
            )


def _learn(samples: list[Samples], *, seed: int) -> Any:
    """Return a classifier of whether the first label is right; None with too little to learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    either = sum(item.either for item in samples)
    if not either or sum(item.both for item in samples) / either < _LEAST_IOU:
        return None
    features = np.concatenate([item.features for item in samples])
    is_right = np.concatenate([item.is_right for item in samples])
    if len(is_right) < _LEAST_PIXELS or is_right.all() or not is_right.any():
        return None
    classifier = HistGradientBoostingClassifier(
        max_iter=_MAX_ITERATIONS,
        learning_rate=_LEARNING_RATE,
        max_leaf_nodes=_MAX_LEAVES,
        random_state=seed,
    )
    return classifier.fit(features, is_right)
