"""Batches for training (`batches` makes them in background processes)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sparseunet.data.annotation import Annotation, Source
from sparseunet.preprocessing.previous_stage import PreviousStage, one_hot
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.augmentation import AUGMENTATIONS, Augmentation, seed_everything
from sparseunet.training.sampling import CaseSummary, PatchPlace, batch_places

Box = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One batch on the CPU. For 2D networks the Z axis is missing."""

    image_BCZYX: Tensor
    """float32."""
    labels_BZYX: Tensor
    """int64 label values."""
    weight_BZYX: Tensor
    """float32 in [0, 1]; 0 is unannotated."""

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory (called by torch's loader for CUDA)."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            image_BCZYX=change(self.image_BCZYX),
            labels_BZYX=change(self.labels_BZYX),
            weight_BZYX=change(self.weight_BZYX),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRecipe:
    """How batches are drawn from the preprocessed cases of one split."""

    patch_size: tuple[int, ...]
    """(z, y, x), or (y, x) for a 2D network."""
    batch_size: int
    foreground_share: float
    augmentation: str
    mirror_axes: tuple[int, ...]
    blank_outside: bool
    """Set the image to 0 outside its nonzero mask after augmentation (masked normalisation)."""
    trust: Mapping[Source, float]
    seed: int
    stream: int
    """Tells training batches (0) from validation batches (1) of the same seed."""
    previous_values: tuple[int, ...] = ()
    """Second stage of a cascade: label values of the previous stage, each an input channel."""


class BatchDataset(Dataset[Batch]):
    """Item i is the batch of step i: always the same for the same recipe and cases."""

    def __init__(
        self,
        store: CaseStore,
        cases: Sequence[CaseSummary],
        recipe: BatchRecipe,
        previous_stage: PreviousStage | None = None,
    ) -> None:
        self.store = store
        self.cases = tuple(cases)
        self.recipe = recipe
        self.previous_stage = previous_stage
        self.augmentation: Augmentation = AUGMENTATIONS[recipe.augmentation](
            recipe.patch_size, recipe.mirror_axes
        )

    def __getitem__(self, step: int) -> Batch:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, recipe.stream, step])
        places = batch_places(
            self.cases,
            patch_size=_as_box(recipe.patch_size),
            batch_size=recipe.batch_size,
            foreground_share=recipe.foreground_share,
            rng=rng,
        )
        patches = [self._patch(place, seed=int(rng.integers(2**32))) for place in places]
        target_BCZYX = torch.stack([target for _, target in patches])
        return Batch(
            image_BCZYX=torch.stack([image for image, _ in patches]).contiguous(),
            labels_BZYX=target_BCZYX[:, 0].to(torch.int64),
            weight_BZYX=target_BCZYX[:, 1].contiguous(),
        )

    def _patch(self, place: PatchPlace, *, seed: int) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        size = _as_box(self.augmentation.loader_patch_size)
        room = [
            (large - small) // 2
            for large, small in zip(size, _as_box(recipe.patch_size), strict=True)
        ]
        start = tuple(first - extra for first, extra in zip(place.start, room, strict=True))
        image_CZYX, target_CZYX = read_padded(
            self.store,
            place.case,
            (start[0], start[1], start[2]),
            size,
            recipe.trust,
            previous_stage=self.previous_stage,
        )
        image, target = torch.from_numpy(image_CZYX), torch.from_numpy(target_CZYX)
        if len(recipe.patch_size) == 2:
            image, target = image[:, 0], target[:, 0]
        seed_everything(seed)
        image, target = self.augmentation.apply(image, target)
        if recipe.blank_outside:
            image = image * target[2]
        if self.previous_stage is not None:
            image = torch.cat((image, self._previous_channels(target[3].numpy(), seed=seed)))
        return image, target

    def _previous_channels(self, labels_ZYX: np.ndarray, *, seed: int) -> Tensor:
        """Return what the previous stage predicted, disturbed, as one channel per label value."""
        rng = np.random.default_rng([seed, 1])
        disturbed_ZYX = self.augmentation.disturb_previous_stage(labels_ZYX, rng)
        return torch.from_numpy(one_hot(disturbed_ZYX, self.recipe.previous_values))


def read_padded(
    store: CaseStore,
    case: str,
    start: Box,
    size: Box,
    trust: Mapping[Source, float],
    *,
    previous_stage: PreviousStage | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read a patch that may reach outside the case.

    Returns:
        image_CZYX, float32, 0 outside the case; target_CZYX, float32, with the channels label
        value, weight and inside mask, all 0 outside: padding is never annotated. With a previous
        stage its label value is the fourth channel, 0 outside.
    """
    shape = store.manifest(case).shape
    low = [min(max(0, first), length) for first, length in zip(start, shape, strict=True)]
    high = [
        max(bottom, min(length, first + extent))
        for bottom, first, extent, length in zip(low, start, size, shape, strict=True)
    ]
    box = (low[0], low[1], low[2]), (high[0], high[1], high[2])
    patch = store.read_patch(case, *box)
    z, y, x = (
        slice(bottom - first, top - first)
        for bottom, top, first in zip(low, high, start, strict=True)
    )
    annotation = Annotation(
        labels_ZYX=patch.labels_ZYX,
        source_ZYX=patch.source_ZYX,
        confidence_ZYX=patch.confidence_ZYX,
    )
    image_CZYX = np.zeros((patch.image_CZYX.shape[0], *size), np.float32)
    image_CZYX[:, z, y, x] = patch.image_CZYX
    target_CZYX = np.zeros((3 if previous_stage is None else 4, *size), np.float32)
    target_CZYX[0, z, y, x] = patch.labels_ZYX
    target_CZYX[1, z, y, x] = annotation.weight_ZYX(trust)
    target_CZYX[2, z, y, x] = patch.inside_ZYX
    if previous_stage is not None:
        target_CZYX[3, z, y, x] = previous_stage.read_patch(case, *box)
    return image_CZYX, target_CZYX


def summarise_cases(store: CaseStore, names: Sequence[str]) -> list[CaseSummary]:
    """Return where annotated voxels lie, for the cases that have any, in the order of `names`."""
    summaries = []
    for name in names:
        manifest = store.manifest(name)
        slices = store.annotated_slices(name, 0)
        if len(slices):
            summaries.append(
                CaseSummary(
                    name=name,
                    shape=manifest.shape,
                    is_dense=manifest.is_dense,
                    class_voxels={
                        value: voxels
                        for value, voxels in store.class_voxels(name).items()
                        if len(voxels)
                    },
                    annotated_voxels=store.annotated_voxels(name),
                    annotated_slices=slices,
                )
            )
    return summaries


def _as_box(size: Sequence[int]) -> Box:
    padded = (1,) * (3 - len(size)) + tuple(size)
    return padded[0], padded[1], padded[2]
