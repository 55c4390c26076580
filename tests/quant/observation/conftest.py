"""A model whose inputs, weights and attention are planted, and a recording of it that is plain noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

import quant

CHANNELS, SIDE, TOKENS, WIDTH = 64, 4, 9, 24
SALIENT, GAIN = (5, 40), 100.0
MILD = ((1, 3), (4, 17), (7, 30), (9, 44), (12, 51), (14, 60))  # (token, channel), each in its own channel
HOT_CHANNEL, HOT_PIXEL, HEAT = 11, (2, 1), 50.0
WEIGHT_ROW = 2


class Planted(nn.Module):
    """The recorded x (n, 64, 4, 4) is unit noise at all timesteps, since the prediction is zero."""

    def __init__(self, sink: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sink = sink
        self.salient, self.mild, self.drift = (nn.Linear(CHANNELS, 8) for _ in range(3))
        self.by_channel, self.by_pixel = nn.Conv2d(CHANNELS, 8, 1), nn.Conv2d(CHANNELS, 8, 3, padding=1)
        self.plain, self.unused = nn.Linear(CHANNELS, 96), nn.Linear(4, 4)
        self.attn = Attention(CHANNELS, cross_attention_dim=WIDTH, heads=2, dim_head=8)
        with torch.no_grad():
            self.plain.weight[WEIGHT_ROW] *= 30
            for projection in (self.attn.to_q, self.attn.to_k):
                projection.weight.mul_(0.02)
                projection.weight[:, 0] = 0
                projection.weight[::8, 0] = 1.0  # first feature of each head

    def forward(self, x: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        large = torch.ones(CHANNELS)
        large[list(SALIENT)] = GAIN
        self.salient(tokens * large)
        spots = torch.ones(TOKENS + 7, CHANNELS)
        for token, channel in MILD:
            spots[token, channel] = 20.0
        self.mild(tokens.clamp(-2, 2) * spots)
        self.drift(tokens * (1 + 9 * timestep[0] / 1000))
        hot = torch.ones_like(x)
        hot[:, HOT_CHANNEL] = HEAT
        self.by_channel(x * hot)
        hot = torch.ones_like(x)
        hot[:, :, HOT_PIXEL[0], HOT_PIXEL[1]] = HEAT
        self.by_pixel(x * hot)
        self.plain(tokens)
        # half of the queries are drawn to the sink, the others look everywhere alike
        queries, keys = tokens.clone(), encoder_hidden_states.clone()
        queries[:, :8, 0], queries[:, 8:, 0] = 8.0, 0.0
        keys[..., 0] = 0.0
        if self.sink >= 0:
            keys[:, self.sink, 0] = 8.0
        self.attn(queries, encoder_hidden_states=keys)
        return torch.zeros_like(x)


def record(
    folder: Any, count: int = 24, steps: int = 4, model: nn.Module | None = None
) -> quant.Trajectories:
    tokens = torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3))
    return quant.record(
        model or Planted(), FlowMatchEulerDiscreteScheduler(), tokens, folder,
        n_steps=steps, shape=(CHANNELS, SIDE, SIDE),
    )  # fmt: skip


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> quant.Trajectories:
    return record(tmp_path_factory.mktemp("planted") / "r")


@pytest.fixture(scope="session")
def seen(store: quant.Trajectories) -> quant.Observation:
    return quant.observe(Planted(), store)


@pytest.fixture(scope="session")
def planted() -> SimpleNamespace:
    return SimpleNamespace(
        build=Planted, record=record, salient=SALIENT, gain=GAIN, mild=MILD, hot_channel=HOT_CHANNEL,
        hot_pixel=HOT_PIXEL, heat=HEAT, weight_row=WEIGHT_ROW, side=SIDE, tokens=TOKENS,
    )  # fmt: skip
