"""What a grid would do to a layer's input, from its histograms alone: no model, no second pass.

A bin is an eighth of an octave wide; its values are taken as spread evenly over `POINTS` places. That is
exact where steps are narrower than bins or wider than many of them, and good to a few hundredths of a decibel
between (a test compares it with rounding the values themselves).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from quant.errors import InputError
from quant.formats.grids import Grid
from quant.observation import bins
from quant.observation.stats import TensorStats

POINTS = 16
"""Places in a bin that stand for its values: odd multiples of half a sixteenth, none on an edge."""
Shared = Literal["tensor", "channel"]


@dataclass(frozen=True)
class WhatIf:
    """What rounding one tensor would do.

    Parameters
    ----------
    mse : float
        Mean squared error over all values seen.
    sqnr_db : float
        Signal to quantization noise, 10 log10(mean x^2 / mse), in decibel.
    clipped : float
        Share of the values beyond the clip range, 0 to 1.
    zeroed : float
        Share of the values that become 0 although they are not in the bin around 0.
    low, high : float
        Clip range; per channel, of the widest channel.
    levels : array of shape (n,)
        Values that the grid can represent in that range, ascending.
    """

    mse: float
    sqnr_db: float
    clipped: float
    zeroed: float
    low: float
    high: float
    levels: np.ndarray


def what_if(stats: TensorStats, grid: Grid, shared: Shared = "tensor", clip: float = 1.0) -> WhatIf:
    """Round what was seen of a tensor to a grid whose scales cover ``clip`` times the range.

    Parameters
    ----------
    stats : TensorStats
    grid : Grid
    shared : {"tensor", "channel"}
        Who shares a scale: all values, or those of one channel.
    clip : float
        0.01 to 1; 1 covers everything seen.

    Raises
    ------
    InputError
        ``clip`` or ``shared`` out of bounds, or nothing was counted.
    """
    if not 0.01 <= clip <= 1:
        raise InputError(f"clip {clip:g}: must be 0.01 to 1 (1 covers everything seen)")
    if shared not in ("tensor", "channel"):
        raise InputError(f"scales shared by {shared!r}; allowed: 'tensor', 'channel'")
    counts = stats.channel_histogram if shared == "channel" else stats.channel_histogram.sum(0, keepdims=True)
    least, most = stats.channel["min"].min(0), stats.channel["max"].max(0)
    if shared == "tensor":
        least, most = least.min(keepdims=True), most.max(keepdims=True)
    low, high = clip * least, clip * most
    used = np.flatnonzero(counts.sum(0))
    if not len(used):
        raise InputError(f"nothing was counted of {stats.key}; observe it again")
    points = _points()[used]
    weight = torch.from_numpy(counts[:, used].astype(np.float32))
    ends = torch.from_numpy(np.stack([low, high]).astype(np.float32)).unsqueeze(-1)
    params = grid.fit_range(ends[0], ends[1], False, torch.float32)
    seen = torch.from_numpy(np.stack([least, most]).astype(np.float32)).unsqueeze(-1)
    # the outermost bins reach beyond what was seen
    x = points.reshape(1, -1).expand(len(weight), -1).clamp(seen[0], seen[1])
    rounded = grid.fake(x.contiguous().clone(), params)
    error = (rounded - x).square().reshape(len(weight), -1, POINTS).mean(-1)
    outside = ((x < ends[0]) | (x > ends[1])).float().reshape(len(weight), -1, POINTS).mean(-1)
    nothing = (
        ((rounded == 0) & (x.abs() >= 2.0**bins.LOWEST)).float().reshape(len(weight), -1, POINTS).mean(-1)
    )
    total = float(weight.double().sum())
    signal = x.square().reshape(len(weight), -1, POINTS).mean(-1)
    mse, power = (float((weight * v).double().sum()) / total for v in (error, signal))
    widest = int((high - low).argmax())
    levels = _levels(grid, {k: v[widest : widest + 1] for k, v in params.items()}, low[widest], high[widest])
    return WhatIf(
        mse=mse,
        sqnr_db=10 * math.log10(power / mse) if mse > 0 and power > 0 else math.inf,
        clipped=float((weight * outside).double().sum()) / total,
        zeroed=float((weight * nothing).double().sum()) / total,
        low=float(low[widest]),
        high=float(high[widest]),
        levels=levels,
    )


@lru_cache(maxsize=1)
def _points() -> torch.Tensor:
    """Places that stand for each bin's values, float32 (BINS, POINTS)."""
    edges = bins.edges()
    inside = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
    return (edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * inside).float()


def _levels(grid: Grid, params: dict[str, torch.Tensor], low: float, high: float) -> np.ndarray:
    """Values of a grid in a range: everything that rounding a fine ramp gives."""
    ramp = torch.linspace(float(low), float(high), 8192).reshape(1, -1)
    return np.unique(grid.fake(ramp, params).numpy())
