"""Settings of MixDQ: uniform bits, and an allocation table that overrules them layer by layer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quant.registry import RUN

Part = Literal["first", "last", "time", "condition"]


class LayerBits(BaseModel):
    """One line of an allocation table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight: int = Field(ge=2, le=8, description="bits of a weight code")
    activation: int | None = Field(
        ge=2, le=8, description="bits of an input code; none leaves the input in floating point"
    )


class MixdqConfig(BaseModel):
    """Symmetric weights by output channel, static asymmetric inputs by tensor, bits by layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of weights outside the table")
    activation_bits: int | None = Field(
        default=8,
        ge=2,
        le=8,
        description="bits of inputs outside the table; none leaves them in floating point",
    )
    table: dict[str, LayerBits] = Field(
        default_factory=dict, description="bits by layer name, as an allocation chose them"
    )
    weight_group: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="input channels that share a weight scale; none (the paper): the whole row",
    )
    inputs: Literal["tensor", "token"] = Field(
        default="tensor",
        description="static scale and zero point by tensor (the paper), or symmetric scales by token, as rtn",
    )
    momentum: float | None = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="of the running range over calibration batches; none: least and largest value of all",
    )
    sinks: bool = Field(default=True, description="keep a constant sink token of the condition apart")
    sink_ratio: float = Field(
        default=8.0, gt=1, description="a sink's largest feature is this many times the other tokens' median"
    )
    split_shortcuts: bool = Field(
        default=True, description="own input ranges for the two halves of a U-Net's skip concatenation"
    )
    float_inputs: tuple[str, ...] = Field(
        default=(), description="wildcards of layers whose inputs stay in floating point"
    )
    skip: tuple[Part, ...] = Field(default=(), description="parts of a denoiser that stay in full precision")
    points: int = Field(
        json_schema_extra=RUN,
        default=256,
        ge=1,
        description="recorded (sample, timestep) pairs that calibrate the inputs, in random order",
    )
    batch_size: int = Field(
        json_schema_extra=RUN, default=8, ge=1, description="pairs of a calibration batch"
    )
