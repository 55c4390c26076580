"""Settings of round to nearest."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RtnConfig(BaseModel):
    """Symmetric integers, absmax scales, no calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of a weight code")
    activation_bits: int | None = Field(
        default=8, ge=2, le=8, description="bits of an input code; none leaves inputs in floating point"
    )
    weight_group: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="input channels that share a weight scale; none: the whole row",
    )
    activation_group: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="input channels that share an input scale; none: the whole token",
    )
    weight_range: Literal["minmax", "mse"] = Field(
        default="minmax", description="scale from the largest weight, or searched for the least squared error"
    )
    modulation: Literal["weight-only", "skip"] = Field(
        default="weight-only",
        description="time modulation layers: 8-bit weights with float inputs, or left alone",
    )
    skip: tuple[Literal["first", "last", "time", "condition"], ...] = Field(
        default=("first", "last", "time", "condition"),
        description="parts of a denoiser that stay in full precision",
    )
