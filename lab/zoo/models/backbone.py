"""The patch encoder as a frozen backbone for the voxel encoder: 65 tokens of 192, read at several depths."""

from __future__ import annotations

import torch
from torch import nn

from brainit.voxels.universal.backbone import Backbone
from lab.zoo.models.encoder import PatchEncoder


class _Stem(nn.Module):
    """Convolutions, global token and positions: what goes into the first block."""

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        self.convolutions, self.cls, self.position = encoder.stem, encoder.cls, encoder.position

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, 65, width) of ``images`` (n, 3, 64, 64) in 0..1."""
        grid = self.convolutions(images * 2 - 1).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(images), -1, -1), grid], 1) + self.position


def zoo_backbone(name: str = "encoder-64") -> Backbone:
    """Return an encoder of the zoo as a backbone: the global token, then the 8x8 grid."""
    from lab import zoo

    encoder = zoo.load(name)
    return Backbone(_Stem(encoder), list(encoder.blocks), name=name, width=encoder.config.width, side=64)
