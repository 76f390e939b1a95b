"""The building blocks of the U-Nets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_class(dimensions: int) -> type[nn.Module]:
    """Return the convolution for 2 or 3 dimensions."""
    return nn.Conv3d if dimensions == 3 else nn.Conv2d


def transposed_conv_class(dimensions: int) -> type[nn.Module]:
    """Return the transposed convolution for 2 or 3 dimensions."""
    return nn.ConvTranspose3d if dimensions == 3 else nn.ConvTranspose2d


class ConvNorm(nn.Module):
    """Convolution that keeps the size (over its stride), instance norm, and leaky ReLU if asked."""

    def __init__(
        self,
        dimensions: int,
        num_inputs: int,
        num_outputs: int,
        kernel: Sequence[int],
        *,
        stride: int | Sequence[int],
        activation: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple((size - 1) // 2 for size in kernel)
        self.conv = conv_class(dimensions)(
            num_inputs,
            num_outputs,
            tuple(kernel),
            _per_axis(stride, dimensions),
            padding,
            bias=bias,
        )
        self.norm = _norm_class(dimensions)(num_outputs, eps=1e-5, affine=True)
        self.activation = nn.LeakyReLU(0.01, inplace=True) if activation else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv(features)
        # What `self.norm` computes, bit for bit. It would return a view, and autograd copies the
        # gradient of a view that is changed in place several times over.
        count, affine = len(features), self.norm
        flat = functional.batch_norm(
            features.reshape(1, -1, *features.shape[2:]),
            None,
            None,
            affine.weight.repeat(count),
            affine.bias.repeat(count),
            training=True,
            eps=affine.eps,
        )
        normed: Tensor = self.activation(flat).view(features.shape)
        return normed


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (average pooling and a 1×1 convolution where it must)."""

    def __init__(
        self,
        dimensions: int,
        num_inputs: int,
        num_outputs: int,
        kernel: Sequence[int],
        *,
        stride: int | Sequence[int],
    ) -> None:
        """Build two convolutions and the shortcut around them.

        Args:
            dimensions: 2 or 3.
            num_inputs: Channels of the input.
            num_outputs: Channels of the output.
            kernel: Size of both convolutions along each axis.
            stride: Of the first convolution; the shortcut averages over as many voxels.
        """
        super().__init__()
        self.first = ConvNorm(dimensions, num_inputs, num_outputs, kernel, stride=stride)
        self.second = ConvNorm(
            dimensions, num_outputs, num_outputs, kernel, stride=1, activation=False
        )
        self.activation = nn.LeakyReLU(0.01, inplace=True)
        self.shortcut = nn.Sequential()
        strides = _per_axis(stride, dimensions)
        if any(step != 1 for step in strides):
            pool: type[nn.Module] = nn.AvgPool3d if dimensions == 3 else nn.AvgPool2d
            self.shortcut.append(pool(strides, strides))
        if num_inputs != num_outputs:
            self.shortcut.append(
                ConvNorm(
                    dimensions,
                    num_inputs,
                    num_outputs,
                    (1,) * dimensions,
                    stride=1,
                    activation=False,
                    bias=False,
                )
            )

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.second(self.first(features)) + self.shortcut(features))


Block = type[ConvNorm] | type[ResidualBlock]


def stack(
    block: Block,
    dimensions: int,
    num_inputs: int,
    num_outputs: int,
    kernel: Sequence[int],
    *,
    stride: int | Sequence[int],
    depth: int,
) -> nn.Sequential:
    """Return `depth` blocks in a row; the first one carries the stride."""
    return nn.Sequential(
        *(
            block(
                dimensions,
                num_inputs if position == 0 else num_outputs,
                num_outputs,
                kernel,
                stride=stride if position == 0 else 1,
            )
            for position in range(depth)
        )
    )


def initialise(module: nn.Module) -> None:
    """Initialise convolutions as He et al. 2015 for the leaky slope 0.01, biases with 0.

    Meta tensors have no numbers to set; asked to, torch would import for a second.
    """
    convolutions = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
    if isinstance(module, convolutions) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)


def _norm_class(dimensions: int) -> type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]:
    return nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d


def _per_axis(stride: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    return (stride,) * dimensions if isinstance(stride, int) else tuple(stride)
