"""The network of learned propagation: features of slices, and the affinity between two slices."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE = 8
"""Side in pixels of the tiles in which affinities are computed."""
EDGE_RADIUS = 3
"""A pixel's edge profile compares it with its neighbours up to this many pixels away (Sli2Vol)."""
NUM_NEIGHBOURS = (2 * EDGE_RADIUS + 1) ** 2 - 1
EDGE_SHARPNESS = 16.0
"""Intensities in [0, 1] are multiplied by this before the softmax of the edge profile."""


class PropagationNetwork(nn.Module):
    """Features of every pixel of a slice, such that like tissue has like features.

    The layout is ResNet-18's (four stages of two basic blocks), kept at full resolution with a
    quarter of its widths or less, as in Sli2Vol, which Z25 appendix F takes over. Input are edge
    profiles, not intensities, so that matching cannot rest on brightness alone. `forward` takes
    slices (B, C, Y, X) with intensities in [0, 1] and gives unit vectors (B, Y, X, features).
    """

    def __init__(
        self, *, num_channels: int, width: int = 16, num_features: int = 64, stride: int = 1
    ) -> None:
        """Build the network.

        Args:
            num_channels: Channels of the slices.
            width: Channels of the first stage; the last has eight times as many.
            num_features: Channels of the features.
            stride: Of the first convolution; features are brought back to full resolution.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(
                num_channels * NUM_NEIGHBOURS, width, 7, stride=stride, padding=3, bias=False
            ),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                block
                for before, after in pairwise(widths)
                for block in (BasicBlock(before, after), BasicBlock(after, after))
            )
        )
        # Centred: what all features share would make every pixel look like every other.
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], num_features, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_features, affine=False),
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        """Logarithm of the factor of the cosine similarity before the softmax."""
        self.log_locality = nn.Parameter(torch.tensor(math.log(10.0)))
        """Logarithm of what a displacement by the window's radius costs before the softmax."""

    def forward(self, slices_BCYX: Tensor) -> Tensor:
        features_BCYX = self.head(self.stages(self.stem(edge_profiles(slices_BCYX))))
        if features_BCYX.shape[2:] != slices_BCYX.shape[2:]:
            features_BCYX = functional.interpolate(
                features_BCYX, size=slices_BCYX.shape[2:], mode="bilinear", align_corners=False
            )
        return functional.normalize(features_BCYX.permute(0, 2, 3, 1), dim=-1)


