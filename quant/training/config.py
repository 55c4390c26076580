"""Settings that every method with the distillation loop has; no torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quant.registry import RUN


class TrainConfig(BaseModel):
    """How long, on what, and how often somebody looks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    train_steps: int = Field(
        json_schema_extra=RUN, default=2000, ge=0, le=10_000_000, description="optimizer steps, each stage"
    )
    train_rows: int = Field(
        json_schema_extra=RUN, default=16, ge=1, le=65536, description="inputs (sample, timestep) a step"
    )
    guidance: Literal["combined", "separate"] = Field(
        json_schema_extra=RUN, default="combined",
        description="where the recording has guidance: error of the guided prediction, or of both halves",
    )  # fmt: skip
    path: float = Field(
        json_schema_extra=RUN, default=0.0, ge=0, le=1,
        description="share of the loss that is the error summed along trajectories: errors that agree from "
        "step to step add up in a sampler, others average out; 0 looks at each step alone",
    )  # fmt: skip
    unshrunk: bool = Field(
        json_schema_extra=RUN, default=False,
        description="judge predictions with their scale taken out, and hold that at 1: squared error alone "
        "shrinks what cannot be predicted, and a sampler adds this up over its steps",
    )  # fmt: skip
    calibration_rows: int = Field(
        json_schema_extra=RUN, default=64, ge=1, le=65536, description="inputs that starting ranges are from"
    )
    held_out_rows: int = Field(
        json_schema_extra=RUN, default=64, ge=0, le=65536,
        description="inputs kept from training, by which the best parameters are chosen; 0 keeps the last",
    )  # fmt: skip
    look_every: int = Field(
        json_schema_extra=RUN, default=200, ge=1, le=1_000_000,
        description="steps between two looks at what is held out, and between two checkpoints",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16"] = Field(
        json_schema_extra=RUN, default="float32",
        description="of the forwards in training; parameters are float32",
    )  # fmt: skip


class AlongConfig(TrainConfig):
    """Settings of methods whose loss may also go along the sampler's way (`quant.training.walk`)."""

    unroll: int = Field(
        json_schema_extra=RUN, default=0, ge=0, le=64,
        description="sampler steps that a loss goes over, from states that the student itself comes to; "
        "0: one prediction at the teacher's states",
    )  # fmt: skip

    @model_validator(mode="after")
    def _check_way(self) -> Self:
        if not self.unroll:
            return self
        if self.guidance == "separate":
            raise ValueError("a sampler steps by the guided prediction: with unroll, guidance is 'combined'")
        for name in ("path", "unshrunk"):
            if getattr(self, name):
                raise ValueError(f"{name} judges single predictions, and unroll where several steps lead")
        return self

    @property
    def forward_rows(self) -> int:
        """Inputs of all forwards of a step: a loss over several sampler steps is as many forwards."""
        return self.train_rows * max(1, self.unroll)
