"""A signed logarithmic histogram: bounded memory, mergeable, good to 9 % at any magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST_OCTAVE, HIGHEST_OCTAVE, BINS_PER_OCTAVE = -24, 24, 8
_HALF = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE


class LogHistogram:
    """Counts of values by sign and log2 magnitude, one histogram a group.

    Attributes
    ----------
    counts : int64 tensor of shape (groups, 2 * 384 + 1)
        Negative magnitudes from large to small, one bin for |x| below 2^-24, then positive ones.
    low, high : tensor of shape (groups,)
        Exact extremes.
    """

    def __init__(self, groups: int, device: torch.device) -> None:
        self.counts = torch.zeros(groups, 2 * _HALF + 1, dtype=torch.int64, device=device)
        self.low = torch.full((groups,), torch.inf, device=device)
        self.high = torch.full((groups,), -torch.inf, device=device)

    def update(self, rows: Tensor) -> None:
        """Add a (groups, entries) batch."""
        rows = rows.float()
        octave = torch.log2(rows.abs().clamp(min=2.0 ** (LOWEST_OCTAVE - 1)))
        index = torch.floor((octave - LOWEST_OCTAVE) * BINS_PER_OCTAVE).long().clamp(max=_HALF - 1)
        index = torch.where(index < 0, _HALF, torch.where(rows < 0, _HALF - 1 - index, _HALF + 1 + index))
        self.counts.scatter_add_(1, index, torch.ones_like(index))
        self.low = torch.minimum(self.low, rows.amin(1))
        self.high = torch.maximum(self.high, rows.amax(1))

    def centres(self) -> Tensor:
        """Value of each bin, (1, bins); geometric middle of the bin."""
        octave = LOWEST_OCTAVE + (torch.arange(_HALF, device=self.counts.device) + 0.5) / BINS_PER_OCTAVE
        positive = torch.exp2(octave)
        zero = torch.zeros(1, device=self.counts.device)
        return torch.cat([-positive.flip(0), zero, positive])[None]

    def quantile(self, share: float) -> Tensor:
        """Value below which `share` of the entries lie, (groups,), inside the exact extremes."""
        cumulative = self.counts.cumsum(1)
        target = (cumulative[:, -1:].double() * share).floor().clamp(max=cumulative[:, -1:] - 1)
        index = torch.searchsorted(cumulative.double(), target, right=True).clamp(max=2 * _HALF)
        values = self.centres()[0][index[:, 0]]
        return torch.minimum(torch.maximum(values, self.low), self.high)
