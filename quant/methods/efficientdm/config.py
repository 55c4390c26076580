"""Settings of EfficientDM."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quant.registry import RUN
from quant.training.config import AlongConfig


class EfficientDmConfig(AlongConfig):
    """Plain integers after training; low-rank factors, steps and zero points are what is learned."""

    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int = Field(default=4, ge=2, le=8, description="bits of an input code")
    rank: int = Field(
        default=32, ge=0, le=1024,
        description="of the low-rank factors, at most the layer's; 0: the whole weight is trained instead, "
        "to compare costs",
    )  # fmt: skip
    temporal: bool = Field(default=True, description="input ranges for each timestep; else one for all")
    scale_aware: Literal["rate", "gradient", "none"] = Field(
        json_schema_extra=RUN, default="rate",
        description="factors move in units of the layer's step: by their learning rate (Adam does not see a "
        "factor on gradients), by their gradients under plain SGD (the paper's form), or one rate for all",
    )  # fmt: skip
    rate_factors: float = Field(
        json_schema_extra=RUN, default=4e-4, gt=0, le=1e6,
        description="learning rate of the factors, in steps of the layer's weight where scale-aware",
    )  # fmt: skip
    rate_weight_scale: float = Field(
        json_schema_extra=RUN, default=2e-5, ge=0, le=1,
        description="learning rate of the weights' scales, in units of themselves",
    )  # fmt: skip
    rate_input: float = Field(
        json_schema_extra=RUN, default=2e-3, ge=0, le=1,
        description="learning rate of input scales, in units of themselves, and of zero points, in codes",
    )  # fmt: skip
    policy: Literal["paper", "common"] = Field(
        default="paper",
        description="paper: first, last, time embedding and modulation at 8 bits and frozen, residual "
        "shortcuts and downsampling left alone; common: first, last, time and condition embeddings left "
        "alone, time modulation with 8-bit weights only",
    )
