"""What training will cost, for a plan; no torch here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

FORWARDS = 4
"""Forwards that one step costs: the teacher's, the student's, and a backward worth two."""
_FLOPS = 2.5e10
"""Floating-point operations a second of one CPU core in small products."""
_GPU_FLOPS = 2e13
_GPU_STEP = 0.04
"""Seconds of a training step on a GPU at least, from a CUDA graph, beside another job (alone 16 to 21 ms)."""


class TrainingCost(BaseModel):
    """Steps of a method that trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(description="optimizer steps, all stages together")
    rows: int = Field(description="inputs a step")
    in_turn: int = Field(default=1, description="forwards of a step that wait for each other: sampler steps")
    what: str = Field(description="what is trained, in a few words")

    def seconds(self, macs: int) -> float:
        """Estimate the time on one CPU core from the multiply-accumulates of one forward of one input."""
        return self.steps * self.rows * FORWARDS * 2 * macs / _FLOPS

    def gpu_seconds(self, macs: int) -> float:
        """Estimate the time on one data-centre GPU, as `seconds`."""
        return self.steps * max(_GPU_STEP * self.in_turn, self.rows * FORWARDS * 2 * macs / _GPU_FLOPS)

    def __str__(self) -> str:
        return f"trains {self.steps:,} steps of {self.rows} inputs ({self.what})"
