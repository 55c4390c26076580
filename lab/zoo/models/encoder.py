"""Patch encoder: a 64x64 picture to one global token and a 4x4 grid of patch tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from lab.zoo.models.autoencoder import ResidualBlock


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PatchEncoder(ModelMixin, ConfigMixin):
    """Small convolution-transformer hybrid that speaks in 17 tokens: a global one, then 4x4 patches.

    Trained to hold what an ImageNet network sees (distillation, Hinton et al. 2015) and where the colours
    are; the heads used for that are kept, so that the tokens can be asked for class labels.

    Parameters
    ----------
    width : int
        Width of a token.
    layers, heads : int
        Transformer blocks over the 8x8 grid plus the global token, and their attention heads.
    n_classes : int
        Labels: 200 natural classes, 10 digits, then kinds of pattern.
    teacher_global, teacher_patch : int
        Widths of the teacher's head and of its patch stage.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 192,
        layers: int = 4,
        heads: int = 6,
        n_classes: int = 216,
        teacher_global: int = 1280,
        teacher_patch: int = 112,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, 48, 3, padding=1),
            ResidualBlock(48),
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            ResidualBlock(96),
            ResidualBlock(96),
            nn.SiLU(),
            nn.Conv2d(96, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.cls = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.patch_out, self.global_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_teacher_global = nn.Linear(width, teacher_global)
        self.to_teacher_patch = nn.Linear(width, teacher_patch)
        self.to_class = nn.Linear(width, n_classes)
        self.to_colour = nn.Linear(width, 48)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, 17, width), each of mean 0, variance 1, of ``images`` (n, 3, 64, 64) in 0..1."""
        grid = self.stem(images * 2 - 1)
        n, d = grid.shape[:2]
        x = torch.cat([self.cls.expand(n, -1, -1), grid.flatten(2).transpose(1, 2)], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        patches = F.avg_pool2d(x[:, 1:].transpose(1, 2).reshape(n, d, 8, 8), 2).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.global_out(x[:, :1]), self.patch_out(patches)], dim=1)
        return F.layer_norm(tokens, (d,))

    def classify(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return class logits (n, n_classes) of tokens (n, 17, width)."""
        return self.to_class(tokens[:, 0])
