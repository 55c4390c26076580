"""Random changes of training pictures that keep what they show."""

from __future__ import annotations

import torch


def flip(x: torch.Tensor) -> torch.Tensor:
    """Mirror a random half of the pictures (n, c, h, w) left to right."""
    chosen = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(-1), x)


def shift(x: torch.Tensor, most: int) -> torch.Tensor:
    """Move each picture by up to ``most`` pixels both ways, borders repeated."""
    n, _, h, w = x.shape
    dy, dx = torch.randint(-most, most + 1, (2, n, 1), device=x.device)
    rows = (torch.arange(h, device=x.device)[None] + dy).clamp(0, h - 1)
    cols = (torch.arange(w, device=x.device)[None] + dx).clamp(0, w - 1)
    at = torch.arange(n, device=x.device)[:, None, None]
    return x[at, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
