"""A denoiser whose prediction can be written down."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """``x / 5 + mean of the condition + t / 1000``, and a layer to look at that sees the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.2))
        self.layer = nn.Linear(24, 24)
        self.pooled = nn.Conv2d(4, 2, (3, 1))

    def forward(self, x: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        self.layer(encoder_hidden_states)
        self.pooled(x)
        given = encoder_hidden_states.mean((1, 2))[:, None, None, None]
        return self.factor * x + given + timestep.reshape(-1, 1, 1, 1) / 1000
