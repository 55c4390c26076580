"""Settings of QuEST."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quant.registry import RUN
from quant.training.config import TrainConfig


class QuestConfig(TrainConfig):
    """Weights of few layers and the ranges of all inputs are learned, in stages."""

    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int = Field(default=4, ge=2, le=8, description="bits of an input code")
    stages: Literal["time+sensitive", "time", "none"] = Field(
        json_schema_extra=RUN, default="time+sensitive",
        description="layers that see time alone, then those that measurement finds sensitive; or fewer",
    )  # fmt: skip
    sensitive: float = Field(
        json_schema_extra=RUN, default=0.5, gt=0, le=1,
        description="share of the measured output error that the tuned layers of the second stage have "
        "together: the fewest such layers",
    )  # fmt: skip
    probe_rows: int = Field(
        json_schema_extra=RUN, default=8, ge=1, le=4096, description="inputs that shares are measured on"
    )
    rate_weight: float = Field(
        json_schema_extra=RUN, default=1e-5, gt=0, le=1, description="learning rate of weights"
    )
    rate_input: float = Field(
        json_schema_extra=RUN, default=1e-3, ge=0, le=1,
        description="learning rate of input scales, in units of themselves, and of zero points, in codes",
    )  # fmt: skip
    output_weight: float = Field(
        json_schema_extra=RUN, default=2.0, ge=0, le=1000,
        description="weight of the error at the model's output beside those of the tuned layers' outputs",
    )  # fmt: skip
    policy: Literal["paper", "common"] = Field(
        default="paper",
        description="paper: every layer, the first and the last with 8-bit inputs; common: first, last, time "
        "and condition embeddings left alone, time modulation with 8-bit weights only",
    )
