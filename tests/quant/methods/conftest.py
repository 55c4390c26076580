"""Recordings of the tiny models, made once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant


@pytest.fixture(scope="session")
def recorded(tiny, tmp_path_factory) -> Callable[[str], quant.Trajectories]:
    """``recorded("unet")``: 6 samples of 3 steps of a tiny model with its seed 0 weights."""
    made: dict[str, quant.Trajectories] = {}

    def get(name: str) -> quant.Trajectories:
        if name not in made:
            conditions = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
            path = tmp_path_factory.mktemp(f"recorded-{name}")
            made[name] = quant.record(
                tiny.build(name), FlowMatchEulerDiscreteScheduler(), conditions, path, n_steps=3, batch_size=6
            )
        return made[name]

    return get
