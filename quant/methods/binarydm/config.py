"""Settings of BinaryDM."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quant.registry import RUN
from quant.training.config import AlongConfig


class BinaryDmConfig(AlongConfig):
    """Signs and scales of weights, trained from full precision."""

    bases: int = Field(default=1, ge=1, le=4, description="binary bases of a weight, one bit each")
    outer_bases: int = Field(
        default=2, ge=1, le=4, description="of weights in outer blocks, where they are more than `bases`"
    )
    outer: float = Field(
        default=0.15, ge=0, le=0.5,
        description="blocks that are outer: nearer than this to the first or last, as a share of the depth",
    )  # fmt: skip
    activation_bits: int | None = Field(
        default=4, ge=2, le=8, description="bits of an input code; none leaves inputs in floating point"
    )
    kept_bits: int | None = Field(
        default=None, ge=3, le=8,
        description="bits of weights that are not binary (first, last, time, modulation, condition), trained "
        "with the others; none leaves these layers in floating point",
    )  # fmt: skip
    attention: Literal["quantized", "float"] = Field(
        json_schema_extra=RUN, default="quantized",
        description="attention probabilities and values: at the bits of inputs, or in floating point",
    )  # fmt: skip
    learned: bool = Field(
        json_schema_extra=RUN, default=True,
        description="scales of the bases are learned; else the mean magnitudes of what they round, always",
    )  # fmt: skip
    mimicking: float = Field(
        json_schema_extra=RUN, default=0.1, ge=0, le=1000,
        description="weight of the error of block features in the teacher's main directions, relative to "
        "their power; 0: none",
    )  # fmt: skip
    directions: int = Field(
        json_schema_extra=RUN, default=4, ge=1, le=1024,
        description="one direction is kept for so many channels (the paper's K)",
    )  # fmt: skip
    warm_up: int = Field(
        json_schema_extra=RUN, default=1, ge=0, le=1_000_000,
        description="steps between two groups of blocks becoming binary, from the middle outwards; 0: none",
    )  # fmt: skip
    rate_weight: float = Field(
        json_schema_extra=RUN, default=2e-4, gt=0, le=1, description="learning rate of weights and biases"
    )
    rate_scale: float = Field(
        json_schema_extra=RUN, default=2e-3, ge=0, le=1,
        description="learning rate of scales of bases and inputs, in units of themselves",
    )  # fmt: skip

    @model_validator(mode="after")
    def _check_loss(self) -> BinaryDmConfig:
        if self.unroll and self.mimicking:
            raise ValueError("a loss over sampler steps looks at no features: with unroll, mimicking is 0")
        return self
