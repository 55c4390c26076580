"""Settings of LRQ-DiT, and of the ViDiT-Q style baseline that it is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quant.registry import RUN


class LrqDitConfig(BaseModel):
    """Twin-log weights by output channel, dynamic inputs by token, a rotation for each layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int | None = Field(
        default=4, ge=2, le=8, description="bits of an input code; none leaves inputs in floating point"
    )
    weight_grid: Literal["twin-log", "uniform", "uniform-clipped"] = Field(
        default="twin-log",
        description="logarithmic for each sign, or uniform with the min-max or the least-error range",
    )
    as_released: bool = Field(
        default=False,
        description="twin-log as the released code computes it: offset inside the logarithm, range up to 1",
    )
    smoothing: float | None = Field(
        default=0.5, ge=0, le=1,
        description="share of the range that the weight takes: max|x|^(1-a) / max|w|^a; none: no smoothing",
    )  # fmt: skip
    rotation: Literal["adaptive", "hadamard", "outlier", "none"] = Field(
        default="adaptive", description="by the measured J of each layer, or the same for all"
    )
    threshold: float = Field(
        default=1.0, gt=0,
        description="J (root mean square of the input before smoothing) from which inputs are salient",
    )  # fmt: skip
    block: Literal[8, 16, 32, 64, 128] = Field(
        default=128, description="channels a block of the outlier-aware rotation, at most"
    )
    greedy_steps: int = Field(
        default=32,
        ge=1,
        le=256,
        description="steps tried in each outlier-aware rotation; the best prefix stays",
    )
    samples: int = Field(
        json_schema_extra=RUN, default=8, ge=1, le=4096, description="calibration samples, every step of each"
    )
    modulation: Literal["weight-only", "skip"] = Field(
        default="weight-only",
        description="time modulation layers: 8-bit weights with float inputs, or left alone",
    )
    skip: tuple[Literal["first", "last", "time", "condition"], ...] = Field(
        default=("first", "last", "time", "condition"),
        description="parts of a denoiser that stay in full precision",
    )
