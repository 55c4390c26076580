"""JPEG that passes gradients: chroma at half size, 8x8 cosine transform, rounding straight through."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Annex K of ITU-T T.81, as libjpeg has them at quality 50.
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32,
)  # fmt: skip
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@lru_cache(maxsize=4)
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    k = torch.arange(8, dtype=torch.float64)
    cosine = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    cosine[0] /= math.sqrt(2)
    colour = torch.tensor(_YCC, dtype=torch.float64)
    tables = [torch.tensor(t, dtype=torch.float64).reshape(8, 8) for t in (LUMA, CHROMA)]
    made = (cosine, colour, torch.linalg.inv(colour), *tables)
    a, b, c, d, e = (x.float().to(device) for x in made)
    return a, b, c, d, e


def rounded(x: Tensor) -> Tensor:
    """Round to whole numbers; gradients pass as if nothing had happened."""
    return x + (x.round() - x).detach()


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Parameters
    ----------
    images : float tensor of shape (n, 3, h, w)
        In 0..1; sides are multiples of 16.
    quality : float tensor of shape (n,)
        libjpeg's, 1 to 100; chroma is stored at half size.

    Returns
    -------
    float tensor of shape (n, 3, h, w)
        In 0..1.
    """
    cosine, colour, back, luma, chroma = _constants(images.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    ycc = torch.einsum("dc,nchw->ndhw", colour, images.clamp(0, 1) * 255)
    small = F.avg_pool2d(ycc[:, 1:], 2)
    grey = _through(ycc[:, :1] - 128, luma, scale, cosine) + 128
    wide = F.interpolate(_through(small, chroma, scale, cosine), scale_factor=2, mode="bilinear")
    out = torch.einsum("dc,nchw->ndhw", back, torch.cat([grey, wide], 1))
    return (out / 255).clamp(0, 1)


def _through(x: Tensor, table: Tensor, scale: Tensor, cosine: Tensor) -> Tensor:
    """Quantize 8x8 blocks of (n, c, h, w) in the frequency domain and go back."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = ((table * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    levels = rounded(cosine @ blocks @ cosine.T / steps)
    blocks = cosine.T @ (levels * steps) @ cosine
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)
