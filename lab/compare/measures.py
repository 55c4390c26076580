"""Paired measures, one number a picture, in torch on whatever device the pictures are on.

Equal to `brainit.metrics` (tested); that one works picture by picture on the CPU, too slow for the hundreds
of sets a comparison has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PSNR_CAP = 100.0
"""What equal pictures count as, in dB; one level off in one pixel of a 64x64 picture is 89 dB."""
SQNR_CAP = 200.0
_WINDOW = 7


def eight_bit(images: Tensor) -> Tensor:
    """Round pictures in 0..1 to the 256 levels that a saved picture has."""
    return images.clamp(0, 1).mul(255).round().div(255)


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, peak 1, at most `PSNR_CAP`: (n,)."""
    mse = (images.double() - reference.double()).square().flatten(1).mean(1)
    return (-10 * mse.clamp(min=1e-30).log10()).clamp(max=PSNR_CAP)


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004), uniform 7x7 window, range 1: (n,).

    Channel by channel, sample covariance, places whose window fits in the picture: scikit-image's default.
    """
    a, b = images.double(), reference.double()
    count = _WINDOW * _WINDOW
    sample = count / (count - 1)

    def local(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, stride=1)

    ma, mb = local(a), local(b)
    va, vb = sample * (local(a * a) - ma * ma), sample * (local(b * b) - mb * mb)
    cov = sample * (local(a * b) - ma * mb)
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return found.mean((1, 2, 3))


def pixcorr(images: Tensor, reference: Tensor) -> Tensor:
    """Pearson correlation over the flattened pixels of each picture; constant pictures count 0: (n,)."""
    return (_rows(images) * _rows(reference)).sum(1)


def two_way(features: Tensor, truth: Tensor) -> Tensor:
    """Share of distractors that each picture's own truth beats, by correlation: (n,); chance 0.5.

    For picture j: how often corr(truth j, picture j) > corr(truth i, picture j), i != j; ties count half.
    """
    likeness = _rows(truth) @ _rows(features).T  # truth, picture
    own = likeness.diagonal()
    n = len(own)
    wins = (own[None] > likeness).double().sum(0) + 0.5 * ((own[None] == likeness).double().sum(0) - 1)
    return wins / max(1, n - 1)


def relative_l2(latents: Tensor, reference: Tensor) -> Tensor:
    """Norm of the difference over the norm of the reference, each sample: (n,)."""
    gap = (latents.double() - reference.double()).flatten(1).norm(dim=1)
    return gap / reference.double().flatten(1).norm(dim=1).clamp(min=1e-30)


def sqnr_db(latents: Tensor, reference: Tensor) -> Tensor:
    """Signal to quantization noise of each sample in dB, at most `SQNR_CAP`: (n,)."""
    return (-20 * relative_l2(latents, reference).clamp(min=1e-30).log10()).clamp(max=SQNR_CAP)


def _rows(x: Tensor) -> Tensor:
    flat = x.double().flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-9, centred / length.clamp(min=1e-30), torch.zeros_like(centred))
