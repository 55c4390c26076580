"""KL autoencoder: a 64x64 picture to a latent of 8 channels at 16x16 and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))); the last convolution starts at zero, so the block as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


class LatentAutoencoder(ModelMixin, ConfigMixin):
    """Convolutional autoencoder with a Gaussian latent (Kingma and Welling 2014).

    It has the role it has in latent diffusion (Rombach et al. 2022). The stem folds 2x2 pixels into
    channels, so that every convolution runs at 32x32 or 16x16.

    Parameters
    ----------
    latent_channels : int
        Channels of the 16x16 latent.
    width : int
        Channels at 16x16; half of it at 32x32.
    encoder_blocks, decoder_blocks : int
        Residual blocks at 16x16.
    outer_blocks : int
        Residual blocks at 32x32, each side.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        width: int = 160,
        encoder_blocks: int = 2,
        decoder_blocks: int = 4,
        outer_blocks: int = 3,
    ) -> None:
        super().__init__()
        half = width // 2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, half, 3, padding=1),
            *_blocks(half, outer_blocks - 1),
            nn.Conv2d(half, width, 3, stride=2, padding=1),
            *_blocks(width, encoder_blocks),
            nn.SiLU(),
            nn.Conv2d(width, 2 * latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, width, 3, padding=1),
            *_blocks(width, decoder_blocks),
            nn.Conv2d(width, 4 * half, 3, padding=1),
            nn.PixelShuffle(2),
            *_blocks(half, outer_blocks),
            nn.SiLU(),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        # Measured on training pictures when training ends: every latent channel gets mean 0, variance 1.
        self.register_buffer("shift", torch.zeros(1, latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, latent_channels, 1, 1))

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance of the raw latent for ``images`` (n, 3, 64, 64) in 0..1."""
        mean, logvar = self.encoder(images * 2 - 1).chunk(2, dim=1)
        return mean, logvar.clamp(-20, 4)

    def reconstruct(self, raw: torch.Tensor) -> torch.Tensor:
        """Decode a raw latent without clamping; pictures in about 0..1 (for training)."""
        return self.decoder(raw) * 0.5 + 0.5

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the standardised mean latent (n, 8, 16, 16) of ``images`` (n, 3, 64, 64) in 0..1."""
        return (self.moments(images)[0] - self.shift) / self.scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pictures (n, 3, 64, 64) in 0..1 of standardised ``latents`` (n, 8, 16, 16)."""
        return self.reconstruct(latents * self.scale + self.shift).clamp(0, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Round trip: ``decode(encode(images))``."""
        return self.decode(self.encode(images))
