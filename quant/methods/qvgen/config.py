"""Settings of QVGen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quant.registry import RUN
from quant.training.config import AlongConfig


class QvgenConfig(AlongConfig):
    """Quantization-aware training of every weight, with a helper that is gone at the end."""

    weight_bits: int = Field(default=4, ge=2, le=8, description="bits of a weight code")
    activation_bits: int = Field(default=4, ge=2, le=8, description="bits of an input code")
    helper: Literal["decay", "at-once", "none", "kept"] = Field(
        json_schema_extra=RUN, default="decay",
        description="rank halved again and again (the paper), dropped at once where decay would end, none; "
        "or kept: a 16-bit branch of linear layers that stays (not the paper's)",
    )  # fmt: skip
    group: int | None = Field(
        default=None, ge=8, le=1024,
        description="input channels that share a scale, of weights and inputs; none: by channel and token",
    )  # fmt: skip
    rank: Literal[1, 2, 4, 8, 16, 32, 48, 64, 128] = Field(
        json_schema_extra=RUN,
        default=32,
        description="of the helper at the start, a power of two unless it is kept; at most the layer's",
    )
    fade: Literal["cosine", "linear"] = Field(
        json_schema_extra=RUN, default="cosine", description="how the decaying half fades within a phase"
    )
    start: Literal["rounding", "svdquant"] = Field(
        json_schema_extra=RUN, default="rounding",
        description="helper 'kept' only. svdquant: begin at what SVDQuant makes with error feedback, in its "
        "formats: smoothing, branch, symmetric groups (not the paper's)",
    )  # fmt: skip
    tuned: Literal["all", "branch"] = Field(
        json_schema_extra=RUN, default="all",
        description="start 'svdquant': what is trained; branch: branches, biases and scales, not the weights",
    )  # fmt: skip
    masters: Literal["codes", "weights"] = Field(
        json_schema_extra=RUN, default="codes",
        description="start 'svdquant': where trained weights begin: at the values of their codes, or as near "
        "to the unrounded weights as these codes allow, from where fewer steps change a code",
    )  # fmt: skip
    plain: float = Field(
        json_schema_extra=RUN, default=0.1, ge=0, lt=1,
        description="share of the steps that is left to train without a helper",
    )  # fmt: skip
    rate_weight: float = Field(
        json_schema_extra=RUN, default=3e-5, gt=0, le=1,
        description="learning rate of weights, biases and helpers",
    )  # fmt: skip
    rate_scale: float = Field(
        json_schema_extra=RUN, default=1e-3, ge=0, le=1,
        description="learning rate of scales, in units of themselves, and of zero points, in codes",
    )  # fmt: skip
    decay: float = Field(
        json_schema_extra=RUN, default=1e-4, ge=0, le=1, description="weight decay of weights"
    )
    policy: Literal["paper", "common"] = Field(
        default="paper",
        description="paper: every linear layer, and convolutions but the first; common: first, last, time "
        "and condition embeddings left alone, time modulation with 8-bit weights only",
    )

    @model_validator(mode="after")
    def _check(self) -> QvgenConfig:
        if self.start == "svdquant" and self.helper != "kept":
            raise ValueError(f"start 'svdquant' belongs to helper 'kept', got {self.helper!r}")
        if self.start == "svdquant" and (self.weight_bits not in (2, 3, 4) or self.activation_bits != 4):
            raise ValueError(
                "start 'svdquant' has weights of 2, 3 or 4 bits and inputs of 4, got "
                f"{self.weight_bits} and {self.activation_bits}"
            )
        if self.rank.bit_count() > 1 and self.helper != "kept":
            raise ValueError(f"rank {self.rank} can't be halved to 1: give a power of two, or helper 'kept'")
        if self.tuned == "branch" and self.start != "svdquant":
            raise ValueError("tuned 'branch' belongs to start 'svdquant'")
        if self.masters == "weights" and self.start != "svdquant":
            raise ValueError("masters 'weights' belongs to start 'svdquant'")
        return self
