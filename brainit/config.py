"""Settings of Brain-IT, each with bounds and a help text; presets for NSD-sized and for small data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from brainit.errors import InputError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Config):
    """Sizes of the tokenizer and the cross-transformer."""

    width: int = Field(512, ge=8, le=2048, description="Width of voxel embeddings, brain tokens and queries.")
    heads: int = Field(8, ge=1, le=32, description="Attention heads; must divide the width.")
    depth: int = Field(5, ge=0, le=24, description="Self-attention blocks; there is one cross block more.")
    mlp_ratio: float = Field(4.0, ge=0.5, le=8, description="Hidden width of the MLPs over the width.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout in attention and MLP outputs (published: none)."
    )
    shared: bool = Field(
        False,
        description="One network for tokens and structure instead of two (published: two). Halves time and "
        "memory.",
    )
    init_std: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Spread of initial embeddings and queries; empty: 0.1 / (2 sqrt(width)) as published.",
    )
    voxel_gain: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Spread of a cluster's pooled response at the start; 0: embeddings as published.",
    )
    query_std: float | None = Field(
        None, gt=0, le=10, description="Spread of initial queries; empty: as init_std."
    )
    functional_init: bool = Field(
        False,
        description="Start voxel embeddings from the image-to-fMRI encoder's instead of random numbers.",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ClusterConfig(_Config):
    """How voxels are grouped."""

    method: Literal["auto", "gmm", "gmm-diag", "kmeans", "profiles", "roi", "anatomical", "random"] = Field(
        "auto",
        description="gmm / gmm-diag / kmeans on encoder embeddings; profiles: k-means on responses to "
        "training trials; "
        "roi: labels of the data set; anatomical and random are controls. auto: profiles for one subject "
        "under 5000 "
        "voxels, kmeans for several, gmm above.",
    )
    n_clusters: int = Field(
        0,
        ge=0,
        le=4096,
        description="Clusters shared by all subjects; 0: 128, or 32 for data under 5000 voxels.",
    )


class TrainConfig(_Config):
    """Optimisation and when to stop."""

    epochs: int = Field(75, ge=1, le=100_000, description="Most epochs.")
    patience: int = Field(
        12,
        ge=1,
        description="Epochs without a better validation loss before training stops; above `plateau`.",
    )
    batch: int = Field(128, ge=1, le=8192, description="Trials a step, all of one subject.")
    steps_per_epoch: int = Field(
        0, ge=0, description="Steps between two validations; 0: one pass over the training trials."
    )
    lr: float = Field(5e-4, gt=0, le=1, description="AdamW learning rate.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW weight decay.")
    warmup_epochs: int = Field(15, ge=0, description="Epochs of cubic warm-up from a thousandth of the rate.")
    plateau: int = Field(5, ge=1, description="Epochs without improvement before the rate falls to a tenth.")
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0: no clipping (published: none).")
    validation: float = Field(
        0.1,
        gt=0,
        lt=0.9,
        description="Share of training stimuli held out for early stopping and calibration.",
    )
    structure_loss: Literal["infonce+mse", "mse", "infonce"] = Field(
        "infonce+mse", description="Loss of the structural maps: InfoNCE + 0.75 MSE, or one of the two alone."
    )
    structure_weight: float = Field(
        1.0, ge=0, le=100, description="Weight of the structural loss beside the tokens' MSE."
    )
    voxel_draws: int = Field(
        15_000, ge=0, description="Voxels drawn with replacement for each training trial; 0: all voxels."
    )
    positions: list[int] = Field(
        [512, 512, 128, 64, 16],
        description="Structural positions drawn a step in each scale; scales beyond the list, or smaller, "
        "use all.",
    )
    time_budget_s: float = Field(
        0.0,
        ge=0,
        description="Stop after this many seconds of training; 0: no limit. The result then depends on the "
        "clock.",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Fixes initial weights, data order, validation split and noise."
    )


class CareConfig(_Config):
    """What helps where there are few trials. `brainit.training.ablation` scores it on training trials."""

    ridge: bool = Field(
        True, description="Fit the ridge baseline too; switch off only where targets are too large for it."
    )
    folds: int = Field(
        1,
        ge=1,
        le=20,
        description="Networks trained, each validated on another part of the stimuli and averaged; 1: one.",
    )
    residual_on_ridge: bool = Field(
        False,
        description="The network predicts what ridge leaves over (from leave-one-out ridge predictions).",
    )
    calibrate: Literal["none", "shrink", "stack"] = Field(
        "none",
        description="On out-of-fold predictions: shrink the network's output towards the mean picture (or "
        "towards ridge), "
        "or stack network and ridge with non-negative weights, one pair for each part.",
    )
    beta_noise: float = Field(
        0.0, ge=0, le=5, description="Gaussian noise added to z-scored betas in training, in sd."
    )
    mixup: float = Field(0.0, ge=0, le=1, description="Share of training trials blended with another trial.")
    voxel_dropout: float = Field(0.0, ge=0, lt=1, description="Share of voxels hidden from a training trial.")
    average_repeats: bool = Field(
        True,
        description="Average the trials of a training stimulus first (published: yes), as is done at test.",
    )
    synthetic_share: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Share of a batch made of external pictures with fMRI predicted by the encoder, where "
        "those are given.",
    )
    synthetic_noise: float = Field(
        0.7,
        ge=0,
        le=5,
        description="Noise of synthetic fMRI over the encoder's residual (its covariance is kept); below 1 "
        "because ridge "
        "shrinks the signal that the encoder predicts.",
    )

    @model_validator(mode="after")
    def _ridge_is_there(self) -> CareConfig:
        if not self.ridge and (self.residual_on_ridge or self.calibrate == "stack"):
            raise ValueError("residual_on_ridge and calibrate = stack need ridge = true")
        return self


class BrainITConfig(_Config):
    """All settings of one Brain-IT decoder."""

    preset: str = Field("nsd", description="Name of the preset these settings started from.")
    model: ModelConfig = ModelConfig()
    clusters: ClusterConfig = ClusterConfig()
    train: TrainConfig = TrainConfig()
    care: CareConfig = CareConfig()
    encoder_components: int = Field(
        0,
        ge=0,
        le=4096,
        description="Principal components of picture features the encoder sees; 0: a sixth of the trials, 8 "
        "to 64.",
    )
    encoder_rank: int = Field(
        32, ge=2, le=1024, description="Length of the image-to-fMRI encoder's voxel embeddings."
    )


_SMALL: dict[str, Any] = {
    "model": {
        "width": 96,
        "heads": 4,
        "depth": 2,
        "mlp_ratio": 2.0,
        "shared": True,
        "init_std": 0.1,
        "voxel_gain": 0.3,
        "query_std": 1.0,
        "functional_init": True,
    },
    "train": {
        "epochs": 15,
        "patience": 4,
        "batch": 48,
        "lr": 3e-3,
        "weight_decay": 0.05,
        "warmup_epochs": 1,
        "plateau": 2,
        "validation": 0.15,
        "structure_loss": "mse",
        "voxel_draws": 0,
        "positions": [16, 8, 4],
    },
    "care": {"calibrate": "stack"},
}

# Under about 200 trials: a smaller network, trained longer on synthetic fMRI where external pictures are
# given, and three of them, so that every training trial has an out-of-fold prediction to calibrate on.
_FEW: dict[str, Any] = {
    "model": {**_SMALL["model"], "width": 64, "depth": 1},
    "train": {**_SMALL["train"], "epochs": 10, "batch": 32, "steps_per_epoch": 25, "lr": 4e-3},
    "care": {"calibrate": "stack", "folds": 3},
}

# Thousands of trials: more clusters, more positions a step, and training until it stops helping. Sized by
# left-out training trials of a simulated subject; about ten minutes on one core.
_LARGE: dict[str, Any] = {
    "model": _SMALL["model"],
    "clusters": {"method": "kmeans", "n_clusters": 64},
    "train": {**_SMALL["train"], "epochs": 20, "positions": [32, 16, 16]},
    "care": {"calibrate": "stack"},
}

PRESETS: dict[str, dict[str, Any]] = {
    "nsd": {"care": {"ridge": False}},
    "small": _SMALL,
    "few": _FEW,
    "large": _LARGE,
}


def parse_config(values: Mapping[str, Any] | None = None, *, preset: str = "small") -> BrainITConfig:
    """Build settings from a preset and nested overrides.

    Parameters
    ----------
    values : mapping, optional
        Overrides such as ``{"train": {"epochs": 5}}``.
    preset : str
        "nsd" (published sizes), "large" (thousands of trials), "small" (hundreds of trials, CPU) or "few"
        (under about 200 trials).

    Raises
    ------
    InputError
        One line naming the first field that is wrong, its value and what is allowed.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown Brain-IT preset {preset!r}; choose one of {sorted(PRESETS)}")
    merged = _merge(_merge({"preset": preset}, PRESETS[preset]), values or {})
    try:
        return BrainITConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(
            f"Brain-IT setting {where} = {_short(first['input'])}: {first['msg']}{more}"
        ) from None


def override(config: BrainITConfig, values: Mapping[str, Any]) -> BrainITConfig:
    """Return ``config`` with nested overrides, validated."""
    return parse_config(_merge(config.model_dump(), values), preset=config.preset)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in extra.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merge(out[key], value) if nested else value
    return out
