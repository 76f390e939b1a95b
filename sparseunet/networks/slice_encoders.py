"""Small networks that learn features of slices without labels. All take squares of 64 pixels."""

import torch
from torch import nn

SIDE = 64
"""Pixels along both sides of the pictures."""
_PATCH = 8
_NUM_PATCHES = (SIDE // _PATCH) ** 2
_SHARE_MASKED = 0.75
_WIDTH, _HEADS, _DEPTH = 96, 4, 3
_NARROW, _SHALLOW = 48, 1


class SliceAutoencoder(nn.Module):
    """Convolutions, fully connected layers to 64 features, and a light decoder (Z20 eq. 3 and 4).

    Z20 takes the convolutions of VGG-19 with weights of ImageNet and leaves them fixed. Here three
    small ones are trained from scratch with the rest, so no weights are needed.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        smallest = SIDE // 8
        self.encoder = nn.Sequential(
            nn.Conv2d(num_channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * smallest**2, 256),
            nn.ReLU(),
            nn.Linear(256, 64),
        )
        self.decoder = nn.Sequential(
            nn.Linear(64, 32 * smallest**2),
            nn.ReLU(),
            nn.Unflatten(1, (32, smallest, smallest)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, num_channels, 4, stride=2, padding=1),
        )

    def loss(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of the reconstruction."""
        return nn.functional.mse_loss(self.decoder(self.encoder(pictures_BCYX)), pictures_BCYX)

    def forward(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the output of the last fully connected layer, shape (B, 64)."""
        return self.encoder(pictures_BCYX)


class SliceMaskedAutoencoder(nn.Module):
    """A small masked auto-encoder (He et al. 2022), which Z25 §2.3 takes features from.

    The picture is cut into 8 × 8 pixels; a transformer of 3 layers sees a quarter of the pieces,
    and one of 1 layer reconstructs the others. Pieces to reconstruct are scaled to mean 0 and
    variance 1 each, as in the paper. Z25 does not state sizes; the paper's are far larger.
    """

    places_PD: torch.Tensor
    narrow_places_PD: torch.Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_channels * _PATCH**2, _WIDTH)
        self.encoder = _transformer(_WIDTH, depth=_DEPTH)
        self.narrow = nn.Linear(_WIDTH, _NARROW)
        self.missing = nn.Parameter(0.02 * torch.randn(_NARROW))
        self.decoder = _transformer(_NARROW, depth=_SHALLOW)
        self.reconstruct = nn.Linear(_NARROW, num_channels * _PATCH**2)
        self.register_buffer("places_PD", _waves(_WIDTH), persistent=False)
        self.register_buffer("narrow_places_PD", _waves(_NARROW), persistent=False)

    def loss(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error over the pieces that were not seen, drawn at random."""
        patches_BPV = _cut(pictures_BCYX)
        num = len(patches_BPV)
        order_BP = torch.rand(num, _NUM_PATCHES, device=patches_BPV.device).argsort(dim=1)
        num_seen = round(_NUM_PATCHES * (1 - _SHARE_MASKED))
        seen_BS, hidden_BH = order_BP[:, :num_seen], order_BP[:, num_seen:]
        tokens_BPD = self.embed(patches_BPV) + self.places_PD
        encoded_BSD = self.narrow(self.encoder(_take(tokens_BPD, seen_BS)))
        missing_BHD = self.missing.expand(num, hidden_BH.shape[1], -1)
        all_BPD = torch.cat([encoded_BSD, missing_BHD], dim=1) + self.narrow_places_PD[order_BP]
        found_BHV = self.reconstruct(self.decoder(all_BPD)[:, num_seen:])
        wanted_BHV = _take(patches_BPV, hidden_BH)
        variance_BH1, mean_BH1 = torch.var_mean(wanted_BHV, dim=2, keepdim=True)
        return nn.functional.mse_loss(
            found_BHV, (wanted_BHV - mean_BH1) / (variance_BH1 + 1e-6) ** 0.5
        )

    def forward(self, pictures_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the mean over all pieces of the encoder's output, nothing hidden, (B, 96)."""
        return self.encoder(self.embed(_cut(pictures_BCYX)) + self.places_PD).mean(dim=1)


def _transformer(width: int, *, depth: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        width, _HEADS, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)


def _cut(pictures_BCYX: torch.Tensor) -> torch.Tensor:
    """Return the pieces of pictures, shape (B, pieces, channels · 64)."""
    return nn.functional.unfold(pictures_BCYX, _PATCH, stride=_PATCH).transpose(1, 2)


def _take(values_BPD: torch.Tensor, places_BS: torch.Tensor) -> torch.Tensor:
    return values_BPD.gather(1, places_BS[:, :, None].expand(-1, -1, values_BPD.shape[2]))


def _waves(width: int) -> torch.Tensor:
    """Return sines and cosines of both coordinates of every piece, shape (pieces, width)."""
    side = SIDE // _PATCH
    place = torch.arange(side, dtype=torch.float32)
    frequency = 100.0 ** (-torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angle = place[:, None] * frequency
    along = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = along[:, None].expand(side, side, -1)
    columns = along[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


ENCODERS = {"autoencoder": SliceAutoencoder, "masked_autoencoder": SliceMaskedAutoencoder}
"""Name to network; all are made of a number of channels and have `loss` and `forward`."""
