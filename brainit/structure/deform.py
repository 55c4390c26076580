"""Small deformations of glyphs: rotation, shear, scale, shift, smooth warping, stroke thickness."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def deform(pictures: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw n deformed pictures, every picture used equally often.

    Warps are bicubic on a doubled grid; thickness moves towards the grey dilation or erosion. Spreads (one
    sigma): 4 degrees, shear .05, scale 4 %, shift .25 px, warp .4 px, thickness half of a half-pixel
    dilation.

    Parameters
    ----------
    pictures : array of shape (m, S, S)
        Bright glyphs on black, 0..1.

    Returns
    -------
    float32 array of shape (n, S, S)
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    source = torch.from_numpy(np.asarray(pictures, np.float32))
    m, side = source.shape[:2]
    order = torch.cat([torch.randperm(m, generator=generator) for _ in range(-(-n // m))])[:n]
    ticks = (torch.arange(2 * side) + 0.5) / side - 1
    yy, xx = torch.meshgrid(ticks, ticks, indexing="ij")
    base, pixel = torch.stack([xx, yy], -1), 2 / side
    out = []
    for block in order.split(500):
        k = len(block)
        angle, scale, shear = normal(k) * np.deg2rad(4), torch.exp(normal(k, 2) * 0.04), normal(k) * 0.05
        c, s = angle.cos(), angle.sin()
        turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)
        stretch = torch.diag_embed(scale)
        stretch[:, 0, 1] = shear
        grid = torch.einsum("hwj,kij->khwi", base, turn @ stretch) + normal(k, 1, 1, 2) * 0.25 * pixel
        warp = F.interpolate(
            normal(k, 2, 6, 6), size=(2 * side, 2 * side), mode="bicubic", align_corners=False
        )
        grid = grid + warp.permute(0, 2, 3, 1) * 0.4 * pixel
        x = F.grid_sample(source[block][:, None], grid, mode="bicubic", align_corners=False).clamp(0, 1)
        thick = (normal(k, 1, 1, 1) * 0.5).clamp(-1, 1)
        dilated, eroded = F.max_pool2d(x, 3, 1, 1), -F.max_pool2d(-x, 3, 1, 1)
        x = torch.where(thick > 0, x + thick * (dilated - x), x - 0.7 * thick * (eroded - x))
        x = ((x - 0.5) * 1.25 + 0.5).clamp(0, 1)  # undoes the softening of the interpolation
        out.append(F.avg_pool2d(x, 2)[:, 0])
    return torch.cat(out).numpy()
