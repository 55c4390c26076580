"""Settings of low-bit floating point."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quant.registry import RUN


class LowbitFpConfig(BaseModel):
    """One format and one scale a tensor, on both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: Literal[4, 8] = Field(default=8, description="bits of a weight code")
    activation_bits: Literal[8] | None = Field(
        default=8, description="bits of an input code; none leaves inputs in floating point"
    )
    formats: Literal["searched", "hardware", "integer"] = Field(
        default="searched",
        description="8-bit formats: E2M5, E3M4, E4M3, E5M2, whichever fits a tensor best; or e4m3fn (to "
        "448), which tensor cores know. 4-bit weights choose among E1M2, E2M1, E3M0: all are exact in "
        "e4m3fn. integer: the baseline, symmetric integers with a searched clip",
    )
    clips: int = Field(default=111, ge=2, le=1000, description="clip values tried, 0.1 to 1.2 times absmax")
    rounding: Literal["nearest", "learned"] = Field(
        default="nearest", description="4-bit weights: to nearest, or up and down learned by layer output"
    )
    iterations: int = Field(default=500, ge=1, le=100_000, description="steps of learned rounding, a layer")
    learning_rate: float = Field(default=0.1, gt=0, le=1, description="of learned rounding (Adam)")
    penalty: float = Field(
        default=0.1, ge=0, le=100, description="weight of the term that drives roundings to 0 or 1"
    )
    normalized: bool = Field(
        default=True,
        description="divide each weight's rounding variable by its step (FP4DiT), so that all learn alike",
    )
    policy: Literal["paper", "common"] = Field(
        default="paper",
        description="paper: every layer, first and last with 8-bit weights; common: first, last, time and "
        "condition embeddings left alone, time modulation with 8-bit weights only",
    )
    samples: int = Field(
        json_schema_extra=RUN, default=16, ge=1, le=4096, description="recorded samples to calibrate on"
    )
    steps: int = Field(
        json_schema_extra=RUN, default=8, ge=1, le=1000, description="timesteps of them, evenly spread"
    )
    rows: int = Field(
        json_schema_extra=RUN, default=512, ge=16, le=65536, description="input rows a layer to calibrate on"
    )
    values: int = Field(
        default=16384,
        ge=256,
        le=1 << 22,
        description="values of a tensor to try formats and clips on; the largest eighth are its largest",
    )
