"""Batches for training (`batches` makes them in background processes)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sparseunet.data.annotation import Source
from sparseunet.data.geometry import in_3d
from sparseunet.preprocessing.memory import CasesInMemory
from sparseunet.preprocessing.previous_stage import PreviousStage, one_hot
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.augmentation import Augmentation, Movement, load_augmentation
from sparseunet.training.choices import Named
from sparseunet.training.patches import TrainingPatch, read_training_patch, weight_table
from sparseunet.training.sampling import (
    BACKGROUND,
    UNANNOTATED,
    CaseSummary,
    PatchPlace,
    PatchSampler,
    PatchShare,
    load_sampler,
)

Box = tuple[int, int, int]
_TRIED_VOXELS = 10_000

MEMORY_BYTES = 2**29
"""What a loader's cases may take in memory. Worker processes share it where they are forked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One batch on the CPU. For 2D networks the Z axis is missing."""

    image_BCZYX: Tensor
    """float32."""
    labels_BZYX: Tensor
    """int64 label values."""
    weight_BZYX: Tensor
    """float32 in [0, 1]; 0 is unannotated."""
    annotated_BK: Tensor | None = None
    """bool, whether the class or region of each output channel was looked for in the case of each
    patch. None: all in all cases."""

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory (called by torch's loader for CUDA)."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def parts(self, number: int) -> "list[Batch]":
        """Return the samples in order in so many batches, whose sizes differ by one at most."""
        edges = [len(self.labels_BZYX) * part // number for part in range(number + 1)]
        return [self._map(itemgetter(slice(*pair))) for pair in pairwise(edges)]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            image_BCZYX=change(self.image_BCZYX),
            labels_BZYX=change(self.labels_BZYX),
            weight_BZYX=change(self.weight_BZYX),
            annotated_BK=None if self.annotated_BK is None else change(self.annotated_BK),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRules:
    """How batches are drawn from the preprocessed cases of one split."""

    patch_size: tuple[int, ...]
    """(z, y, x), or (y, x) for a 2D network."""
    batch_size: int
    foreground_share: float
    augmentation: Named
    mirror_axes: tuple[int, ...]
    blank_outside: bool
    """Set the image to 0 outside its nonzero mask after augmentation (masked normalisation)."""
    trust: Mapping[Source, float]
    seed: int
    stream: int
    """Tells training batches (0) from validation batches (1) of the same seed."""
    previous_values: tuple[int, ...] = ()
    """Second stage of a cascade: label values of the previous stage, each an input channel."""
    patch_shares: tuple[PatchShare, ...] = ()
    """What patches hold; empty for nnU-Net's rule."""
    case_weighting: str = "uniform"
    """Key of `sparseunet.training.choices.CASE_WEIGHTINGS`."""
    sampler: Named = "nnunet"
    """See `sparseunet.training.sampling.load_sampler`."""


class BatchDataset(Dataset[Batch]):
    """Item i is the batch of step i: always the same for the same recipe and cases."""

    def __init__(
        self,
        store: CaseStore,
        cases: Sequence[CaseSummary],
        rules: BatchRules,
        previous_stage: PreviousStage | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        share: slice = slice(None),
    ) -> None:
        """Prepare; decodes as many of the cases as fit into `memory_bytes`.

        With a `share` only these samples of each batch are made, the same as without.
        """
        self.store = store
        self.cases = tuple(cases)
        self.rules = rules
        self.share = share
        self.previous_stage = previous_stage
        self.augmentation: Augmentation = load_augmentation(rules.augmentation)(
            rules.patch_size, rules.mirror_axes
        )
        self.sampler = PatchSampler(
            self.cases,
            patch_size=in_3d(rules.patch_size),
            batch_size=rules.batch_size,
            foreground_share=rules.foreground_share,
            shares=rules.patch_shares,
            case_weighting=rules.case_weighting,
            draw_start=load_sampler(rules.sampler),
        )
        names = [case.name for case in self.cases]
        self._in_memory = CasesInMemory(store, names, max_bytes=memory_bytes)
        self._weights = weight_table(rules.trust)

    @property
    def num_samples(self) -> int:
        """Samples of a batch that are made."""
        return len(range(self.rules.batch_size)[self.share])

    def places(self, step: int) -> list[PatchPlace]:
        """Return where the patches of a step lie, all of the batch."""
        return self.sampler.places(self._rng(step))

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, or this process' share of it.

        Every random number comes from seed, stream and step. Places and seeds of all samples are
        drawn before the share is taken, so a sample does not depend on the number of processes.
        """
        rules = self.rules
        rng = self._rng(step)
        places = self.sampler.places(rng)
        seeds = rng.integers(2**32, size=len(places)).tolist()
        places, seeds = places[self.share], seeds[self.share]
        channels = self.store.manifest(places[0].case).num_channels
        if self.previous_stage is not None:
            channels += len(rules.previous_values)
        size = self.num_samples, *rules.patch_size
        image_BCZYX = np.empty((size[0], channels, *rules.patch_size), np.float32)
        labels_BZYX, weight_BZYX = np.empty(size, np.int64), np.empty(size, np.float32)
        with _one_thread():
            for number, (place, seed) in enumerate(zip(places, seeds, strict=True)):
                patch_rng = np.random.default_rng([seed, 0])
                patch = self._read(place, self.augmentation.move(patch_rng))
                self._write_image(patch, patch_rng, image_BCZYX[number])
                labels_BZYX[number] = patch.labels_ZYX
                weight_BZYX[number] = patch.weight_ZYX
                if patch.previous_ZYX is not None:
                    self._write_previous(patch.previous_ZYX, seed, image_BCZYX[number])
        return Batch(
            image_BCZYX=torch.from_numpy(image_BCZYX),
            labels_BZYX=torch.from_numpy(labels_BZYX),
            weight_BZYX=torch.from_numpy(weight_BZYX),
            annotated_BK=_annotated_outputs(self.store, [place.case for place in places]),
        )

    def _rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.rules.seed, self.rules.stream, step])

    def _write_image(
        self, patch: TrainingPatch, rng: np.random.Generator, image_CZYX: np.ndarray
    ) -> None:
        """Change intensities, and write the channels of the scan."""
        flat = len(self.rules.patch_size) == 2
        changed_CZYX = self.augmentation.change_intensities(
            patch.image_CZYX[:, 0] if flat else patch.image_CZYX, rng
        )
        target_CZYX = image_CZYX[: len(changed_CZYX)]
        if self.rules.blank_outside:
            inside_ZYX = patch.inside_ZYX[0] if flat else patch.inside_ZYX
            np.multiply(changed_CZYX, inside_ZYX, out=target_CZYX)
        else:
            target_CZYX[...] = changed_CZYX

    def _write_previous(self, previous_ZYX: np.ndarray, seed: int, image_CZYX: np.ndarray) -> None:
        """Write what the previous stage predicted, disturbed, as one channel per label value."""
        values = self.rules.previous_values
        labels_ZYX = np.ascontiguousarray(previous_ZYX).reshape(self.rules.patch_size)
        disturbed_ZYX = self.augmentation.disturb_previous_stage(
            labels_ZYX, np.random.default_rng([seed, 1])
        )
        image_CZYX[-len(values) :] = one_hot(disturbed_ZYX, values)

    def _read(self, place: PatchPlace, movement: Movement) -> TrainingPatch:
        missing = 3 - len(self.rules.patch_size)
        axes = tuple(axis + missing for axis in movement.mirrored_axes)
        return read_training_patch(
            self._in_memory,
            place.case,
            place.start,
            in_3d(self.rules.patch_size),
            shape=self.store.manifest(place.case).shape,
            weights=self._weights,
            movement=replace(movement, mirrored_axes=axes),
            previous_stage=self.previous_stage,
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: sums of many voxels depend in their last bits on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _annotated_outputs(store: CaseStore, cases: Sequence[str]) -> Tensor | None:
    known = [store.manifest(case).annotated_outputs for case in cases]
    num_outputs = max(0 if outputs is None else len(outputs) for outputs in known)
    if num_outputs == 0:
        return None
    return torch.tensor([(True,) * num_outputs if row is None else row for row in known])


def summarise_cases(
    store: CaseStore, names: Sequence[str], rules: BatchRules | None = None
) -> list[CaseSummary]:
    """Return where annotated voxels lie, for the cases that have any, in the order of `names`.

    Where the patch shares of `recipe` ask for background or unannotated voxels, the label arrays of
    the cases are read to find some; without them (or a recipe) nothing but small files is read.
    """
    summaries = []
    for name in names:
        manifest = store.manifest(name)
        slices = store.annotated_slices(name, 0)
        if len(slices):
            annotated = store.annotated_voxels(name)
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
                    annotated_voxels=annotated,
                    annotated_slices=slices,
                    slice_axis=manifest.slice_axis,
                    other_voxels=_other_voxels(store, name, annotated, rules) if rules else {},
                )
            )
    return summaries


def _other_voxels(
    store: CaseStore, name: str, annotated: np.ndarray, rules: BatchRules
) -> dict[str, np.ndarray]:
    """Return some voxels of background and some unannotated ones, as far as shares ask for them.

    Unannotated ones are those among 10 000 drawn at random, for a 2D network in annotated slices.
    """
    wanted = {share.name for share in rules.patch_shares if not share.values}
    if wanted.isdisjoint((BACKGROUND, UNANNOTATED)):
        return {}
    manifest = store.manifest(name)
    labels_ZYX, source_ZYX = store.read_labels(name, (0, 0, 0), manifest.shape)
    found = {}
    if BACKGROUND in wanted:
        found[BACKGROUND] = annotated[labels_ZYX[tuple(annotated.T)] == 0]
    if UNANNOTATED in wanted:
        rng = np.random.default_rng([*name.encode()])
        tried = rng.integers(0, manifest.shape, (_TRIED_VOXELS, 3))
        if len(rules.patch_size) == 2:
            tried[:, 0] = rng.choice(store.annotated_slices(name, 0), _TRIED_VOXELS)
        found[UNANNOTATED] = tried[source_ZYX[tuple(tried.T)] == Source.NONE].astype(np.int32)
    return found
