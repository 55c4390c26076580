"""Settings of DGQ."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quant.registry import RUN


class DgqConfig(BaseModel):
    """Input ranges by clusters of channels or positions and by timestep; weights by output channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int = Field(default=6, ge=2, le=8, description="bits of an input code")
    groups: int = Field(default=16, ge=1, le=255, description="clusters that have a range of their own")
    axis: Literal["auto", "channel", "position"] = Field(
        default="auto",
        description="what is clustered; auto: at each timestep the axis whose ranges spread more",
    )
    match: Literal["exact", "nearest"] = Field(
        default="exact",
        description="timestep that was not calibrated: 'exact' is an error, 'nearest' the closest table",
    )
    attention: Literal["log", "static-log", "uniform", "none"] = Field(
        default="log",
        description="attention probabilities: powers of two below each image's largest, below the largest of "
        "calibration, uniform, or floating point; a module follows its first quantized projection",
    )
    attention_bits: int | None = Field(
        default=None, ge=2, le=8, description="bits of a probability; none: those of an input"
    )
    attention_octaves: float | None = Field(
        default=None, gt=0, le=64,
        description="powers of two over which codes of a logarithmic probability spread; none: one a code, "
        "as published, which more bits do not make finer",
    )  # fmt: skip
    attention_keep_sums: bool = Field(
        default=False,
        description="scale each query's rounded probabilities back to the sum they had (ours; free, a row "
        "scale); the published ones sum to whatever rounding leaves",
    )
    value_bits: int | None = Field(
        default=8,
        ge=2,
        le=8,
        description="bits of attention values, one scale a channel; none: float",
    )
    sink_share: float = Field(
        default=0.25, gt=0, le=1,
        description="mean probability from which a key is a sink, kept in floating point; 1: never",
    )  # fmt: skip
    weight_range: Literal["minmax", "mse"] = Field(
        default="mse", description="from the extreme weights, or searched for the least |error|^2.4"
    )
    samples: int = Field(
        json_schema_extra=RUN,
        default=64,
        ge=1,
        le=4096,
        description="calibration samples, every step of each",
    )
    modulation: Literal["weight-only", "quantize"] = Field(
        default="weight-only",
        description="time modulation layers: 8-bit weights with float inputs, or like all others",
    )
    skip: tuple[Literal["first", "last", "time", "condition"], ...] = Field(
        default=("first", "last", "time", "condition"),
        description="parts of a denoiser that stay in full precision",
    )
