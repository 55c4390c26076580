"""Made-up subjects and targets, small enough that a decoder trains in a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from brainit.config import BrainITConfig, parse_config
from brainit.subject import Subject
from brainit.training.targets import Targets, TargetTable

TINY: dict[str, Any] = {
    "model": {"width": 16, "heads": 2, "depth": 1, "dropout": 0.1},
    "clusters": {"n_clusters": 4},
    "train": {"epochs": 3, "batch": 8, "patience": 3, "positions": [4, 2], "validation": 0.25},
}


@dataclass(frozen=True)
class Sample:
    """Subjects who saw the same pictures, and the pictures' targets."""

    subjects: list[Subject]
    table: TargetTable


def make_sample(
    n_subjects: int = 1, n_train: int = 24, n_test: int = 5, n_voxels: int = 30, seed: int = 0
) -> Sample:
    """Voxels are noisy linear mixtures of eight latent numbers, from which the targets are made too."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    latent = rng.standard_normal((n, 8))
    ids = np.array([f"p{i:03d}" for i in range(n)])
    tokens = latent @ rng.standard_normal((8, 3 * 5))
    maps = [latent @ rng.standard_normal((8, c * h * h)) for c, h in ((2, 4), (3, 2))]
    structure = [
        torch.from_numpy(m.reshape(n, c, h, h)).float()
        for m, (c, h) in zip(maps, ((2, 4), (3, 2)), strict=True)
    ]
    targets = Targets(torch.from_numpy(tokens.reshape(n, 3, 5)).float(), structure)
    zeros = np.zeros(n, int)
    subjects = []
    for index in range(n_subjects):
        betas = latent @ rng.standard_normal((8, n_voxels + index)) + 0.5 * rng.standard_normal(
            (n, n_voxels + index)
        )
        subjects.append(
            Subject(
                dataset="made-up",
                name=f"S{index + 1}",
                simulated=True,
                betas=betas.astype(np.float32),
                xyz=rng.standard_normal((n_voxels + index, 3)).astype(np.float32),
                stimulus_id=ids,
                session=zeros,
                run=np.arange(n) % 4,
                repeat=zeros,
                split=np.array(["train"] * n_train + ["test"] * n_test),
                labels=np.where(latent[:, 0] > 0, "cat", "house"),
                roi={"V1": np.arange(n_voxels + index) < 10, "V2": np.arange(n_voxels + index) >= 20},
            )
        )
    return Sample(subjects, TargetTable(list(ids), targets))


@pytest.fixture
def sample() -> Sample:
    """One subject, 24 training and 5 test trials, 30 voxels."""
    return make_sample()


@pytest.fixture
def pair() -> Sample:
    """Two subjects with 30 and 31 voxels."""
    return make_sample(2)


@pytest.fixture
def tiny_config() -> BrainITConfig:
    """Settings of a decoder that trains in a second."""
    return parse_config(TINY)
