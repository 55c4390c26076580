"""Fixed log-linear bins: eight to an octave, edges exact in floating point, the same on every device.

The bin of a value is read off its bit pattern (sign, exponent, first three bits of the mantissa), so no
logarithm is taken and a CPU and a GPU count alike. Edges are ``2^e (1 + i/8)``; magnitudes below
``2^LOWEST`` share one bin around zero, those from ``2^HIGHEST`` on fall into the outermost one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LOWEST, HIGHEST, SUB_BITS = -18, 16, 3
HALF = (HIGHEST - LOWEST) << SUB_BITS
BINS = 2 * HALF + 1
_SHIFT = 23 - SUB_BITS  # of a float32's 23 mantissa bits
_FIRST = (127 + LOWEST) << SUB_BITS


def magnitudes() -> Tensor:
    """Return the edges of the magnitudes, ascending, float64 (HALF + 1,)."""
    index = torch.arange(HALF + 1)
    return torch.exp2((index // 8 + LOWEST).double()) * (1 + (index % 8).double() / 8)


def edges() -> Tensor:
    """Return the edges of all bins, ascending, float64 (BINS + 1,)."""
    positive = magnitudes()
    return torch.cat([-positive.flip(0), positive])


def bin_index(x: Tensor) -> Tensor:
    """Return the bin of each value, int32 in [0, BINS)."""
    raw = x.float().contiguous().view(torch.int32)
    place = ((raw & 0x7FFFFFFF) >> _SHIFT) - _FIRST
    signed = torch.where(raw < 0, HALF - 1 - place.clamp(max=HALF - 1), HALF + 1 + place.clamp(max=HALF - 1))
    return torch.where(place < 0, HALF, signed)


def count(x: Tensor, groups: int) -> Tensor:
    """Count values by group (the last axis of `x`) and bin.

    Parameters
    ----------
    x : tensor of shape (..., groups)

    Returns
    -------
    int32 tensor of shape (groups, BINS)
    """
    flat = bin_index(x) + torch.arange(groups, device=x.device, dtype=torch.int32) * BINS
    return torch.bincount(flat.flatten(), minlength=groups * BINS).to(torch.int32).view(groups, BINS)


def quantiles(counts: Tensor, shares: Sequence[float], low: Tensor, high: Tensor) -> Tensor:
    """Values below which the given shares lie, linear inside a bin (12.5 % wide at most), within low..high.

    Parameters
    ----------
    counts : int tensor of shape (groups, BINS)
    shares : sequence of float, length q
    low, high : tensor of shape (groups,)
        Exact extremes.

    Returns
    -------
    float64 tensor of shape (groups, q)
    """
    return _quantiles(counts, edges().to(low.device), shares, low.double(), high.double())


def magnitude_quantiles(counts: Tensor, shares: Sequence[float], largest: Tensor) -> Tensor:
    """Do the same for magnitudes; `largest` (groups,) is the exact greatest magnitude."""
    folded = fold(counts)
    inner = torch.cat([torch.zeros(1, dtype=torch.float64), magnitudes()]).to(largest.device)
    return _quantiles(folded, inner, shares, torch.zeros_like(largest).double(), largest.double())


def fold(counts: Tensor) -> Tensor:
    """Add up both signs: (groups, HALF + 1), the bin around zero first."""
    positive, negative = counts[:, HALF + 1 :], counts[:, :HALF].flip(1)
    return torch.cat([counts[:, HALF : HALF + 1], positive + negative], 1)


def _quantiles(counts: Tensor, borders: Tensor, shares: Sequence[float], low: Tensor, high: Tensor) -> Tensor:
    total = counts.cumsum(1, dtype=torch.float64)
    target = total[:, -1:] * torch.tensor(list(shares), dtype=torch.float64, device=counts.device)
    place = torch.searchsorted(total, target.clamp(min=0.5)).clamp(max=counts.shape[1] - 1)
    inside = counts.gather(1, place).double().clamp(min=1)
    before = total.gather(1, place) - counts.gather(1, place)
    part = ((target - before) / inside).clamp(0, 1)
    value = borders[place] + part * (borders[place + 1] - borders[place])
    return torch.minimum(torch.maximum(value, low[:, None]), high[:, None])


def nearest_edge(value: float) -> int:
    """Index into `magnitudes` of the edge nearest to a positive value."""
    if not value > 0 or not math.isfinite(value):
        return 0
    return int((magnitudes().log2() - math.log2(value)).abs().argmin())


def beyond(counts: Tensor, edge: int) -> Tensor:
    """Exact number of values with |x| >= ``magnitudes()[edge]``, (groups,) int64."""
    return fold(counts)[:, edge + 1 :].sum(1)
