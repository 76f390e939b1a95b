"""What is wanted of one scan, painted slab by slab on the grid of its file."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor

from sparseunet.data.labels import LabelSchema
from sparseunet.data.probabilities import entropy
from sparseunet.prediction.loaded_model import normaliser
from sparseunet.prediction.slabs import Slab, SlabCutter
from sparseunet.preprocessing.case import Restoration
from sparseunet.preprocessing.resample import decide_labels, label_dtype, output_values
from sparseunet.preprocessing.restore import in_crop_box

_ROUNDING = 1e-4
"""In percent: float32 puts a probability of 0.7 a little below 70."""
_WAITING_BYTES = 2**26
"""About how much slabs may hold that wait or are being painted; more only if one alone does."""


class Restored:
    """Label map of one scan and, where asked for, its probabilities and uncertainty.

    Outside the crop box everything is background: label 0, probability 1 of the first class (0 of
    every region), no uncertainty, full confidence. Slabs may be painted by several threads.
    """

    labels_ZYX: np.ndarray
    """uint8 or uint16, on the grid of the file."""
    entropy_ZYX: np.ndarray | None = None
    """uint8: entropy of the probabilities, 255 for the largest there is (all classes alike)."""
    disagreement_ZYX: np.ndarray | None = None
    """uint8: how far folds, mirrored passes and overlapping patches are from their consensus (mean
    Kullback-Leibler divergence); 255 for the largest entropy and beyond."""
    confidence_ZYX: np.ndarray | None = None
    """uint8: probability of the winning class in whole percent, rounded down; with regions the
    smallest over regions of the probability of what was decided about each."""

    def __init__(
        self,
        restoration: Restoration,
        labels: LabelSchema,
        *,
        open_probabilities: Callable[[], np.ndarray] | None = None,
        uncertainty: bool = False,
        confidence: bool = False,
    ) -> None:
        """Make empty maps.

        Args:
            restoration: From `preprocess_case`.
            labels: What the channels of the logits mean.
            open_probabilities: Returns where to put the probabilities of every class or region:
                an array (K, z, y, x) on the grid of the file, zeros at first, of any float type.
                Called anew for every slab, so that no file stays in memory. None: not wanted.
            uncertainty: Whether logits come with a channel for the disagreement
                (`LoadedModel.measure_disagreement`), and its maps are wanted.
            confidence: Whether the map of the confidence is wanted.
        """
        shape = restoration.geometry.shape
        self._restoration, self._labels, self._uncertainty = restoration, labels, uncertainty
        self.labels_ZYX = np.zeros(shape, label_dtype(output_values(labels)))
        self._maps = [in_crop_box(self.labels_ZYX, restoration)]
        self._open_probabilities = open_probabilities
        is_cropped = sorted(restoration.crop_shape) != sorted(shape)
        if open_probabilities is not None and is_cropped and not labels.has_regions:
            open_probabilities()[0] = 1
        if uncertainty:
            self.entropy_ZYX, self.disagreement_ZYX = np.zeros((2, *shape), np.uint8)
            self._maps += [
                in_crop_box(self.entropy_ZYX, restoration),
                in_crop_box(self.disagreement_ZYX, restoration),
            ]
        if confidence:
            self.confidence_ZYX = np.full(shape, 100, np.uint8)

    def paint_all(self, logits: Iterable[Tensor], *, num_channels: int) -> None:
        """Paint everything in this thread. See `painting` for the arguments."""
        for slab in self._slabs(logits, num_channels):
            self._paint(slab)

    def painting(
        self, logits: Iterable[Tensor], executor: Executor, *, num_channels: int, num_waiting: int
    ) -> list[Future[None]]:
        """Paint in the threads of `executor` while `logits` are being computed in this one.

        Args:
            logits: From `LoadedModel.logits`.
            executor: Threads.
            num_channels: Of the logits.
            num_waiting: Slabs that may wait or be painted at a time; fewer where they are large.

        Returns:
            What is still being painted; wait for it before taking the maps.
        """
        waiting: deque[tuple[Future[None], int]] = deque()
        for slab in self._slabs(logits, num_channels):
            while waiting and (
                len(waiting) > num_waiting
                or sum(size for _, size in waiting) + slab.num_bytes > _WAITING_BYTES
            ):
                waiting.popleft()[0].result()
            waiting.append((executor.submit(self._paint, slab), slab.num_bytes))
        return [future for future, _ in waiting]

    def _slabs(self, logits: Iterable[Tensor], num_channels: int) -> Iterator[Slab]:
        cutter = SlabCutter(self._restoration, num_channels=num_channels)
        for planes_KZYX in logits:
            if self._uncertainty:
                _measure_disagreement(planes_KZYX, has_regions=self._labels.has_regions)
            yield from cutter.add(planes_KZYX.numpy())

    def _paint(self, slab: Slab) -> None:
        """Decide the labels of a slab and write all maps that were asked for.

        Args:
            slab: Rows of the maps, with the scores of every channel.
        """
        labels_ZYX = self._maps[0][slab.rows]
        if (
            self._open_probabilities is None
            and not self._uncertainty
            and self.confidence_ZYX is None
        ):
            decide_labels(slab.scores(), labels_ZYX, self._labels)
            return
        scores_KZYX = np.stack(list(slab.scores()))
        logits_KZYX = scores_KZYX[: self._labels.num_outputs]
        decide_labels(logits_KZYX, labels_ZYX, self._labels)
        has_regions = self._labels.has_regions
        probabilities_KZYX = expit(logits_KZYX) if has_regions else softmax(logits_KZYX, axis=0)
        if self._open_probabilities is not None:
            for map_ZYX, probability_ZYX in zip(
                self._open_probabilities(), probabilities_KZYX, strict=True
            ):
                in_crop_box(map_ZYX, self._restoration)[slab.rows] = probability_ZYX
        if self.confidence_ZYX is not None:
            sure_ZYX = in_crop_box(self.confidence_ZYX, self._restoration)[slab.rows]
            sure_ZYX[:] = confidence_percent(probabilities_KZYX, has_regions=has_regions)
        if self._uncertainty:
            largest = highest_entropy(self._labels)
            entropy_ZYX = entropy(probabilities_KZYX, has_regions=has_regions)
            for map_ZYX, values_ZYX in zip(
                self._maps[1:], (entropy_ZYX, scores_KZYX[-1]), strict=True
            ):
                scaled_ZYX = np.clip(values_ZYX / largest, 0, 1)
                map_ZYX[slab.rows] = np.rint(255 * scaled_ZYX).astype(np.uint8)


def confidence_percent(probabilities_KZYX: np.ndarray, *, has_regions: bool) -> np.ndarray:
    """Return how probable what was decided is, uint8, whole percent rounded down.

    That is the largest probability of all classes. With regions, each of which is decided about
    alone, it is the smallest over regions of the larger one of p and 1 - p.
    """
    if has_regions:
        decided_ZYX = np.maximum(probabilities_KZYX, 1 - probabilities_KZYX).min(axis=0)
    else:
        decided_ZYX = probabilities_KZYX.max(axis=0)
    return np.clip(np.floor(100 * decided_ZYX + _ROUNDING), 0, 100).astype(np.uint8)


def highest_entropy(labels: LabelSchema) -> float:
    """Return the entropy in nats of knowing nothing."""
    if labels.has_regions:
        return float(labels.num_outputs * np.log(2))
    return float(np.log(max(labels.num_outputs, 2)))


def _measure_disagreement(planes_KZYX: Tensor, *, has_regions: bool) -> None:
    """Turn the last channel from a mean of normalisers into a divergence, in place."""
    consensus = normaliser(planes_KZYX[None, :-1], has_regions=has_regions)[0, 0]
    torch.clamp(planes_KZYX[-1] - consensus, min=0, out=planes_KZYX[-1])
