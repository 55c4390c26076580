"""Between the size of a dataset's pictures and the 64x64 colour pictures that the zoo's models speak."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 64


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize ``images`` (n, c, h, w) in 0..1 to side x side, bicubic, antialiased when it shrinks; clamped."""
    if images.shape[-1] == side and images.shape[-2] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def to_model(pictures: np.ndarray) -> torch.Tensor:
    """Turn pictures (n, H, W) or (n, H, W, 3) in 0..1 into float32 (n, 3, 64, 64)."""
    x = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    x = x[:, None].expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return resize(x, SIDE)


def from_model(images: torch.Tensor, like: tuple[int, ...]) -> np.ndarray:
    """Turn (n, 3, 64, 64) into pictures of a dataset's own form: ``like`` is (H, W) for grey or (H, W, 3)."""
    x = resize(images.float().cpu(), like[0])
    return x.mean(dim=1).numpy() if len(like) == 2 else x.permute(0, 2, 3, 1).numpy()
