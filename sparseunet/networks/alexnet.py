"""The convolutions of AlexNet and the perceptual distance LPIPS built on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseunet.errors import RequestError

CONVOLUTIONS = {
    "features.0": (3, 64, 11),
    "features.3": (64, 192, 5),
    "features.6": (192, 384, 3),
    "features.8": (384, 256, 3),
    "features.10": (256, 256, 3),
}
"""Name in torchvision's weights to channels in, channels out and size of the kernel."""
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's channels in [0, 1], which the weights expect to be scaled to 0 and 1."""


class PerceptualFeatures(nn.Module):
    """What LPIPS compares: AlexNet after each of its five activations (Zhang et al. 2018 §3).

    At every pixel the channels are scaled to length 1. The distance of two images is the sum over
    stages of the mean over pixels of the squared differences, summed over channels with the weights
    of the heads, or with weight 1 without heads (the paper's baseline).
    """

    mean_C11: torch.Tensor
    deviation_C11: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(inputs, outputs, size, padding=size // 2)
            for inputs, outputs, size in CONVOLUTIONS.values()
        ]
        layers[0] = nn.Conv2d(3, 64, 11, stride=4, padding=2)
        self.convolutions = nn.ModuleList(layers)
        self.register_buffer("mean_C11", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer(
            "deviation_C11", torch.tensor(_DEVIATION)[:, None, None], persistent=False
        )

    def forward(self, images_B1YX: torch.Tensor) -> list[torch.Tensor]:
        """Turn grey images in [0, 1], both sides at least 31 pixels, into five feature maps."""
        values, maps = self.scale(images_B1YX), []
        for number in range(len(self.convolutions)):
            values = self.stage(number, values)
            maps.append(unit_channels(values))
        return maps

    def scale(self, images_B1YX: torch.Tensor) -> torch.Tensor:
        """Return the images scaled as the first stage expects them."""
        return (images_B1YX.expand(-1, 3, -1, -1) - self.mean_C11) / self.deviation_C11

    def stage(self, number: int, values_BCYX: torch.Tensor) -> torch.Tensor:
        """Apply one of the five stages to the output of the one before."""
        if number in (1, 2):
            values_BCYX = nn.functional.max_pool2d(values_BCYX, kernel_size=3, stride=2)
        return nn.functional.relu(self.convolutions[number](values_BCYX))


def unit_channels(values_BCYX: torch.Tensor) -> torch.Tensor:
    """Scale the channels at every pixel to length 1."""
    return values_BCYX / (values_BCYX.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def load_perceptual_features(path: Path) -> PerceptualFeatures:
    """Read AlexNet's weights in torchvision's layout; the classifier's are not needed.

    Raises:
        RequestError: The file is missing or not of torch, or a weight is missing or of another
            shape; names all of them.
    """
    found = _read(path)
    expected: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs, size) in CONVOLUTIONS.items():
        expected[f"{name}.weight"] = (outputs, inputs, size, size)
        expected[f"{name}.bias"] = (outputs,)
    _require_shapes(path, found, expected)
    network = PerceptualFeatures()
    own = {
        f"convolutions.{stage}.{kind}": found[f"{name}.{kind}"]
        for stage, name in enumerate(CONVOLUTIONS)
        for kind in ("weight", "bias")
    }
    network.load_state_dict(own)
    return network.eval().requires_grad_(requires_grad=False)


def load_heads(path: Path) -> list[torch.Tensor]:
    """Read the weight of every channel of the five stages, in the layout of the `lpips` package.

    Raises:
        RequestError: As for `load_perceptual_features`.
    """
    found = _read(path)
    expected: dict[str, tuple[int, ...]] = {
        f"lin{stage}.model.1.weight": (1, outputs, 1, 1)
        for stage, (_, outputs, _) in enumerate(CONVOLUTIONS.values())
    }
    _require_shapes(path, found, expected)
    return [found[name].reshape(-1).float() for name in expected]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist.") from None
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for what is no weights
        raise RequestError(f"{path} cannot be read as weights of torch: {error}") from None
    if not isinstance(found, Mapping):
        raise RequestError(f"{path} holds a {type(found).__name__}, expected a dict of weights.")
    return found


def _require_shapes(
    path: Path, found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    wrong = [
        f"{name} {tuple(getattr(found.get(name), 'shape', ())) or 'missing'} instead of {shape}"
        for name, shape in expected.items()
        if tuple(getattr(found.get(name), "shape", ())) != shape
    ]
    if wrong:
        raise RequestError(f"{path} does not hold the expected weights: {'; '.join(wrong)}.")
