"""Which numbers exist: the grids a value can be rounded to.

A grid turns *views* (see `quant.formats.granularity`) into integer codes and back. It works on three
things: the tensor, its parameters (`scale` and, where the grid has them, `zero_point`, `scale_negative`,
`bases`), and nothing else. `decode(encode(x))` and `fake(x)` run the same floating-point operations, so
they agree bit for bit. No grid has more than ``2**bits`` distinct values, and zero points are integers
inside the code range.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from quant.formats.rounding import as_storage, floor_log2, round_ste_

Params = dict[str, Tensor]
_EXPONENT_BITS = 0x7F800000
"""Of a float32."""


class Grid(BaseModel):
    """Base of all grids: `bits`, `fit_range`, `encode`, `decode`, `fake`."""

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
        """Round `x` to the grid; equals `decode(encode(x))` bit for bit."""
        return self.decode(self.encode(x, params), params, x.dtype)


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


class FloatGrid(Grid):
    """Small floats: sign, E exponent bits, M mantissa bits, subnormals, round to nearest even.

    ``value = (-1)^s 2^(e-B) (1 + f/2^M)`` for e > 0 and ``(-1)^s 2^(1-B) f/2^M`` for e = 0. No code is lost
    to inf or NaN unless `hardware` names a format that reserves some: e4m3fn stops at 448, e5m2 at 57344, and
    then codes are the bit patterns of the torch dtype of that name. A real-valued bias is the same thing as
    a real scale, so the bias here is an integer (default ``2^(E-1) - 1``) and the scale carries the rest.
    """

    kind: Literal["float"] = "float"
    exponent: int = Field(default=4, ge=1, le=6, description="exponent bits")
    mantissa: int = Field(default=3, ge=0, le=6, description="mantissa bits")
    bias: int | None = Field(default=None, description="exponent bias; 2^(E-1)-1 if left out")
    hardware: Literal["e4m3fn", "e5m2"] | None = Field(
        default=None, description="format of a real tensor core"
    )

    @model_validator(mode="after")
    def _check(self) -> FloatGrid:
        if not 2 <= self.code_bits <= 8:
            raise ValueError(f"1 + exponent + mantissa must be 2..8 bits, got {self.code_bits}")
        wanted = {"e4m3fn": (4, 3), "e5m2": (5, 2)}
        if self.hardware and (self.exponent, self.mantissa) != wanted[self.hardware]:
            raise ValueError(f"{self.hardware} has exponent, mantissa = {wanted[self.hardware]}")
        return self

    @property
    def code_bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def label(self) -> str:
        return self.hardware or f"fp{self.code_bits}-e{self.exponent}m{self.mantissa}"

    @property
    def offset(self) -> int:
        """The exponent bias in force."""
        return 2 ** (self.exponent - 1) - 1 if self.bias is None else self.bias

    @property
    def largest(self) -> float:
        """Largest value before scaling."""
        if self.hardware:
            return {"e4m3fn": 448.0, "e5m2": 57344.0}[self.hardware]
        return 2.0 ** (2**self.exponent - 1 - self.offset) * (2 - 2.0**-self.mantissa)

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        absmax = torch.maximum(low.abs(), high.abs())
        return {"scale": as_storage(absmax / self.largest, power_of_two, dtype)}

    def encode(self, x: Tensor, params: Params) -> Tensor:
        y = (x / params["scale"].to(x.dtype)).clamp(-self.largest, self.largest)
        lowest = 1 - self.offset  # exponent of the subnormals
        power = floor_log2(y.abs()).clamp(min=lowest)
        # an even code has an even mantissa, so torch's half-to-even is the format's tie rule
        fraction = torch.round(torch.ldexp(y.abs(), self.mantissa - power))
        magnitude = (power - lowest) * 2**self.mantissa + fraction
        sign = torch.signbit(y).to(magnitude.dtype) * 2 ** (self.code_bits - 1)
        return (magnitude + sign).to(torch.uint8)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        table = torch.tensor(self.table(), dtype=dtype, device=codes.device)
        return table[codes.long()] * params["scale"].to(dtype)

    def fake(self, x: Tensor, params: Params) -> Tensor:
        if x.dtype != torch.float32:
            return super().fake(x, params)
        scale = params["scale"].to(x.dtype)
        y = (x / scale).clamp_(-self.largest, self.largest)
        # the exponent bits alone are 2^floor(log2 |y|); every step below is exact in float32
        power = (y.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)
        step = power.clamp_(min=2.0 ** (1 - self.offset)).mul_(2.0**-self.mantissa)
        return y.div_(step).round_().mul_(step).mul_(scale)

    def table(self) -> tuple[float, ...]:
        """Value of every code before scaling, codes 0 to 2^b - 1 (two of them are zero)."""
        return _float_table(self.exponent, self.mantissa, self.offset)


@lru_cache
def _float_table(exponent: int, mantissa: int, offset: int) -> tuple[float, ...]:
    half = []
    for code in range(2 ** (exponent + mantissa)):
        e, f = code >> mantissa, code & (2**mantissa - 1)
        half.append(
            2.0 ** (1 - offset - mantissa) * f if e == 0 else 2.0 ** (e - offset) * (1 + f / 2**mantissa)
        )
    return tuple(half + [-v for v in half])


class LogGrid(Grid):
    """Logarithmic magnitudes, each sign with its own top.

    ``|x| = top * 2^(-q * step)``, q = 0 .. n-1, ``step = octaves / (n - 1)``; signed grids give 2^(b-1) codes
    to each sign (negative codes follow the positive ones), unsigned ones all 2^b (attention scores). There is
    no code for zero: zero takes the smallest positive magnitude. Scale-equivariant: Q(cx) = c Q(x).

    Without `octaves` every group stores its own `step` (and `step_negative`), in octaves. With `offset` the
    magnitudes are ``top * 2^(-q * step) - offset`` with a stored offset, and no longer scale-equivariant.
    """

    kind: Literal["log"] = "log"
    bits: int = Field(default=4, ge=2, le=8, description="bits of a code, sign included")
    octaves: float | None = Field(
        default=7.0, gt=0, le=255,
        description="powers of two between largest and smallest; none: a stored step for each group",
    )  # fmt: skip
    offset: bool = Field(default=False, description="magnitudes are shifted by a stored offset")
    signed: bool = Field(default=True, description="half of the codes are negative")

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def label(self) -> str:
        return f"log{self.bits}" + ("" if self.signed else " unsigned")

    @property
    def _count(self) -> int:
        return 2 ** (self.bits - 1) if self.signed else 2**self.bits

    @property
    def _step(self) -> float:
        return (7.0 if self.octaves is None else self.octaves) / (self._count - 1)

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        params = {"scale": as_storage(high.clamp(min=0), power_of_two, dtype)}
        if self.signed:
            params["scale_negative"] = as_storage((-low).clamp(min=0), power_of_two, dtype)
        if self.octaves is None:
            steps = {k.replace("scale", "step"): torch.full_like(v, self._step) for k, v in params.items()}
            params.update(steps)
        if self.offset:
            params["offset"] = torch.zeros_like(params["scale"])
        return params

    def _steps(self, params: Params, which: str, dtype: torch.dtype) -> Tensor | float:
        return params[which].to(dtype) if self.octaves is None else self._step

    def encode(self, x: Tensor, params: Params) -> Tensor:
        top, step = params["scale"].to(x.dtype), self._steps(params, "step", x.dtype)
        negative = (x < 0) if self.signed else torch.zeros_like(x, dtype=torch.bool)
        if self.signed:
            top = torch.where(negative, params["scale_negative"].to(x.dtype), top)
            if isinstance(step, Tensor):
                step = torch.where(negative, self._steps(params, "step_negative", x.dtype), step)
        magnitude = x.abs() if self.signed else x.clamp(min=0)
        if self.offset:
            magnitude = magnitude + params["offset"].to(x.dtype)
        ratio = magnitude / top
        q = torch.round(-torch.log2(ratio.clamp(min=torch.finfo(x.dtype).tiny)) / step)
        # 0 is the last code; the smallest normal number, 2^-126, is not where codes reach further down
        q = torch.where(ratio == 0, self._count - 1, q).clamp(0, self._count - 1)
        return (q + negative * self._count).to(torch.uint8)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        if self.octaves is None or self.offset:
            return self._decode_stored(codes, params, dtype)
        magnitudes = [2.0 ** (-q * self._step) for q in range(self._count)]
        table = torch.tensor(magnitudes, dtype=dtype, device=codes.device)
        index = codes.long()
        values = table[index % self._count] * params["scale"].to(dtype)
        if not self.signed:
            return values
        negative = -table[index % self._count] * params["scale_negative"].to(dtype)
        return torch.where(index >= self._count, negative, values)

    def _decode_stored(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        q, step = (codes % self._count).to(dtype), self._steps(params, "step", dtype)
        shift = params["offset"].to(dtype) if self.offset else 0.0
        values = torch.exp2(-q * step) * params["scale"].to(dtype) - shift
        if not self.signed:
            return values
        step = self._steps(params, "step_negative", dtype)
        negative = shift - torch.exp2(-q * step) * params["scale_negative"].to(dtype)
        return torch.where(codes >= self._count, negative, values)


class BinaryGrid(Grid):
    """A sum of binary bases: ``x = sum_i alpha_i b_i``, b_i = +-1, alphas from greedy residuals.

    The alphas are the `bases` parameter, one a bit, in a leading axis. They come from data, not from a range:
    alpha_i is the mean magnitude of what the bases before it left over.
    """

    kind: Literal["binary"] = "binary"
    bits: int = Field(default=1, ge=1, le=4, description="number of bases, one bit each")

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def label(self) -> str:
        return f"binary{self.bits}"

    def fit_data(self, x: Tensor, dims: tuple[int, ...], dtype: torch.dtype) -> Params:
        """Greedy alphas; `dims` are the axes that share one."""
        rest, bases = x, []
        for _ in range(self.bits):
            alpha = rest.abs().mean(dims, keepdim=True).to(dtype)
            bases.append(alpha)
            rest = rest - torch.where(rest < 0, -alpha.to(x.dtype), alpha.to(x.dtype))
        return {"bases": torch.stack(bases)}

    def encode(self, x: Tensor, params: Params) -> Tensor:
        rest, codes = x, torch.zeros_like(x, dtype=torch.uint8)
        for index, alpha in enumerate(params["bases"].to(x.dtype)):
            codes = codes | ((rest >= 0).to(torch.uint8) << index)
            rest = rest - torch.where(rest < 0, -alpha, alpha)
        return codes

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        total = torch.zeros(codes.shape, dtype=dtype, device=codes.device)
        for index, alpha in enumerate(params["bases"].to(dtype)):
            total = total + torch.where((codes >> index) & 1 == 1, alpha, -alpha)
        return total


class CodebookGrid(Grid):
    """Any increasing list of at most 2^b values, scaled; nearest wins, the lower one on a tie."""

    kind: Literal["codebook"] = "codebook"
    values: tuple[float, ...] = Field(
        description="increasing, at most 256; scaled so that max |value| meets absmax"
    )

    @model_validator(mode="after")
    def _check(self) -> CodebookGrid:
        if not 2 <= len(self.values) <= 256 or any(
            a >= b for a, b in zip(self.values, self.values[1:], strict=False)
        ):
            raise ValueError(
                f"values must be 2 to 256 strictly increasing numbers, got {len(self.values)} values"
            )
        return self

    @property
    def code_bits(self) -> int:
        return (len(self.values) - 1).bit_length()

    @property
    def label(self) -> str:
        return f"codebook{len(self.values)}"

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        absmax = torch.maximum(low.abs(), high.abs())
        return {"scale": as_storage(absmax / max(abs(v) for v in self.values), power_of_two, dtype)}

    def encode(self, x: Tensor, params: Params) -> Tensor:
        table = torch.tensor(self.values, dtype=x.dtype, device=x.device)
        middles = (table[1:] + table[:-1]) / 2
        return torch.bucketize(x / params["scale"].to(x.dtype), middles).to(torch.uint8)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        table = torch.tensor(self.values, dtype=dtype, device=codes.device)
        return table[codes.long()] * params["scale"].to(dtype)


AnyGrid = Annotated[IntGrid | FloatGrid | LogGrid | BinaryGrid | CodebookGrid, Field(discriminator="kind")]

__all__ = [
    "AnyGrid", "BinaryGrid", "CodebookGrid", "FloatGrid", "Grid", "IntGrid", "LogGrid", "Params",
]  # fmt: skip