class BasicBlock(nn.Module):
    """ResNet-18's block: two 3 × 3 convolutions beside a shortcut."""

    def __init__(self, num_input: int, num_output: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(num_input, num_output, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_output),
            nn.ReLU(),
            nn.Conv2d(num_output, num_output, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_output),
        )
        self.shortcut = (
            nn.Identity()
            if num_input == num_output
            else nn.Sequential(
                nn.Conv2d(num_input, num_output, 1, bias=False), nn.BatchNorm2d(num_output)
            )
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return functional.relu(self.residual(x_BCYX) + self.shortcut(x_BCYX))


def edge_profiles(slices_BCYX: Tensor) -> Tensor:
    """Return, per pixel and channel, the softmax of its differences to 48 neighbours (Sli2Vol)."""
    radius, size = EDGE_RADIUS, 2 * EDGE_RADIUS + 1
    num_slices, num_channels, num_rows, num_columns = slices_BCYX.shape
    padded = functional.pad(slices_BCYX, (radius,) * 4, mode="replicate")
    neighbours = functional.unfold(padded, size).view(
        num_slices, num_channels, size * size, num_rows, num_columns
    )
    others = [index for index in range(size * size) if index != size * size // 2]
    differences = slices_BCYX[:, :, None] - neighbours[:, :, others]
    return torch.softmax(EDGE_SHARPNESS * differences, dim=2).flatten(1, 2)


def carry(
    values_BYXK: Tensor,
    *,
    reference_BYXC: Tensor,
    target_BYXC: Tensor,
    radius: tuple[int, int],
    sharpness: Tensor | float,
    locality: Tensor | float,
) -> Tensor:
    """Carry what is known of each pixel of a reference slice over to a target slice.

    Every target pixel takes the mean of the reference pixels at most `radius` rows and columns
    away, weighted by the softmax of how alike their features are, less what the displacement
    costs. Pixels outside the slice take no part. Computed tile by tile as small matrix products:
    the cost is pixels × window, never pixels squared.

    Args:
        values_BYXK: Any number of values per reference pixel, for instance one-hot labels.
        reference_BYXC: Features of the reference slice, unit vectors.
        target_BYXC: Features of the target slice.
        radius: Of the window along (y, x), in pixels.
        sharpness: Factor of the cosine similarity before the softmax.
        locality: What a displacement by the radius costs before the softmax; grows with its square.

    Returns:
        Values of the target pixels, (B, Y, X, K): convex combinations of the reference's.
    """
    num_rows, num_columns = target_BYXC.shape[1:3]
    targets = _tiles(target_BYXC, radius=(0, 0))
    references = _tiles(reference_BYXC, radius=radius)
    values = _tiles(values_BYXK, radius=radius)
    inside = torch.ones(1, num_rows, num_columns, 1, device=target_BYXC.device)
    allowed = _tiles(inside, radius=radius)[0, ..., 0].bool()[:, None] & _within(
        radius, device=target_BYXC.device
    )
    displacement = _displacement(radius, device=target_BYXC.device)
    similarity = (targets @ references.transpose(-1, -2)) * sharpness - locality * displacement
    # Not minus infinity: pixels that pad the last tiles may have no neighbour, and a gradient.
    affinity = torch.softmax(similarity.masked_fill(~allowed, -1e4), dim=-1)
    return _join(affinity @ values, num_rows=num_rows, num_columns=num_columns)


def _tiles(pixels_BYXC: Tensor, *, radius: tuple[int, int]) -> Tensor:
    """Return (B, tiles, pixels of a tile and its margin of `radius`, C); zeros outside."""
    num_rows, num_columns, num_values = pixels_BYXC.shape[1:]
    missing = [-size % TILE for size in (num_rows, num_columns)]
    padding = (0, 0, radius[1], radius[1] + missing[1], radius[0], radius[0] + missing[0])
    padded = functional.pad(pixels_BYXC, padding)
    sides = [TILE + 2 * reach for reach in radius]
    tiles = padded.unfold(1, sides[0], TILE).unfold(2, sides[1], TILE)
    return tiles.permute(0, 1, 2, 4, 5, 3).reshape(
        pixels_BYXC.shape[0], -1, sides[0] * sides[1], num_values
    )


def _within(radius: tuple[int, int], *, device: torch.device) -> Tensor:
    """Return which pixels of a tile with margin lie in the window of each pixel of the tile."""
    near = []
    for reach in radius:
        places = torch.arange(TILE + 2 * reach, device=device) - reach
        near.append((torch.arange(TILE, device=device)[:, None] - places).abs() <= reach)
    both = near[0][:, None, :, None] & near[1][None, :, None, :]
    return both.reshape(TILE * TILE, -1)


def _displacement(radius: tuple[int, int], *, device: torch.device) -> Tensor:
    """Return squared distances in units of the radius, laid out as in `_within`."""
    squares = []
    for reach in radius:
        places = torch.arange(TILE + 2 * reach, device=device) - reach
        squares.append(((torch.arange(TILE, device=device)[:, None] - places) / reach) ** 2)
    both = squares[0][:, None, :, None] + squares[1][None, :, None, :]
    return both.reshape(TILE * TILE, -1)


def _join(tiles: Tensor, *, num_rows: int, num_columns: int) -> Tensor:
    num_slices, num_values = tiles.shape[0], tiles.shape[-1]
    down, across = -(-num_rows // TILE), -(-num_columns // TILE)
    grid = tiles.view(num_slices, down, across, TILE, TILE, num_values)
    joined = grid.permute(0, 1, 3, 2, 4, 5).reshape(
        num_slices, down * TILE, across * TILE, num_values
    )
    return joined[:, :num_rows, :num_columns]
