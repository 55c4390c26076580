"""Which numbers exist: the grids a value can be rounded to.

A grid turns *views* (see `quant.formats.granularity`) into integer codes and back. It works on three
things: the tensor, its parameters (`scale` and, where the grid has them, `zero_point`, `scale_negative`,
`bases`), and nothing else. `decode(encode(x))` and `fake(x)` run the same floating-point operations, so
they agree bit for bit. No grid has more than ``2**bits`` distinct values, and zero points are integers
inside the code range. Gradients pass every grid straight through and clipped (`quant.formats.straight`).
Here are what all grids share and the integers; the others are in `floats`, `logs` and `codebooks`.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from quant.formats.rounding import as_storage, round_ste_
from quant.formats.straight import straight, wanted

Params = dict[str, Tensor]


class Grid(BaseModel):
    """Base of all grids: `code_bits`, `fit_range`, `encode`, `decode`, `fake`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def signed_codes(self) -> bool:
        """Whether codes are int8 (two's complement) and not uint8."""
        return False

    @property
    def code_bits(self) -> int:
        """Bits a stored code takes."""
        raise TypeError(f"{type(self).__name__} is abstract")

    @property
    def label(self) -> str:
        """Short name for tables, as `int4` or `fp8-e4m3`."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        """Parameters that cover [low, high]; scales are already rounded to the stored `dtype`."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def fault(self, params: Params) -> str | None:
        """Say what is wrong with stored parameters of the right shapes and types; None if nothing is."""
        return None

    def encode(self, x: Tensor, params: Params) -> Tensor:
        """Integer codes (int8 or uint8) of `x`, same shape."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        """Values that `codes` stand for."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def fake(self, x: Tensor, params: Params) -> Tensor:
        """Round `x` to the grid, bit for bit `decode(encode(x))`, with gradients where they are wanted."""
        if not wanted(x, params):
            return self.rounded(x, params)
        with torch.no_grad():
            values = self.rounded(x, params)
        return straight(self.surrogate(x, params, values), values)

    def rounded(self, x: Tensor, params: Params) -> Tensor:
        """Values of `fake`, without gradients."""
        return self.decode(self.encode(x, params), params, x.dtype)

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        """Differentiable stand-in for `values`, what `x` was rounded to."""
        raise TypeError(f"{type(self).__name__} is abstract")


class IntGrid(Grid):
    """Uniform integers.

    symmetric: codes -q..q with ``q = 2**(b-1) - 1`` (the code ``-2**(b-1)`` is never used), scale absmax / q;
    unsigned: codes 0..2^b - 1 for values that are never negative; asymmetric: the same codes and an integer
    zero point, range always extended to contain 0 so that zero (and a convolution's padding) is exact.
    """

    kind: Literal["int"] = "int"
    bits: int = Field(default=8, ge=2, le=8, description="bits of a code")
    mode: Literal["symmetric", "asymmetric", "unsigned"] = Field(
        default="symmetric", description="code range"
    )

    @property
    def signed_codes(self) -> bool:
        return self.mode == "symmetric"

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def label(self) -> str:
        return (
            f"int{self.bits}" + {"symmetric": "", "asymmetric": " asym", "unsigned": " unsigned"}[self.mode]
        )

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.mode == "symmetric":
            return -(2 ** (self.bits - 1) - 1), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        low, high = low.clamp(max=0), high.clamp(min=0)
        qmin, qmax = self.code_range
        if self.mode == "symmetric":
            return {"scale": as_storage(torch.maximum(-low, high) / qmax, power_of_two, dtype)}
        if self.mode == "unsigned":
            return {"scale": as_storage(high / qmax, power_of_two, dtype)}
        scale = as_storage((high - low) / qmax, power_of_two, dtype)
        zero = torch.round(-low / scale.to(low.dtype)).clamp(qmin, qmax)
        return {"scale": scale, "zero_point": zero.to(torch.uint8)}

    def _steps(self, x: Tensor, params: Params) -> Tensor:
        """Codes as a fresh floating-point tensor."""
        qmin, qmax = self.code_range
        steps = round_ste_(x / params["scale"].to(x.dtype))
        if "zero_point" in params:
            steps += params["zero_point"].to(x.dtype)
        return steps.clamp_(qmin, qmax)

    def encode(self, x: Tensor, params: Params) -> Tensor:
        return self._steps(x, params).to(torch.int8 if self.mode == "symmetric" else torch.uint8)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        return self._scale_(codes.to(dtype), params)

    def fake(self, x: Tensor, params: Params) -> Tensor:
        return self._scale_(self._steps(x, params), params)

    def _scale_(self, steps: Tensor, params: Params) -> Tensor:
        # in place: on a CPU the pages of a fresh tensor cost more than the arithmetic
        if "zero_point" in params:
            steps -= params["zero_point"].to(steps.dtype)
        return steps.mul_(params["scale"].to(steps.dtype))
