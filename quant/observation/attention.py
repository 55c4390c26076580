"""Where attention goes: mass on each key, and how the probabilities are spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quant.observation import bins
from quant.observation.stats import AttentionStats


class AttentionObserver:
    """Look at the probabilities of one attention module (by a `Watcher`), changing nothing.

    Memory: one number for each key and head and two histograms for each timestep.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.cross = name, getattr(module, "is_cross_attention", None)
        self.kind = ""
        self.mass = self.head_mass = self.leading = self.rest = torch.empty(0)
        self.calls = 0
        self.steps: list[tuple[Any, ...]] = []

    def __call__(self, scores: Tensor, values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take in probabilities (batch, heads, queries, keys)."""
        if not self.kind:
            across = scores.shape[-1] != scores.shape[-2] if self.cross is None else self.cross
            self.kind = "cross" if across else "self"
        batch = scores.shape[0]
        mass = scores.sum((0, 1, 2), dtype=torch.float64) / (scores.shape[1] * scores.shape[2])
        head = scores[..., 0].sum((0, 2), dtype=torch.float64) / scores.shape[2]
        leading = bins.count(scores[..., :1].reshape(-1, 1), 1)[0].long()
        rest = bins.count(scores[..., 1:].reshape(-1, 1), 1)[0].long()
        found = (mass, head, leading, rest)
        if self.calls and len(mass) == len(self.mass):
            found = tuple(
                a + b
                for a, b in zip((self.mass, self.head_mass, self.leading, self.rest), found, strict=True)
            )
            batch += self.calls
        self.mass, self.head_mass, self.leading, self.rest = found
        self.calls = batch
        return scores, values

    def close(self, timestep: float) -> None:
        """End a timestep."""
        if not self.calls:
            return
        mass, head = (self.mass / self.calls).float(), (self.head_mass / self.calls).float()
        arrays = (t.cpu().numpy() for t in (mass, head, self.leading, self.rest))
        self.steps.append((np.float64(timestep), *arrays))
        self.calls = 0

    def result(self) -> AttentionStats | None:
        """Everything seen; None if the module never ran, or with a changing number of keys."""
        if not self.steps or len({len(step[1]) for step in self.steps}) != 1:
            return None
        return AttentionStats(
            self.name, self.kind, *(np.stack(column) for column in zip(*self.steps, strict=True))
        )
