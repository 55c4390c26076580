"""What may happen to a picture between decoder and reader, differentiable and random, for training."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from quant.adapters.watermark.jpeg import jpeg, rounded


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(x), device=x.device)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def compress(x: Tensor) -> Tensor:
    """JPEG of quality 40 to 95."""
    return jpeg(x, _uniform(x, 40, 95).round())


def noise(x: Tensor) -> Tensor:
    """Gaussian noise of up to 10/255."""
    return x + _column(_uniform(x, 0, 10 / 255)) * torch.randn_like(x)


def blur(x: Tensor) -> Tensor:
    """Gaussian blur of up to 1 pixel, one width for all."""
    sigma = 0.3 + 0.7 * float(torch.rand(()))
    return blurred(x, sigma)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur (n, c, h, w) by a Gaussian of `sigma` pixels, borders reflected."""
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    line = torch.exp(-0.5 * (at / sigma).square())
    line = (line / line.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (reach,) * 4, mode="reflect")
    x = F.conv2d(x, line[:, :, None], groups=x.shape[1])
    return F.conv2d(x, line[..., None], groups=x.shape[1])


def tone(x: Tensor) -> Tensor:
    """Brightness and contrast times 0.6 to 1.5, saturation times 0.5 to 1.5."""
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * _column(_uniform(x, 0.6, 1.5)) + mean * _column(_uniform(x, 0.6, 1.5))
    grey = x.mean(1, keepdim=True)
    return grey + (x - grey) * _column(_uniform(x, 0.5, 1.5))


def shrink(x: Tensor) -> Tensor:
    """Resize to a share of the sides between 0.5 and 1, and back."""
    h, w = x.shape[-2:]
    share = 0.5 + 0.5 * float(torch.rand(()))
    size = max(8, round(h * share)), max(8, round(w * share))
    small = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, (h, w), mode="bicubic", align_corners=False)


def crop(x: Tensor) -> Tensor:
    """Keep a window of 0.6 to 1 of the sides, the same for all; one half of the time it is stretched back."""
    h, w = x.shape[-2:]
    share = 0.6 + 0.4 * float(torch.rand(()))
    height, width = round(h * share), round(w * share)
    top, left = (int(torch.randint(size + 1, ())) for size in (h - height, w - width))
    x = x[..., top : top + height, left : left + width]
    if float(torch.rand(())) < 0.5:
        return F.interpolate(x, (h, w), mode="bicubic", align_corners=False)
    return x


def cover(x: Tensor) -> Tensor:
    """Paint a grey window of up to half the sides over it."""
    h, w = x.shape[-2:]
    height, width = (int(torch.randint(1, size // 2 + 1, ())) for size in (h, w))
    top, left = (int(torch.randint(size + 1, ())) for size in (h - height, w - width))
    mask = torch.zeros(1, 1, h, w, device=x.device)
    mask[..., top : top + height, left : left + width] = 1
    return x * (1 - mask) + 0.5 * mask


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (compress, compress, noise, blur, tone, shrink, crop, cover)
"""JPEG twice: it is the most common one, and the hardest."""


def stored(x: Tensor) -> Tensor:
    """Clamp to 0..1 and round to 8 bits, as a PNG does; gradients pass straight through."""
    return rounded(x.clamp(0, 1) * 255) / 255


def distort(x: Tensor, draws: int = 4) -> list[Tensor]:
    """Distort pictures (n, 3, h, w) in 0..1: one kind for each of `draws` groups, in the order of `x`.

    Groups may differ in size where one was cropped.
    """
    out = []
    for group in x.chunk(draws):
        kind = KINDS[int(torch.randint(len(KINDS), ()))]
        out.append(stored(kind(stored(group))))
    return out
