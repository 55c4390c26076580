"""What people do to pictures: attacks on stored pictures, real codecs included."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from quant.adapters.watermark.distortions import blurred, stored

Attack = Callable[[Tensor], Tensor]
"""From stored pictures (n, 3, h, w) in 0..1 to pictures that may differ in size."""


def codec(images: Tensor, form: str, quality: int) -> Tensor:
    """Write and read every picture as JPEG or WebP by Pillow (JPEG: chroma at half size)."""
    from PIL import Image

    def through(picture: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, form, quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))

    arrays = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor() as pool:
        back = np.stack(list(pool.map(through, arrays)))
    return torch.from_numpy(back).permute(0, 3, 1, 2).to(images.device).float() / 255


def resized(images: Tensor, share: float) -> Tensor:
    """Shrink both sides to a share, antialiased, and enlarge again."""
    h, w = images.shape[-2:]
    size = round(h * share), round(w * share)
    small = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return F.interpolate(small, (h, w), mode="bicubic", align_corners=False)


def cropped(images: Tensor, area: float, stretch: bool) -> Tensor:
    """Keep the middle that has this share of the area; `stretch` enlarges it to the size before."""
    h, w = images.shape[-2:]
    height, width = round(h * area**0.5), round(w * area**0.5)
    top, left = (h - height) // 2, (w - width) // 2
    kept = images[..., top : top + height, left : left + width]
    return F.interpolate(kept, (h, w), mode="bicubic", align_corners=False) if stretch else kept


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Rotate about the middle; corners repeat the border."""
    angle = torch.tensor(degrees * torch.pi / 180)
    cos, sin = float(angle.cos()), float(angle.sin())
    turn = images.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def contrasted(images: Tensor, factor: float) -> Tensor:
    """Spread pictures about their mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * factor + mean


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Add Gaussian noise, the same in every run."""
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return images + sigma * drawn.to(images.device)


def covered(images: Tensor, area: float) -> Tensor:
    """Paint the middle grey."""
    h, w = images.shape[-2:]
    height, width = round(h * area**0.5), round(w * area**0.5)
    out, top, left = images.clone(), (h - height) // 2, (w - width) // 2
    out[..., top : top + height, left : left + width] = 0.5
    return out


ATTACKS: dict[str, Attack] = {
    "PNG": lambda x: x,
    "JPEG 80": partial(codec, form="JPEG", quality=80),
    "JPEG 50": partial(codec, form="JPEG", quality=50),
    "WebP 80": partial(codec, form="WEBP", quality=80),
    "crop to half the area": partial(cropped, area=0.5, stretch=False),
    "crop to half, stretched back": partial(cropped, area=0.5, stretch=True),
    "resize to 0.7 and back": partial(resized, share=0.7),
    "resize to 0.5 and back": partial(resized, share=0.5),
    "rotate 10 degrees": partial(rotated, degrees=10.0),
    "mirror": lambda x: x.flip(-1),
    "brightness 1.5": lambda x: x * 1.5,
    "contrast 1.5": partial(contrasted, factor=1.5),
    "noise 10/255": partial(noisy, sigma=10 / 255),
    "blur, 1 pixel": partial(blurred, sigma=1.0),
    "cover a quarter": partial(covered, area=0.25),
}


def attacked(images: Tensor, attack: Attack) -> Tensor:
    """Attack pictures and store them with 8 bits."""
    return stored(attack(images))
