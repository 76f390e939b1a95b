"""Between scans and the network of learned propagation: what it reads, learns from and carries."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparseunet.annotation.interpolation.gaps import Gap
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.propagation_training import (
    PropagationConfig,
    train_propagation,
)
from sparseunet.artifacts import atomic_path, hash_content, hash_file
from sparseunet.data.image import Image
from sparseunet.data.io import read_geometry, read_image
from sparseunet.data.rounding import range_divisor
from sparseunet.errors import RequestError
from sparseunet.networks.device import resolve_device
from sparseunet.networks.propagation import (
    NUM_NEIGHBOURS,
    PropagationNetwork,
    carry,
)

logger = logging.getLogger(__name__)

MAX_SCANS = 40
"""Of more scans, as many are trained on, spread evenly over the list."""
LOCALITY_AT_USE = 10.0
"""Masks want nearer neighbours than intensities, whose noise a mean over many pixels removes: at
use a displacement costs so many times what was learned,"""
SHARPNESS_AT_USE = 0.4
"""and likeness counts so many times what was learned. Both chosen on MSD hippocampus across x."""
_FORMAT = 1
"""Counts up when files in the cache mean something else than before."""
_PERCENTILES = (0.5, 99.5)
_MAX_SAMPLED_VOXELS = 1_000_000
_SLICES_AT_ONCE = 8


def stack_of(image: Image, axis: int) -> np.ndarray:
    """Return the slices across an axis, (slice, channel, row, column), float32.

    Each channel is scaled such that its 0.5th and 99.5th percentile become 0 and 1, and cut off
    there. Labels have no influence.
    """
    channels = []
    for voxels_ZYX in image.voxels_CZYX:
        sampled = voxels_ZYX.ravel()[:: 1 + voxels_ZYX.size // _MAX_SAMPLED_VOXELS]
        low, high = np.percentile(sampled, _PERCENTILES)
        scale = range_divisor(low, high, dtype=voxels_ZYX.dtype)
        scaled_ZYX = (voxels_ZYX - np.float32(low)) / np.float32(scale)
        channels.append(np.moveaxis(np.clip(scaled_ZYX, 0, 1), axis, 0))
    return np.stack(channels, axis=1)


def window(spacing_mm: tuple[float, ...], axis: int, *, radius: int) -> tuple[int, int]:
    """Return the radius along rows and columns for `radius` pixels of the finer of the two."""
    pixels_mm = [size for other, size in enumerate(spacing_mm) if other != axis]
    rows, columns = (max(1, round(radius * min(pixels_mm) / size)) for size in pixels_mm)
    return rows, columns


def trained_network(image: Image, request: InterpolationRequest) -> PropagationNetwork:
    """Return the network for a request, trained now or found in `request.cache`.

    It is trained on `request.scans` (at most `MAX_SCANS`, and only those with two slices or more),
    or on `image` if there are none. A file in the cache is named by the hash of everything that
    the training depends on: scans, axis, seed, time budget and configuration.

    Raises:
        RequestError: No scan has two slices across the axis.
    """
    config = PropagationConfig()
    scans = _Scans.of(image, request)
    key = hash_content(
        [_FORMAT, asdict(config), request.axis, request.seed, request.time_budget_s, scans.hash()]
    )
    path = None if request.cache is None else request.cache / f"propagation-{key[:16]}.pt"
    if path is not None and path.is_file():
        return _load(path, config).to(resolve_device(request.device)).eval()
    network, losses = train_propagation(
        scans.stacks(request.axis),
        radii=[window(mm, request.axis, radius=config.radius) for mm in scans.spacings_mm()],
        config=config,
        seed=request.seed,
        device=request.device,
        time_budget_s=request.time_budget_s,
    )
    logger.info("Reconstruction loss %.4f at first, %.4f at last", losses[0], losses[-1])
    if path is not None:
        with atomic_path(path) as temporary:
            torch.save(network.cpu().state_dict(), temporary)
        network.to(resolve_device(request.device))
    return network


class GapWalker:
    """Carries what is known of a slice to its neighbours, within one gap."""

    def __init__(
        self,
        network: PropagationNetwork,
        stack: np.ndarray,
        gap: Gap,
        *,
        pixels_mm: tuple[float, float],
        device: str,
    ) -> None:
        """Compute the features of the slices of the gap and its ends.

        Args:
            network: In evaluation mode, on the device.
            stack: All slices, (slice, channel, row, column), cut to what matters.
            gap: The gap.
            pixels_mm: Size of the pixels.
            device: Name of a torch device.
        """
        first, last = min(*gap.slices, *gap.ends), max(*gap.slices, *gap.ends)
        self._first = first
        self._slices = torch.from_numpy(stack[first : last + 1]).to(resolve_device(device))
        self._radius = window((1.0, *pixels_mm), 0, radius=PropagationConfig().radius)
        with torch.inference_mode():
            self._features = torch.cat(
                [network(part) for part in self._slices.split(_SLICES_AT_ONCE)]
            )
            self._sharpness = SHARPNESS_AT_USE * network.log_sharpness.exp()
            self._locality = LOCALITY_AT_USE * network.log_locality.exp()

    def start(self, index: int, distances_CYX: np.ndarray) -> Tensor:
        """Return what is carried from an annotated slice: distances, and what the scan shows."""
        self._num_classes = len(distances_CYX)
        distances = torch.from_numpy(distances_CYX).to(self._slices.device)
        return torch.cat([distances, self._slices[index - self._first]]).permute(1, 2, 0)[None]

    def carry(self, mask: Tensor, here: int, there: int) -> Tensor:
        """Return the mask of slice `there`, made from that of slice `here`."""
        with torch.inference_mode():
            return carry(
                mask,
                reference_BYXC=self._features[here - self._first, None],
                target_BYXC=self._features[there - self._first, None],
                radius=self._radius,
                sharpness=self._sharpness,
                locality=self._locality,
            )

    def holds_object(self, mask: Tensor) -> bool:
        """Return whether some pixel lies inside a class."""
        return bool((mask[..., : self._num_classes] > 0).any())

    @staticmethod
    def to_numpy(mask: Tensor) -> np.ndarray:
        """Return a mask as (class or channel, Y, X)."""
        return mask[0].permute(2, 0, 1).cpu().numpy()


class _Scans:
    """What a network is trained on: files, or the one scan at hand."""

    def __init__(self, image: Image | None, paths: list[tuple[Path, ...]], axis: int) -> None:
        self._image, self._paths, self._axis = image, paths, axis

    @classmethod
    def of(cls, image: Image, request: InterpolationRequest) -> "_Scans":
        if not request.scans:
            return cls(image, [], request.axis)
        usable = [
            tuple(case.images)
            for case in request.scans
            if read_geometry(case.images[0]).shape[request.axis] > 1
        ]
        if not usable:
            raise RequestError(
                f"None of the {len(request.scans)} scans has two slices across axis "
                f"{request.axis}; learned propagation learns from pairs of slices. Choose another "
                "axis or another method."
            )
        chosen = np.linspace(0, len(usable) - 1, min(MAX_SCANS, len(usable))).round()
        return cls(None, [usable[int(index)] for index in chosen], request.axis)

    def hash(self) -> str:
        if self._image is None:
            return hash_content([[hash_file(path) for path in scan] for scan in self._paths])
        voxels = np.ascontiguousarray(self._image.voxels_CZYX)
        digest = hashlib.sha256(voxels.tobytes()).hexdigest()
        return hash_content([digest, voxels.shape, self._image.geometry.spacing_mm])

    def spacings_mm(self) -> list[tuple[float, float, float]]:
        if self._image is not None:
            return [self._image.geometry.spacing_mm]
        return [read_geometry(scan[0]).spacing_mm for scan in self._paths]

    def stacks(self, axis: int) -> Iterator[np.ndarray]:
        if self._image is not None:
            yield stack_of(self._image, axis)
        for scan in self._paths:
            yield stack_of(read_image(scan), axis)


def _load(path: Path, config: PropagationConfig) -> PropagationNetwork:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    num_channels = weights["stem.0.weight"].shape[1] // NUM_NEIGHBOURS
    network = PropagationNetwork(
        num_channels=num_channels, width=config.width, stride=config.stride
    )
    network.load_state_dict(weights)
    return network
