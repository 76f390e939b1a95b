"""The U-Nets of nnU-Net's plans: plain and residual encoders with deep supervision.

Layout follows nnU-Net 2.8.1 ("Architecture", plain U-Net: Isensee 2021; residual encoder: Isensee
2024), so that its weights can be carried over: convolution, instance norm, leaky ReLU; strided
convolutions go down, transposed convolutions of kernel = stride go up; one 1×1 head per decoder
stage.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparseunet.networks.blocks import (
    Block,
    ConvNorm,
    ResidualBlock,
    conv_class,
    initialise,
    stack,
    transposed_conv_class,
)
from sparseunet.planning.plan import NetworkPlan


def plain_unet(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Return the U-Net with a plain encoder, initialised."""
    network = UNet(
        plan,
        num_input_channels=num_input_channels,
        num_outputs=num_outputs,
        deep_supervision=deep_supervision,
        residual=False,
    )
    return network.apply(initialise)


def residual_unet(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Return the U-Net with a residual encoder, initialised."""
    network = UNet(
        plan,
        num_input_channels=num_input_channels,
        num_outputs=num_outputs,
        deep_supervision=deep_supervision,
        residual=True,
    )
    return network.apply(initialise)


class UNet(nn.Module):
    """Encoder and decoder of a `NetworkPlan`.

    Call with an image of shape (B, C, Z, Y, X), or (B, C, Y, X) for a 2D plan. In evaluation mode,
    or without deep supervision, returns logits (B, K, Z, Y, X); else a list of logits from the
    highest to the lowest decoder resolution.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        *,
        num_input_channels: int,
        num_outputs: int,
        deep_supervision: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = _Encoder(plan, num_input_channels, residual=residual)
        self.decoder = _Decoder(plan, num_outputs)

    def forward(self, image_BCZYX: Tensor) -> Tensor | list[Tensor]:
        skips = self.encoder(image_BCZYX)
        every_level = self.deep_supervision and self.training
        logits = self.decoder(skips, every_level=every_level)
        return logits if every_level else logits[0]


class _Encoder(nn.Module):
    def __init__(self, plan: NetworkPlan, num_input_channels: int, *, residual: bool) -> None:
        super().__init__()
        dimensions = len(plan.strides[0])
        first = plan.features_per_stage[0]
        self.stem: nn.Module = nn.Identity()
        if residual:
            self.stem = ConvNorm(
                dimensions, num_input_channels, first, plan.kernel_sizes[0], stride=1
            )
            num_input_channels = first
        block: Block = ResidualBlock if residual else ConvNorm
        channels = (num_input_channels, *plan.features_per_stage)
        self.stages = nn.ModuleList(
            stack(
                block,
                dimensions,
                channels[stage],
                channels[stage + 1],
                plan.kernel_sizes[stage],
                stride=plan.strides[stage],
                depth=plan.encoder_depths[stage],
            )
            for stage in range(len(plan.strides))
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        features = self.stem(features)
        skips = []
        for stage in self.stages:
            features = stage(features)
            skips.append(features)
        return skips


class _Decoder(nn.Module):
    def __init__(self, plan: NetworkPlan, num_outputs: int) -> None:
        """Build upsampling, stages and heads, from the lowest resolution to the highest.

        Args:
            plan: Features, strides and kernels by stage.
            num_outputs: Channels of the logits of every level.
        """
        super().__init__()
        dimensions = len(plan.strides[0])
        features = plan.features_per_stage
        up, conv = transposed_conv_class(dimensions), conv_class(dimensions)
        levels: Sequence[int] = range(len(features) - 2, -1, -1)
        self.transposed = nn.ModuleList(
            up(
                features[level + 1],
                features[level],
                plan.strides[level + 1],
                plan.strides[level + 1],
            )
            for level in levels
        )
        self.stages = nn.ModuleList(
            stack(
                ConvNorm,
                dimensions,
                2 * features[level],
                features[level],
                plan.kernel_sizes[level],
                stride=1,
                depth=plan.decoder_depths[position],
            )
            for position, level in enumerate(levels)
        )
        self.heads = nn.ModuleList(conv(features[level], num_outputs, 1) for level in levels)

    def forward(self, skips: list[Tensor], *, every_level: bool) -> list[Tensor]:
        """Return logits from the highest resolution down; only the highest unless `every_level`."""
        features = skips[-1]
        logits = []
        last = len(self.stages) - 1
        for position, stage in enumerate(self.stages):
            upsampled = self.transposed[position](features)
            features = stage(torch.cat((upsampled, skips[-(position + 2)]), dim=1))
            if every_level or position == last:
                logits.append(self._logits(features, self.heads[position]))
        return logits[::-1]

    def _logits(self, features: Tensor, head: nn.Module) -> Tensor:
        """Return a head's answer; in evaluation in float32, whatever the autocast type.

        Near borders classes differ by less than a step of bfloat16, and ties go to the first.
        """
        logits: Tensor
        if self.training:
            logits = head(features)
        else:
            with torch.autocast(features.device.type, enabled=False):
                logits = head(features.float())
        return logits
