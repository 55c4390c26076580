"""Scores of pairs of pictures as tensors, on whatever device they are on; float64 inside.

The definitions of the house: `brainit.metrics.pixels` and `.identification` give the same for numpy arrays.
Everything takes ``(pictures, truth)`` of shape (n, C, H, W) in 0..1, or rows of features, and is not checked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 7
"""Side of the uniform window (scikit-image's default)."""
GAUSS_WINDOW = 11
"""Side of the Gaussian window (scikit-image's from sigma 1.5 and truncate 3.5)."""
GAUSS_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def eight_bit(images: Tensor) -> Tensor:
    """Round pictures in 0..1 to the 256 levels that a saved picture has."""
    return images.clamp(0, 1).mul(255).round().div(255)


def mse(images: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each picture: (n,)."""
    return (images.double() - truth.double()).square().flatten(1).mean(1)


def psnr(images: Tensor, truth: Tensor, cap: float = float("inf")) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, peak 1, at most `cap`: (n,)."""
    return (-10 * mse(images, truth).log10()).clamp(max=cap)


def ssim(images: Tensor, truth: Tensor, gaussian: bool = False) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004), range 1: (n,).

    Channel by channel, over the places whose window fits into the picture, as scikit-image.

    Parameters
    ----------
    gaussian : bool
        A window of 11 with sigma 1.5 and the population's covariance (the paper's form), in place of a
        uniform one of 7 with the sample's.
    """
    a, b = images.double(), truth.double()
    channels = a.shape[1]
    if gaussian:
        at = torch.arange(GAUSS_WINDOW, dtype=torch.float64, device=a.device) - GAUSS_WINDOW // 2
        line = torch.exp(-0.5 * (at / GAUSS_SIGMA) ** 2)
        line = (line / line.sum()).expand(channels, 1, -1)
        sample = 1.0
    else:
        count = SSIM_WINDOW * SSIM_WINDOW
        sample = count / (count - 1)

    def local(x: Tensor) -> Tensor:
        if not gaussian:
            return F.avg_pool2d(x, SSIM_WINDOW, stride=1)
        return F.conv2d(F.conv2d(x, line[:, :, None], groups=channels), line[..., None], groups=channels)

    ma, mb = local(a), local(b)
    va, vb = sample * (local(a * a) - ma * ma), sample * (local(b * b) - mb * mb)
    cov = sample * (local(a * b) - ma * mb)
    found = (2 * ma * mb + _C1) * (2 * cov + _C2) / ((ma**2 + mb**2 + _C1) * (va + vb + _C2))
    return found.mean((1, 2, 3))


def centred_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and normalise each row; also say which rows are constant (those become 0).

    Parameters
    ----------
    features : tensor of shape (n, ...)

    Returns
    -------
    rows : float64 tensor of shape (n, d)
        Mean 0 and length 1 per row, so that a product of two rows is their Pearson correlation.
    constant : bool tensor of shape (n,)
    """
    flat = features.double().flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    length = centred.norm(dim=1)
    # Rounding leaves a constant row with a tiny length, never exactly 0.
    largest = flat.abs().amax(1).clamp(min=1e-30)
    constant = length <= 1e-12 * largest * flat.shape[1] ** 0.5
    rows = centred / torch.where(constant, torch.ones_like(length), length)[:, None]
    return rows.masked_fill(constant[:, None], 0.0), constant


def pixcorr(images: Tensor, truth: Tensor) -> Tensor:
    """Pearson correlation over the flattened pixels of each picture; constant pictures count 0: (n,)."""
    return (centred_rows(images)[0] * centred_rows(truth)[0]).sum(1)


def correlations(features: Tensor, truth: Tensor) -> Tensor:
    """Correlation of every truth i with every picture j, [i, j]: (n, n); NaN where either is constant."""
    (ours, flat_ours), (theirs, flat_theirs) = centred_rows(features), centred_rows(truth)
    block = theirs @ ours.T
    block[flat_theirs] = torch.nan
    block[:, flat_ours] = torch.nan
    return block


def two_way(features: Tensor, truth: Tensor) -> Tensor:
    """Share of the other truths that each picture's own one beats by correlation, ties fail: (n,).

    Chance is .5. See `brainit.metrics.two_way` for the two forms; this is the evaluators'.
    """
    return beaten(correlations(features, truth))


def beaten(block: Tensor) -> Tensor:
    """Share of each column's n - 1 other entries below the one on the diagonal: (n,)."""
    below = block < block.diagonal()[None, :]  # NaN compares as False; the diagonal never beats itself
    return below.double().sum(0) / (len(block) - 1)
