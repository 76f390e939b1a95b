"""CAM-WNet (Liu 2022), the 2D network that Z25 trains on ATLAS.

From Z25: its name, and that the encoder of its coarse segmentation module is VGG-16, started from
weights of photographs (here it starts from random ones). The name says that two U-Nets follow each
other and that channels are weighted by attention.

Our choices: VGG-16's thirteen convolutions without its last pooling, so four halvings; instance
norm and leaky ReLU as in the U-Nets here; the second U-Net has as many features with two
convolutions per level and sees the image beside the sigmoid of the coarse logits; it predicts what
to add to those, so one output trains both; attention (squeezed by average and maximum, Woo 2018)
on the skip connections of both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparseunet.networks.blocks import ConvNorm, initialise, stack
from sparseunet.planning.plan import NetworkPlan

_SQUEEZE = 8


def cam_wnet(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - it has one output
) -> nn.Module:
    """Return a CAM-WNet; encoder depths are those of the coarse U-Net."""
    network = CamWNet(plan, num_input_channels=num_input_channels, num_outputs=num_outputs)
    network.apply(initialise)
    return network


class CamWNet(nn.Module):
    """Maps (B, C, Y, X) to logits (B, K, Y, X)."""

    def __init__(self, plan: NetworkPlan, *, num_input_channels: int, num_outputs: int) -> None:
        super().__init__()
        features, depths = plan.features_per_stage, plan.decoder_depths
        self.coarse = _AttentiveUNet(
            num_input_channels, num_outputs, features, (plan.encoder_depths, depths)
        )
        self.fine = _AttentiveUNet(
            num_input_channels + num_outputs, num_outputs, features, ((*depths, depths[-1]), depths)
        )

    def forward(self, image_BCYX: Tensor) -> Tensor:
        coarse_BKYX: Tensor = self.coarse(image_BCYX)
        change_BKYX: Tensor = self.fine(torch.cat((image_BCYX, coarse_BKYX.sigmoid()), dim=1))
        return coarse_BKYX + change_BKYX


class _AttentiveUNet(nn.Module):
    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        features: Sequence[int],
        depths: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        super().__init__()
        inputs, levels = (num_inputs, *features), range(len(features) - 2, -1, -1)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(
            _convolutions(before, after, depth)
            for before, after, depth in zip(inputs[:-1], features, depths[0], strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(features[level + 1], features[level], 2, 2) for level in levels
        )
        self.attention = nn.ModuleList(_ChannelAttention(features[level]) for level in levels)
        self.decoder = nn.ModuleList(
            _convolutions(2 * features[level], features[level], depth)
            for level, depth in zip(levels, depths[1], strict=True)
        )
        self.head = nn.Conv2d(features[0], num_outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        skips = []
        for level, convolutions in enumerate(self.encoder):
            features = convolutions(self.pool(features) if level else features)
            skips.append(features)
        for up, attention, convolutions, skip in zip(
            self.up, self.attention, self.decoder, skips[-2::-1], strict=True
        ):
            features = convolutions(torch.cat((up(features), attention(skip)), dim=1))
        logits: Tensor = self.head(features)
        return logits


class _ChannelAttention(nn.Module):
    """Weights every channel in (0, 1) by what its average and its maximum say."""

    def __init__(self, features: int) -> None:
        super().__init__()
        squeezed = max(1, features // _SQUEEZE)
        self.weigh = nn.Sequential(
            nn.Conv2d(features, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, features, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        average = self.weigh(features.mean(dim=(2, 3), keepdim=True))
        return features * (average + self.weigh(features.amax(dim=(2, 3), keepdim=True))).sigmoid()


def _convolutions(num_inputs: int, num_outputs: int, depth: int) -> nn.Sequential:
    return stack(ConvNorm, 2, num_inputs, num_outputs, (3, 3), stride=1, depth=depth)
