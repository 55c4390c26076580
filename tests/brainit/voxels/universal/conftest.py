"""A backbone of four tokens, and subjects whose voxels are mixtures of what it sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from brainit.subject import Subject
from brainit.voxels.universal import Backbone, EncoderConfig, parse_encoder


class _Stem(nn.Module):
    """Quarters of an 8x8 picture as tokens, behind one token of zeros and two registers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.read = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.read(images).flatten(2).transpose(1, 2)
        return torch.cat([torch.zeros_like(tokens[:, :3]), tokens], 1)


class _Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * 1.5)


def make_backbone() -> Backbone:
    """Two blocks of width 8, five positions seen: the first token and four quarters."""
    return Backbone(_Stem(), [_Block(), _Block()], name="toy", width=8, side=8, skip=slice(1, 3))


@dataclass(frozen=True)
class World:
    """Subjects, a backbone, and small settings."""

    subjects: list[Subject]
    backbone: Backbone
    config: EncoderConfig

    def pictures(self, ids: list[str]) -> torch.Tensor:
        """Stack pictures by id: float32 (n, 3, 8, 8)."""
        stimuli = {k: v for s in self.subjects for k, v in s.stimuli.items()}
        return torch.from_numpy(np.stack([stimuli[key] for key in ids])).movedim(-1, 1)


def make_world(n_train: int = 160, n_test: int = 30, noise: float = 0.4) -> World:
    """Two subjects see the same pictures; a voxel adds up the channels of one quarter."""
    rng = np.random.default_rng(0)
    n = n_train + n_test
    images = rng.random((n, 2, 2, 3)).astype(np.float32).repeat(4, 1).repeat(4, 2)
    ids = np.array([f"p{i:03d}" for i in range(n)])
    quarters = images.reshape(n, 2, 4, 2, 4, 3).mean((2, 4)).reshape(n, 4, 3)
    subjects = []
    for number, voxels in enumerate((24, 32)):
        where = np.arange(voxels) % 4
        tuning = rng.standard_normal((voxels, 3))
        clean = np.einsum("nvc,vc->nv", quarters[:, where], tuning)
        clean = (clean - clean.mean(0)) / clean.std(0)
        subjects.append(
            Subject(
                dataset="made-up", name=f"S{number + 1}.x", simulated=True,
                betas=(clean + noise * rng.standard_normal(clean.shape)).astype(np.float32),
                xyz=rng.standard_normal((voxels, 3)).astype(np.float32),
                stimulus_id=ids, session=np.zeros(n, int), run=np.zeros(n, int), repeat=np.zeros(n, int),
                split=np.array(["train"] * n_train + ["test"] * n_test),
                stimuli=dict(zip(ids.tolist(), images, strict=True)),
                noise_ceiling=np.full(voxels, 1 / (1 + noise**2), np.float32),
            )
        )  # fmt: skip
    values = {"taps": (0, 2), "features": 8, "embedding": 12, "voxel_draws": 0, "epochs": 15, "batch": 16}
    return World(subjects, make_backbone(), parse_encoder(values | {"lr": 1e-2, "dropout": 0.0}))


@pytest.fixture
def world() -> World:
    """See `make_world`."""
    return make_world()


@pytest.fixture
def few() -> World:
    """A world of few trials and two epochs, for what does not need a good fit."""
    world = make_world(n_train=24, n_test=6)
    return replace(world, config=world.config.model_copy(update={"epochs": 2}))
