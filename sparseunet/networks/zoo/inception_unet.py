"""Inception U-Net (Punn and Agarwal 2020), the 2D network that Z25 trains on LiTS17.

From the papers: a U-Net whose levels are inception blocks, that is convolutions of several sizes
and a pooling side by side. Z25 gives no sizes.

Our choices: five levels, halved by max-pooling and doubled by transposed convolutions; one block
per level with four branches of equal width (1×1; 1×1 then 3×3; 1×1 then 5×5; 3×3 max-pooling then
1×1), where the paper's block mixes max- and spectral pooling; instance norm and leaky ReLU as in
the U-Nets here.
"""

import torch
from torch import Tensor, nn

from sparseunet.networks.blocks import ConvNorm, initialise
from sparseunet.planning.plan import NetworkPlan


def inception_unet(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - it has one output
) -> nn.Module:
    """Return an inception U-Net; features per stage must be multiples of 4."""
    network = InceptionUNet(
        plan.features_per_stage, num_input_channels=num_input_channels, num_outputs=num_outputs
    )
    network.apply(initialise)
    return network


class InceptionUNet(nn.Module):
    """Maps (B, C, Y, X) to logits (B, K, Y, X)."""

    def __init__(
        self, features_per_stage: tuple[int, ...], *, num_input_channels: int, num_outputs: int
    ) -> None:
        super().__init__()
        inputs = (num_input_channels, *features_per_stage)
        levels = range(len(features_per_stage) - 2, -1, -1)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(
            _InceptionBlock(before, features)
            for before, features in zip(inputs[:-1], features_per_stage, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(features_per_stage[level + 1], features_per_stage[level], 2, 2)
            for level in levels
        )
        self.decoder = nn.ModuleList(
            _InceptionBlock(2 * features_per_stage[level], features_per_stage[level])
            for level in levels
        )
        self.head = nn.Conv2d(features_per_stage[0], num_outputs, 1)

    def forward(self, image_BCYX: Tensor) -> Tensor:
        features, skips = image_BCYX, []
        for level, block in enumerate(self.encoder):
            features = block(self.pool(features) if level else features)
            skips.append(features)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            features = block(torch.cat((up(features), skip), dim=1))
        logits: Tensor = self.head(features)
        return logits


class _InceptionBlock(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        width = num_outputs // 4
        self.branches = nn.ModuleList(
            (
                _conv(num_inputs, width, 1),
                nn.Sequential(_conv(num_inputs, width, 1), _conv(width, width, 3)),
                nn.Sequential(_conv(num_inputs, width, 1), _conv(width, width, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(num_inputs, width, 1)),
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.branches], dim=1)


def _conv(num_inputs: int, num_outputs: int, size: int) -> ConvNorm:
    return ConvNorm(2, num_inputs, num_outputs, (size, size), stride=1)
