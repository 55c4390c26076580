"""Small floats: one format, or the one of several whose split into exponent and mantissa fits a tensor."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from quant.formats.grids import Grid, Params
from quant.formats.rounding import as_storage, floor_log2, table_on
from quant.formats.straight import scaled

_EXPONENT_BITS = 0x7F800000
"""Of a float32."""


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
        table = table_on(self.table(), dtype, codes.device)
        return table[codes.long()] * params["scale"].to(dtype)

    def rounded(self, x: Tensor, params: Params) -> Tensor:
        if x.dtype != torch.float32:
            return super().rounded(x, params)
        scale = params["scale"].to(x.dtype)
        y = (x / scale).clamp_(-self.largest, self.largest)
        # the exponent bits alone are 2^floor(log2 |y|); every step below is exact in float32
        power = (y.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)
        step = power.clamp_(min=2.0 ** (1 - self.offset)).mul_(2.0**-self.mantissa)
        return y.div_(step).round_().mul_(step).mul_(scale)

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        return scaled(x, values, params["scale"].to(x.dtype), -self.largest, self.largest)

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


class SearchedFloatGrid(Grid):
    """One of several float formats of equal size; parameter ``format`` (uint8) says which, beside ``scale``.

    ``fit_range`` alone cannot compare formats and takes `default`; a method that searched passes its own
    parameters.
    """

    kind: Literal["searched_float"] = "searched_float"
    formats: tuple[tuple[int, int], ...] = Field(
        default=((2, 5), (3, 4), (4, 3), (5, 2)), description="(exponent bits, mantissa bits) to choose from"
    )
    default: int = Field(default=2, ge=0, description="format where nothing was searched")

    @model_validator(mode="after")
    def _check(self) -> SearchedFloatGrid:
        sizes = {exponent + mantissa for exponent, mantissa in self.formats}
        if not self.formats or len(sizes) != 1 or self.default >= len(self.formats):
            raise ValueError(f"formats must be of one size and contain the default, got {self.formats}")
        return self

    @property
    def code_bits(self) -> int:
        return 1 + sum(self.formats[0])

    @property
    def label(self) -> str:
        return f"fp{self.code_bits} searched"

    def format(self, index: int) -> FloatGrid:
        """Look up one of the formats as a grid of its own."""
        exponent, mantissa = self.formats[index]
        return FloatGrid(exponent=exponent, mantissa=mantissa)

    def fit_range(self, low: Tensor, high: Tensor, power_of_two: bool, dtype: torch.dtype) -> Params:
        params = self.format(self.default).fit_range(low, high, power_of_two, dtype)
        return {**params, "format": torch.full(low.shape, self.default, dtype=torch.uint8, device=low.device)}

    def fault(self, params: Params) -> str | None:
        largest = int(params["format"].max()) if params["format"].numel() else 0
        if largest < len(self.formats):
            return None
        return f"format {largest}, but it chooses among {len(self.formats)}, counted from 0"

    def encode(self, x: Tensor, params: Params) -> Tensor:
        out = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
        for index in self._used(params):
            codes = self.format(index).encode(x, params)
            out = torch.where(params["format"] == index, codes, out)
        return out

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        out = torch.zeros(codes.shape, dtype=dtype, device=codes.device)
        for index in self._used(params):
            values = self.format(index).decode(codes, params, dtype)
            out = torch.where(params["format"] == index, values, out)
        return out

    def rounded(self, x: Tensor, params: Params) -> Tensor:
        if x.dtype != torch.float32:
            return super().rounded(x, params)
        # to ask a GPU which formats are used would wait for all its work: there all are tried
        used = self._used(params) if x.device.type == "cpu" else range(len(self.formats))
        out = torch.zeros_like(x)
        for index in used:
            out = torch.where(params["format"] == index, self.format(index).rounded(x, params), out)
        return out

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        ends = torch.zeros_like(params["scale"], dtype=x.dtype)
        for index in self._used(params):
            ends = torch.where(params["format"] == index, self.format(index).largest, ends)
        return scaled(x, values, params["scale"].to(x.dtype), -ends, ends)

    def _used(self, params: Params) -> list[int]:
        return [int(index) for index in params["format"].unique()]
