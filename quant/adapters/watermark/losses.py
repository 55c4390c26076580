"""What a mark costs the picture: squared error and structural similarity, both differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.adapters.watermark.distortions import blurred

UNIT = 1e-3
"""Squared error that counts 1: 30 dB."""


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Signal to noise of each picture (n, 3, h, w) in 0..1, dB: float tensor of shape (n,)."""
    return -10 * torch.log10((images - reference).square().mean((1, 2, 3)).clamp_min(1e-10))


def similarity(images: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), Gaussian window of 1.5 pixels, pictures in 0..1."""
    a, b = images, reference
    mean_a, mean_b = blurred(a, 1.5), blurred(b, 1.5)
    var_a = blurred(a * a, 1.5) - mean_a**2
    var_b = blurred(b * b, 1.5) - mean_b**2
    cov = blurred(a * b, 1.5) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def picture_loss(images: Tensor, reference: Tensor, weight: float) -> Tensor:
    """Squared error in units of 30 dB, plus `weight` times 1 - SSIM."""
    error = (images - reference).square().mean() / UNIT
    return error + weight * (1 - similarity(images, reference)) if weight else error
