"""Settings of EDA-DM."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quant.registry import RUN


class EdaDmConfig(BaseModel):
    """Calibration samples by density and diversity; weights rounded by fine-grained block reconstruction."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int | None = Field(
        default=8, ge=2, le=8, description="bits of an input code; none leaves inputs in floating point"
    )
    calibration: Literal["density", "random"] = Field(
        json_schema_extra=RUN,
        default="density",
        description="samples a timestep by density and diversity (the paper), or drawn evenly over time",
    )
    points: int = Field(
        json_schema_extra=RUN,
        default=64,
        ge=1,
        description="calibration points (sample, timestep); the paper has 256 to 1024",
    )
    diversity: float = Field(
        json_schema_extra=RUN, default=1.2, ge=0, description="weight of diversity beside density"
    )
    radius: float | None = Field(
        json_schema_extra=RUN,
        default=None,
        gt=0,
        description="mean squared distance that counts as near; none: from `radius_quantile`",
    )
    radius_quantile: float = Field(
        json_schema_extra=RUN,
        default=0.3,
        gt=0,
        lt=1,
        description="share of pairs of timesteps that count as near",
    )
    feature_samples: int = Field(
        json_schema_extra=RUN,
        default=8,
        ge=1,
        description="recorded samples whose mid-block features are compared",
    )
    reconstruction: Literal["fine", "block", "layer", "none"] = Field(
        json_schema_extra=RUN,
        default="fine",
        description="blocks and their layers (the paper), blocks alone, layers alone, or nearest rounding",
    )
    layer_weight: float = Field(
        json_schema_extra=RUN,
        default=0.8,
        ge=0,
        description="weight of the layers' losses inside a block, for 'fine'",
    )
    iterations: int = Field(
        json_schema_extra=RUN, default=100, ge=0, description="Adam steps a block; the paper has 1000 to 5000"
    )
    batch_size: int = Field(json_schema_extra=RUN, default=16, ge=1, description="calibration points a step")
    rate_weight: float = Field(
        json_schema_extra=RUN, default=3e-2, gt=0, description="learning rate of the rounding variables"
    )
    rate_scale: float = Field(
        json_schema_extra=RUN,
        default=1e-3,
        ge=0,
        description="learning rate of the input scales, relative; 0 keeps them",
    )
    drop: float = Field(
        json_schema_extra=RUN,
        default=0.5,
        ge=0,
        le=1,
        description="share of inputs that stay in full precision in training (QDrop)",
    )
    regulariser: float = Field(
        json_schema_extra=RUN,
        default=0.0,
        ge=0,
        description="weight of the pull of soft rounding to 0 and 1; 0 as released",
    )
    as_released: bool = Field(
        json_schema_extra=RUN,
        default=False,
        description="sum the loss over axis 1 (tokens in sequences); leave out the last registered layer",
    )
    split_shortcuts: bool = Field(
        default=True, description="own input ranges for the two halves of a U-Net's skip concatenation"
    )
    edges: Literal["int8", "skip"] = Field(
        default="int8",
        description="first and last layer: 8-bit weights, the last has float inputs (paper), or left alone",
    )
    skip: tuple[Literal["time", "condition"], ...] = Field(
        default=(), description="more parts of a denoiser that stay in full precision"
    )
    modulation: Literal["body", "weight-only"] = Field(
        default="body",
        description="time modulation: as any layer (the paper), or 8-bit weights, float inputs",
    )
