"""Networks on their device, kept for many scans, and what goes into and comes out of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sparseunet.data.image import Image
from sparseunet.errors import RequestError
from sparseunet.networks.device import (
    autocast,
    compile_network,
    require_compiler,
    resolve_device,
    resolve_precision,
)
from sparseunet.networks.trained_model import TrainedModel, load_network
from sparseunet.prediction.memory import BYTES_OF_SLABS, MemoryLimit
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.sliding_window import Tiling, sliding_window
from sparseunet.preprocessing.case import (
    PreprocessedCase,
    crop_image,
    normalise_cropped,
    resample_cropped,
)
from sparseunet.preprocessing.previous_stage import with_previous_stage

_VOXELS_PER_CALL = 90_000
"""Small patches are batched up to this many voxels. Measured on two cores in bfloat16: 3D patches
of 40×56×40 are fastest one by one (by eight: a fifth slower), 2D patches of 56×40 by 16 or more
(one by one: three times as slow). Channels-last was not faster than contiguous."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """Networks in memory and the options they predict with."""

    model: TrainedModel
    networks: Sequence[nn.Module]
    """One per fold, on `device`, in evaluation mode."""
    device: torch.device
    precision: torch.dtype | None
    """Autocast type; None for float32."""
    options: PredictionOptions = field(default_factory=PredictionOptions)
    """Options that the model was loaded with."""
    mirror: bool = True
    step: float = 0.5
    measure_disagreement: bool = False
    """Whether to yield one more channel, see `logits`."""
    memory: MemoryLimit = field(default_factory=MemoryLimit)

    def __repr__(self) -> str:
        model, folds = self.model, len(self.networks)
        classes = ", ".join(model.labels.foreground)
        return (
            f"LoadedModel({model.plan.dataset_name} {model.configuration.name}, {folds} networks "
            f"on {self.device}, classes {classes})"
        )

    @property
    def num_channels(self) -> int:
        """Number of channels of `logits`."""
        return self.model.labels.num_outputs + self.measure_disagreement

    def logits(self, case: PreprocessedCase) -> Iterator[Tensor]:
        """Yield the mean logits of folds, mirrored passes and patches, a few planes at a time.

        The mean over folds is taken patch by patch, so an ensemble needs no more memory for logits
        than one network.

        With `measure_disagreement` a last channel follows: the mean of log Σ exp(logits), or with
        regions of Σ log(1 + exp(logit)), over the same folds, passes and patches.

        Yields:
            float32 (channels, n, Y, X) on the grid of the preprocessed case, in main memory.
        """
        patch_size = self.model.configuration.patch_size
        tiling = Tiling(
            patch_size=patch_size,
            step=self.step,
            mirror_axes=self.model.mirror_axes if self.mirror else (),
            batch_size=_tile_batch_size(patch_size),
        )
        yield from sliding_window(
            self._predict_tile,
            case.image_CZYX,
            tiling=tiling,
            num_outputs=self.num_channels,
            device=self.device,
            memory=replace(
                self.memory,
                reserved_bytes=self.bytes_beside_logits(
                    case.restoration.geometry.shape, case.image_CZYX.shape[1:]
                ),
            ),
        )

    def _predict_tile(self, patches: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            total = self._predict_patches(self.networks[0], patches)
            for network in self.networks[1:]:
                total += self._predict_patches(network, patches)
        return total / len(self.networks) if len(self.networks) > 1 else total

    def _predict_patches(self, network: nn.Module, patches: Tensor) -> Tensor:
        logits = network(patches).float()
        if not self.measure_disagreement:
            return logits
        return torch.cat([logits, normaliser(logits, has_regions=self._has_regions)], dim=1)

    @property
    def _has_regions(self) -> bool:
        return self.model.labels.has_regions

    def bytes_of_logits(self, network_shape: Sequence[int]) -> int:
        """Return what the logits of as many planes hold as a patch is thick."""
        patch_size = self.model.configuration.patch_size
        patch_ZYX = (1,) * (3 - len(patch_size)) + patch_size
        depth = max(patch_ZYX[0], min(network_shape[0], _tile_batch_size(patch_size)))
        height, width = (
            max(size, patch) for size, patch in zip(network_shape[1:], patch_ZYX[1:], strict=True)
        )
        return 4 * self.num_channels * depth * height * width

    def bytes_beside_logits(self, shape: Sequence[int], network_shape: Sequence[int]) -> int:
        """Estimate what is needed besides the prepared scan and `bytes_of_logits`.

        Args:
            shape: Of the scan's file.
            network_shape: Of the prepared scan.
        """
        maps = prod(shape) * (
            1 + (max(self.model.labels.values) > 254) + 2 * self.measure_disagreement
        )
        planes = 4 * self.num_channels * prod(network_shape[1:])
        return self._bytes_of_a_pass() + maps + max(BYTES_OF_SLABS, 6 * planes)

    def _bytes_of_a_pass(self) -> int:
        """Estimate what one call of the network holds at full resolution.

        Four times its features (two as the decoder's input, convolution, result), its logits twice.
        """
        if self.device.type != "cpu":
            return 0
        patch_size = self.model.configuration.patch_size
        width = 4 * self.model.configuration.network.features_per_stage[0] + 2 * self.num_channels
        return 4 * width * prod(patch_size) * _tile_batch_size(patch_size)


def load_onto_device(
    model: TrainedModel,
    options: PredictionOptions,
    *,
    folder: Path | None = None,
    networks: LoadedModel | None = None,
) -> LoadedModel:
    """Load the networks of all folds onto the device that is asked for.

    Args:
        model: From `load_trained_model`.
        options: How to predict.
        folder: For temporary files; None for the system's.
        networks: The same model, loaded before, whose networks are taken where they lie.

    Raises:
        RequestError: The device, the precision or a compiler is not to be had.
    """
    device = resolve_device(options.device) if networks is None else networks.device
    return LoadedModel(
        model=model,
        networks=_on_device(model, device, options) if networks is None else networks.networks,
        options=options,
        device=device,
        precision=resolve_precision(options.precision, device, learning=False),
        mirror=options.mirror,
        step=options.step,
        measure_disagreement=options.uncertainty,
        memory=MemoryLimit(max_bytes=options.max_bytes, folder=folder),
    )


def _on_device(
    model: TrainedModel, device: torch.device, options: PredictionOptions
) -> list[nn.Module]:
    found = load_networks(model, device)
    if options.compiles:
        require_compiler(device)
        for network in found:
            compile_network(network)
    return found


def load_networks(model: TrainedModel, device: torch.device) -> list[nn.Module]:
    """Load the network of every fold onto the device, in evaluation mode."""
    return [load_network(model, checkpoint).to(device) for checkpoint in model.checkpoints]


def normaliser(logits_BKZYX: Tensor, *, has_regions: bool) -> Tensor:
    """Return log Σ exp(logits), or with regions Σ log(1 + exp(logit)); one channel (dimension 1).

    Its mean over passes minus that of the mean logits is the mean Kullback-Leibler divergence of
    the passes from their consensus, the softmax (sigmoid) of the mean logits.
    """
    if has_regions:
        return nn.functional.softplus(logits_BKZYX).sum(dim=1, keepdim=True)
    return torch.logsumexp(logits_BKZYX, dim=1, keepdim=True)


def prepare(
    name: str,
    image: Image,
    model: TrainedModel,
    previous_ZYX: np.ndarray | None = None,
    *,
    in_place: bool = False,
) -> PreprocessedCase:
    """Preprocess a scan for the networks of a model.

    Args:
        name: Case identifier.
        image: As read.
        model: What is going to predict it.
        previous_ZYX: Second stage of a cascade: the previous stage's label map of `image`.
        in_place: Whether the voxels of `image` may be overwritten, which saves a copy.

    Raises:
        RequestError: The scan does not fit the model: channels or dimensions differ, or the
            previous stage's label map is missing or holds other values.
    """
    num_channels, expected = len(image.voxels_CZYX), len(model.plan.intensities)
    if num_channels != expected:
        raise RequestError(
            f"Scan {name} has {num_channels} channels; the model was trained on {expected}."
        )
    if image.geometry.dimensions == 2 and model.configuration.dimensions == 3:
        raise RequestError(
            f"Scan {name} is a single plane; configuration {model.configuration.name} needs "
            "volumes. Predict with a 2d configuration."
        )
    if (model.configuration.previous_stage is None) != (previous_ZYX is None):
        raise RequestError(
            f"Scan {name}: the segmentation by a previous stage is needed by the second stage of a "
            f"cascade and by nothing else; {model.configuration.name} has the previous stage "
            f"{model.configuration.previous_stage}."
        )
    plan, configuration = model.plan, model.configuration
    cropped = crop_image(
        image,
        transpose_forward=plan.transpose_forward,
        with_mask=any(configuration.use_mask_for_norm),
    )
    del image  # Large scans: what is not needed any more must not stay while the next is made.
    cropped = normalise_cropped(cropped, plan=plan, configuration=configuration, in_place=in_place)
    cropped = replace(cropped, inside_ZYX=None)
    case = resample_cropped(name, cropped, plan=plan, configuration=configuration)
    if previous_ZYX is None:
        return case
    return with_previous_stage(case, previous_ZYX, model.labels)


def _tile_batch_size(patch_size: Sequence[int]) -> int:
    return max(1, _VOXELS_PER_CALL // prod(patch_size))
