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

    def points(self, each: int, groups: slice) -> tuple[Tensor, Tensor]:
        """Values (n, points) that stand for the entries of some groups, and how many each stands for.

        `each` values a bin, evenly spread: entries are taken as uniform inside a bin and end at the exact
        extremes. One value a bin would all fall on one side of a code where codes are finer than bins.
        """
        octave = LOWEST_OCTAVE + torch.arange(_HALF + 1, device=self.counts.device) / BINS_PER_OCTAVE
        edges, zero = torch.exp2(octave), octave.new_zeros(1)
        lower = torch.cat([-edges[1:].flip(0), zero, edges[:-1]])
        upper = torch.cat([-edges[:-1].flip(0), zero, edges[1:]])
        lower[0], upper[-1] = -torch.inf, torch.inf  # the outermost bins have no end
        counts = self.counts[groups]
        used = counts.any(0)
        low, high = self.low[groups, None], self.high[groups, None]
        lower, upper = lower[used].clamp(low, high), upper[used].clamp(low, high)
        share = (torch.arange(each, device=counts.device) + 0.5) / each
        values = lower[..., None] + (upper - lower)[..., None] * share
        weights = (counts[:, used, None] / each).expand_as(values)
        return values.flatten(1), weights.flatten(1)

    def quantile(self, share: float) -> Tensor:
        """Value below which `share` of the entries lie, (groups,), inside the exact extremes."""
        cumulative = self.counts.cumsum(1)
        target = (cumulative[:, -1:].double() * share).floor().clamp(max=cumulative[:, -1:] - 1)
        index = torch.searchsorted(cumulative.double(), target, right=True).clamp(max=2 * _HALF)
        values = self.centres()[0][index[:, 0]]
        return torch.minimum(torch.maximum(values, self.low), self.high)
