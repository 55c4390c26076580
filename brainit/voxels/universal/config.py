"""Settings of the universal encoder: the published ones, and a small set for a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brainit.errors import InputError


class EncoderConfig(BaseModel):
    """All settings of one universal encoder; the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("published", description="Name of the preset these settings started from.")
    taps: tuple[int, ...] = Field(
        (1, 6, 12, 18, 24),
        min_length=1,
        description="Blocks after which the backbone is read, from 1; 0: what goes into the first block.",
    )
    bypass_rank: int = Field(
        7,
        ge=0,
        le=256,
        description="Rank of the trained bypass of the residual stream after every block; 0: the backbone "
        "stays as it is, and pictures go through it once.",
    )
    bypass_scale: float = Field(0.01, gt=0, le=10, description="The bypass counts this much over its rank.")
    features: int = Field(128, ge=4, le=2048, description="Width that each tap is brought to.")
    embedding: int = Field(256, ge=4, le=2048, description="Length of a voxel's embedding.")
    embedding_std: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Spread of initial embeddings; empty: 0.1 / (2 sqrt(length)) as published.",
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of what a voxel attends to.")
    cosine: float = Field(
        0.1, ge=0, le=10, description="The loss is the mean squared error less this times the mean cosine."
    )
    voxel_draws: int = Field(
        5000,
        ge=0,
        description="Voxels drawn with replacement for each step; 0: all voxels.",
    )
    shift: int = Field(
        3,
        ge=0,
        le=64,
        description="Training pictures are shifted by up to so many pixels of the backbone's input.",
    )
    lr: float = Field(1e-3, gt=0, le=1, description="Adam (amsgrad) learning rate.")
    batch: int = Field(32, ge=1, le=8192, description="Trials a step, all of one subject.")
    epochs: int = Field(30, ge=1, le=10_000, description="Passes over the training trials.")
    plateau: int = Field(
        4, ge=1, description="Epochs without a better validation score before the rate falls to a tenth."
    )
    validation: float = Field(
        0.1, ge=0, lt=0.9, description="Share of training pictures held out; 0: none, the last epoch is kept."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Fixes initial weights, data order and draws.")


# Found on left-out training trials of the simulated preset "small" with the zoo's encoder as backbone.
_SMALL: dict[str, Any] = {
    "taps": (0, 2, 4),
    "bypass_rank": 0,
    "features": 32,
    "embedding": 64,
    "embedding_std": 0.02,
    "voxel_draws": 400,
    "shift": 0,
    "lr": 4e-3,
    "epochs": 12,
    "plateau": 2,
}

PRESETS: dict[str, dict[str, Any]] = {"published": {}, "small": _SMALL}


def parse_encoder(values: Mapping[str, Any] | None = None, *, preset: str = "small") -> EncoderConfig:
    """Build settings from a preset and overrides.

    Raises
    ------
    InputError
        One line naming the first setting that is wrong, its value and what is allowed.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown voxel encoder preset {preset!r}; choose one of {sorted(PRESETS)}")
    try:
        return EncoderConfig.model_validate({"preset": preset, **PRESETS[preset], **(values or {})})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"]) or "config"
        raise InputError(f"voxel encoder setting {name} = {first['input']!r}: {first['msg']}") from None
