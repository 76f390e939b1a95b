"""DenseVoxNet (Yu 2017), the 3D network of Z20.

From the papers: a 3×3×3 convolution of stride 2; two dense blocks of twelve layers with growth rate
12, each layer batch norm, ReLU, 3×3×3 convolution and dropout of 0.2; between them batch norm,
ReLU, 1×1×1 convolution and 2×2×2 max-pooling; after them batch norm, ReLU, 1×1×1 convolution and
two transposed convolutions back to full resolution; a long connection from the transition to an
auxiliary output; weights drawn with mean 0 and deviation 0.01 (Z20); about 1.8 million weights.

Our choices: 128 and 64 features in the transposed convolutions, each followed by batch norm and
ReLU; the auxiliary output stays at half resolution, where its features are, and is compared with
labels of that resolution; a third output at the lowest resolution, which counts nothing in the loss
of several levels.
"""

import torch
from torch import Tensor, nn

from sparseunet.planning.plan import NetworkPlan

_DROPOUT = 0.2
_DEVIATION = 0.01


def densevoxnet(
    plan: NetworkPlan, *, num_input_channels: int, num_outputs: int, deep_supervision: bool
) -> nn.Module:
    """Return a DenseVoxNet.

    Features per stage are those of the first convolution and after each dense block; what a block
    adds, over its number of layers, is the growth rate.
    """
    network = DenseVoxNet(
        plan,
        num_input_channels=num_input_channels,
        num_outputs=num_outputs,
        deep_supervision=deep_supervision,
    )
    network.apply(_initialise)
    return network


class DenseVoxNet(nn.Module):
    """Maps (B, C, Z, Y, X) to logits; in training with deep supervision full, half, quarter."""

    def __init__(
        self,
        plan: NetworkPlan,
        *,
        num_input_channels: int,
        num_outputs: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        first, middle, last = plan.features_per_stage
        _, depth, last_depth = plan.encoder_depths
        self.first = nn.Conv3d(num_input_channels, first, 3, stride=2, padding=1, bias=False)
        self.block = _DenseBlock(first, (middle - first) // depth, depth)
        self.transition = _pointwise(middle)
        self.pool = nn.MaxPool3d(2)
        self.last_block = _DenseBlock(middle, (last - middle) // last_depth, last_depth)
        self.last_transition = _pointwise(last)
        self.up = nn.Sequential(*_double(last, 8 * first), *_double(8 * first, 4 * first))
        self.heads = nn.ModuleList(
            nn.Conv3d(features, num_outputs, 1) for features in (4 * first, middle, last)
        )

    def forward(self, image_BCZYX: Tensor) -> Tensor | list[Tensor]:
        half = self.transition(self.block(self.first(image_BCZYX)))
        quarter = self.last_transition(self.last_block(self.pool(half)))
        logits: Tensor = self.heads[0](self.up(quarter))
        if not (self.deep_supervision and self.training):
            return logits
        return [logits, self.heads[1](half), self.heads[2](quarter)]


class _DenseBlock(nn.Module):
    """Layers that each see the outputs of all before them, and add `growth` features."""

    def __init__(self, num_inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm3d(num_inputs + position * growth),
                nn.ReLU(inplace=True),
                nn.Conv3d(num_inputs + position * growth, growth, 3, padding=1, bias=False),
                nn.Dropout(_DROPOUT),
            )
            for position in range(depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = torch.cat((features, layer(features)), dim=1)
        return features


def _pointwise(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm3d(features),
        nn.ReLU(inplace=True),
        nn.Conv3d(features, features, 1, bias=False),
    )


def _double(num_inputs: int, num_outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.ConvTranspose3d(num_inputs, num_outputs, 2, stride=2, bias=False),
        nn.BatchNorm3d(num_outputs),
        nn.ReLU(inplace=True),
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.normal_(module.weight, std=_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
