"""Perceptual distances (LPIPS, Zhang et al. 2018) between all slices of a scan."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparseunet.data.rounding import range_divisor
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    import torch

HEADS = "alex.pth"
"""Name of the file of LPIPS's heads, beside AlexNet's weights or in the `lpips` package."""
_SMALLEST, _LARGEST = 64, 256
_NUM_AT_ONCE = 16


def find_weights(path: Path | None) -> Path:
    """Return the file of AlexNet's weights.

    Raises:
        RequestError: None is named, or it is not there; says where they can be had.
    """
    if path is None or not path.is_file():
        named = "none was named" if path is None else f"{path} is not a file"
        raise RequestError(
            "Perceptual similarity needs AlexNet's ImageNet weights as a file, which are never "
            f"downloaded; {named}. On a machine with internet, "
            "torchvision.models.alexnet(weights='DEFAULT') keeps them as alexnet-*.pth in torch's "
            "cache: copy that file here and name it. LPIPS's heads are used if the lpips package "
            f"is installed or its {HEADS} lies beside the file."
        )
    return path


def perceptual_distances(
    slices_KCYX: np.ndarray, *, weights: Path, device: str = "cpu"
) -> np.ndarray:
    """Return the LPIPS distance of every pair of slices, the mean over channels.

    Every channel is scaled to [0, 1] over the whole scan. Slices whose shorter side is below 64
    pixels are enlarged and those whose longer one is above 256 reduced to it (bilinear), since
    AlexNet needs 31 pixels and memory grows with them. Distances of all pairs come from products
    of features, so every slice passes the network once.

    Args:
        slices_KCYX: Intensities of one scan.
        weights: AlexNet's; heads as in `find_weights`, else all channels count alike.
        device: Where the network runs.

    Returns:
        Symmetric float64, shape (K, K), 0 on the diagonal.

    Raises:
        RequestError: The files do not hold the weights, or there is no such device.
    """
    import torch

    from sparseunet.networks.alexnet import (
        CONVOLUTIONS,
        load_heads,
        load_perceptual_features,
        unit_channels,
    )
    from sparseunet.networks.device import resolve_device

    where = resolve_device(device)
    network = load_perceptual_features(weights).to(where)
    file = _find_heads(weights)
    heads = load_heads(file) if file else [torch.ones(row[1]) for row in CONVOLUTIONS.values()]
    num = len(slices_KCYX)
    products_KK = torch.zeros((num, num), dtype=torch.float64)
    with torch.inference_mode():
        for channel_KYX in np.moveaxis(slices_KCYX, 1, 0):
            images = _images(channel_KYX).to(where).split(_NUM_AT_ONCE)
            values = [network.scale(batch) for batch in images]
            for stage, head in enumerate(heads):
                values = [network.stage(stage, batch) for batch in values]
                maps_KCYX = torch.cat([unit_channels(batch) for batch in values])
                pixels = maps_KCYX[0, 0].numel()
                weighted_KCYX = maps_KCYX * head.to(where)[:, None, None]
                product_KK = weighted_KCYX.flatten(1) @ maps_KCYX.flatten(1).T
                products_KK += product_KK.cpu().double() / pixels
    lengths_K = products_KK.diagonal()
    distance_KK = (lengths_K[:, None] + lengths_K[None] - products_KK - products_KK.T).numpy()
    np.fill_diagonal(distance_KK, 0)
    return distance_KK / slices_KCYX.shape[1]


def _images(slices_KYX: np.ndarray) -> "torch.Tensor":
    import torch

    low, high = float(slices_KYX.min()), float(slices_KYX.max())
    scale = range_divisor(low, high, dtype=slices_KYX.dtype)
    images_K1YX = torch.from_numpy((slices_KYX - low) / scale)[:, None]
    height, width = slices_KYX.shape[1:]
    factor = min(1.0, _LARGEST / max(height, width))
    factor = max(factor, _SMALLEST / min(height, width))
    if factor == 1:
        return images_K1YX
    size = (round(height * factor), round(width * factor))
    return torch.nn.functional.interpolate(
        images_K1YX, size=size, mode="bilinear", antialias=factor < 1
    )


def _find_heads(weights: Path) -> Path | None:
    places = [weights.with_name(HEADS)]
    package = find_spec("lpips")
    if package is not None and package.submodule_search_locations:
        places += [
            Path(folder) / "weights" / "v0.1" / HEADS
            for folder in package.submodule_search_locations
        ]
    return next((place for place in places if place.is_file()), None)
