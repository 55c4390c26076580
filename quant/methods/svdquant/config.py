"""Settings of SVDQuant."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quant.registry import RUN

Part = Literal[
    "first", "last", "time", "condition", "modulation", "cross_kv", "projections", "shortcuts", "samplers"
]


class SvdQuantConfig(BaseModel):
    """Smoothing, low-rank branch, 4-bit residual."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    numbers: Literal["int4", "nvfp4", "int8"] = Field(
        default="int4",
        description="codes on both sides: 4-bit integers in groups; NVFP4 (e2m1 with e4m3 scales a group of "
        "16); 8-bit integers with one scale a row",
    )
    residual_bits: Literal[2, 3, 4] = Field(
        default=4, description="int4: bits of a weight's code; 2: four levels of a normal distribution"
    )
    group: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="input channels that share a scale; none: 64 for int4, 16 for nvfp4",
    )
    scales: Literal["real", "pow2", "int"] = Field(
        default="real",
        description="group scales of int4: a real number each; or a row scale times 2^k (exact in float8 "
        "e4m3), or times 1..15 (exact in int8), which need no rescale inside the sum",
    )
    input_search: int = Field(
        default=4,
        ge=0,
        le=64,
        description="scales 'pow2' and 'int': row scales tried for each token (or image) of an input; 1: "
        "only group scales are chosen by error; 0: the nearest are taken",
    )
    activation_bits: Literal[4, 8] | None = Field(
        default=4,
        description="bits of an input code: 4 follows `numbers`; 8: one integer scale a token; none: float",
    )
    rank: int = Field(
        default=32, ge=0, le=1024, description="rank of the 16-bit branch, at most a quarter of the layer's"
        " smaller side; 0: no branch",
    )  # fmt: skip
    branch_dtype: Literal["bfloat16", "float16"] = Field(
        default="bfloat16", description="type in which the branch is stored"
    )
    svd: Literal["randomized", "exact"] = Field(
        default="randomized", description="how the top singular vectors are found"
    )
    iterations: int = Field(
        default=100, ge=1, le=1000, description="most rounds of branch and residual; stops at the first that"
        " is worse",
    )  # fmt: skip
    smooth: Literal["search", "none"] = Field(
        default="search", description="per-channel factors from inputs to weights, searched by layer"
    )
    smooth_points: int = Field(
        default=20, ge=2, le=40, description="exponents are multiples of 1 / points: 2 points - 1 candidates"
    )
    residual: Literal["rtn", "gptq"] = Field(
        default="rtn", description="residual codes by rounding, or by rounding with error feedback (GPTQ)"
    )
    damp: float = Field(
        default=0.01, gt=0, le=1, description="GPTQ: share of the mean diagonal added to the Hessian"
    )
    block: int = Field(default=128, ge=1, le=4096, description="GPTQ: columns between lazy updates")
    shift: bool = Field(
        default=True, description="int4: move the input of a linear after GELU above zero, use unsigned codes"
    )
    share: bool = Field(
        json_schema_extra=RUN,
        default=True,
        description="layers that read one input (q, k, v) share smoothing and the branch's input",
    )
    convolutions: Literal["grouped", "float"] = Field(
        default="grouped", description="larger convolutions: plain groups without branch, or left alone"
    )
    keep: tuple[Part, ...] = Field(
        default=(
            "first", "last", "time", "condition", "modulation", "cross_kv", "projections", "shortcuts",
            "samplers",
        ),
        description="parts of a denoiser that stay as they are; modulation otherwise gets 8-bit weights",
    )  # fmt: skip
    samples: int = Field(
        json_schema_extra=RUN, default=16, ge=1, le=4096, description="recorded samples to calibrate on"
    )
    steps: int = Field(
        json_schema_extra=RUN, default=8, ge=1, le=1000, description="timesteps of them, evenly spread"
    )
    rows: int = Field(
        json_schema_extra=RUN,
        default=512,
        ge=16,
        le=65536,
        description="input rows a layer that errors are measured on",
    )

    @model_validator(mode="after")
    def _check(self) -> SvdQuantConfig:
        if self.scales != "real" and self.numbers != "int4":
            raise ValueError(f"scales {self.scales!r} belong to numbers 'int4', got {self.numbers!r}")
        if self.residual_bits == 2 and self.scales != "real":
            raise ValueError(f"residual_bits 2 has real scales, got {self.scales!r}")
        if self.residual_bits != 4 and self.numbers != "int4":
            raise ValueError(
                f"residual_bits {self.residual_bits} belongs to numbers 'int4', got {self.numbers!r}"
            )
        if self.numbers == "int8" and self.group is not None:
            raise ValueError("int8 has one scale a row: leave group out")
        return self

    @property
    def group_size(self) -> int:
        """The group in force."""
        return self.group or (16 if self.numbers == "nvfp4" else 64)
