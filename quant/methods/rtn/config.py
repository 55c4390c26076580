"""Settings of round to nearest."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FLOATS: dict[int, tuple[int, int]] = {4: (2, 1), 6: (3, 2), 8: (4, 3)}
"""Exponent and mantissa bits by bits of a code: the formats of OCP's microscaling standard."""


class RtnConfig(BaseModel):
    """Symmetric integers or floats, absmax scales, no calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of a weight code")
    weight_format: Literal["integer", "float"] = Field(
        default="integer", description="float: E2M1 at 4 bits, E3M2 at 6, E4M3 at 8, to set beside integers"
    )
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

    @model_validator(mode="after")
    def _check(self) -> RtnConfig:
        if self.weight_format == "float" and self.weight_bits not in FLOATS:
            raise ValueError(f"weight_format float has 4, 6 or 8 bits, got weight_bits {self.weight_bits}")
        return self
