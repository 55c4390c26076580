"""Structural features: local maps at three scales, and a feed-forward net back to a picture."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from lab.zoo.models.autoencoder import ResidualBlock


def _down(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Conv2d(inner, outer, 3, stride=2, padding=1), ResidualBlock(outer))


def _up(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(inner), nn.SiLU(), nn.Conv2d(inner, 4 * outer, 3, padding=1), nn.PixelShuffle(2)
    )


class StructureNet(ModelMixin, ConfigMixin):
    """Low-level feature maps and their fast inverse.

    They have the place that VGG features and a deep image prior have in Brain-IT. The maps are standardised
    per channel with running statistics (a BatchNorm without affine part), so that a decoder of brain data
    can predict them on one scale. The inverse is trained on features with noise added, as predicted ones are
    never exact.

    Parameters
    ----------
    channels : tuple of int
        Channels of the maps at 16x16, 8x8 and 4x4.
    width : int
        Base width of both nets.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64), width: int = 36) -> None:
        super().__init__()
        w1, w2, w3 = width, 2 * width, 2 * width
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, w1, 3, padding=1), ResidualBlock(w1))
        self.down = nn.ModuleList([_down(w1, w1), _down(w1, w2), _down(w2, w3)])
        self.taps = nn.ModuleList(nn.Conv2d(w, c, 1) for w, c in zip((w1, w2, w3), channels, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, affine=False, momentum=0.02) for c in channels)
        self.lift = nn.ModuleList(
            nn.Conv2d(c, w, 3, padding=1) for w, c in zip((w1, w2, w3), channels, strict=True)
        )
        self.up = nn.ModuleList([_up(w3, w2), _up(w2, w1), _up(w1, w1)])
        self.refine = nn.ModuleList([ResidualBlock(w2), ResidualBlock(w1)])
        self.head = nn.Sequential(
            ResidualBlock(w1), nn.SiLU(), nn.Conv2d(w1, 12, 3, padding=1), nn.PixelShuffle(2)
        )

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return maps [(n, 16, 16, 16), (n, 32, 8, 8), (n, 64, 4, 4)] of ``images`` (n, 3, 64, 64)."""
        x = self.stem(images * 2 - 1)
        maps = []
        for down, tap, norm in zip(self.down, self.taps, self.norms, strict=True):
            x = down(x)
            maps.append(norm(tap(x)))
        return maps

    def reconstruct(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Invert feature maps without clamping (for training)."""
        fine, middle, coarse = (lift(m) for lift, m in zip(self.lift, maps, strict=True))
        x = self.refine[0](self.up[0](coarse) + middle)
        x = self.refine[1](self.up[1](x) + fine)
        return self.head(self.up[2](x)) * 0.5 + 0.5

    def invert(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the picture (n, 3, 64, 64) in 0..1 that feature maps describe."""
        return self.reconstruct(maps).clamp(0, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Round trip: ``invert(features(images))``."""
        return self.invert(self.features(images))
