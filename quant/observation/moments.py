"""Mean, variance, skewness and kurtosis that can be merged: central sums up to the fourth power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Moments:
    """Count, mean and central sums ``sum (x - mean)^k`` of k = 2, 3, 4; all float64 of one shape."""

    n: Tensor
    mean: Tensor
    m2: Tensor
    m3: Tensor
    m4: Tensor

    @classmethod
    def of(cls, x: Tensor, dims: tuple[int, ...]) -> Moments:
        """Take the moments of a tensor over some of its axes."""
        size = x.numel() // max(1, _kept(x, dims))
        x = x.float()
        near = x.mean(dims, keepdim=True)  # float32: what it is off by is put right below
        d = x - near
        d2 = d * d
        rest, m2, m3, m4 = (p.sum(dims, dtype=torch.float64) for p in (d, d2, d2 * d, d2 * d2))
        shift = rest / size
        mean = near.double().reshape(m2.shape) + shift
        m4 = m4 - 4 * shift * m3 + 6 * shift**2 * m2 - 3 * size * shift**4
        m3 = m3 - 3 * shift * m2 + 2 * size * shift**3
        return cls(torch.full_like(mean, size), mean, m2 - size * shift**2, m3, m4)

    @classmethod
    def from_fields(cls, fields: Mapping[str, np.ndarray]) -> Moments:
        """Rebuild from count, mean, var, skewness and kurtosis."""
        n, mean, var, skewness, kurtosis = (
            torch.from_numpy(np.asarray(fields[name], np.float64))
            for name in ("count", "mean", "var", "skewness", "kurtosis")
        )
        return cls(n, mean, n * var, n * skewness * var**1.5, n * kurtosis * var**2)

    @classmethod
    def merge(cls, parts: list[Moments]) -> Moments:
        """Put several sets together, entry by entry (Pebay 2008, eq. 3.1, for many sets at once)."""
        return cls(*(torch.stack(field) for field in zip(*(p.fields() for p in parts), strict=True))).over(0)

    def over(self, axis: int) -> Moments:
        """Put the entries along one axis together."""
        n = self.n.sum(axis)
        mean = (self.n * self.mean).sum(axis) / n.clamp(min=1)
        d = self.mean - mean.unsqueeze(axis)
        m2 = (self.m2 + self.n * d**2).sum(axis)
        m3 = (self.m3 + 3 * d * self.m2 + self.n * d**3).sum(axis)
        m4 = (self.m4 + 4 * d * self.m3 + 6 * d**2 * self.m2 + self.n * d**4).sum(axis)
        return Moments(n, mean, m2, m3, m4)

    def fields(self) -> tuple[Tensor, ...]:
        """Return the five tensors."""
        return self.n, self.mean, self.m2, self.m3, self.m4

    @property
    def var(self) -> Tensor:
        """Population variance."""
        return self.m2.clamp(min=0) / self.n.clamp(min=1)

    @property
    def rms(self) -> Tensor:
        """Root of the mean square."""
        return (self.var + self.mean**2).sqrt()

    @property
    def skewness(self) -> Tensor:
        """``m3 sqrt(n) / m2^1.5``; 0 where nothing varies."""
        scale = self.m2.clamp(min=0) ** 1.5
        return torch.where(
            scale > 0, self.n.sqrt() * self.m3 / scale.clamp(min=1e-300), torch.zeros_like(scale)
        )

    @property
    def kurtosis(self) -> Tensor:
        """``m4 n / m2^2``: 3 for a Gaussian, 0 where nothing varies."""
        square = self.m2**2
        return torch.where(square > 0, self.n * self.m4 / square.clamp(min=1e-300), torch.zeros_like(square))


def _kept(x: Tensor, dims: tuple[int, ...]) -> int:
    kept = 1
    for axis, size in enumerate(x.shape):
        if axis not in dims:
            kept *= size
    return kept
