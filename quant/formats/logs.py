"""Logarithmic grids: powers of two with a step of any size between them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from quant.formats.grids import Grid, Params
from quant.formats.rounding import as_storage, table_on
from quant.formats.straight import scaled


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

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        """Each sign has its scale; a stored offset shifts magnitudes, a stored step spreads them.

        The grid ends at its largest magnitudes. Values between the smallest negative and the smallest
        positive one lie inside; unsigned grids end at their smallest value.
        """
        negative = (x < 0) if self.signed else torch.zeros_like(x, dtype=torch.bool)
        top = params["scale"].to(x.dtype)
        step = self._steps(params, "step", x.dtype)
        if self.signed:
            top = torch.where(negative, params["scale_negative"].to(x.dtype), top)
            if isinstance(step, Tensor):
                step = torch.where(negative, self._steps(params, "step_negative", x.dtype), step)
        sign = torch.where(negative, -1.0, 1.0).to(x.dtype)
        shift = params["offset"].to(x.dtype) if self.offset else torch.zeros_like(top)
        magnitude, rounded = x * sign + shift, values * sign + shift
        smallest = torch.exp2(torch.as_tensor(-(self._count - 1) * step, dtype=x.dtype, device=x.device))
        # signed grids: below the smallest magnitude lies the other sign's half of the same interval
        low = torch.full_like(smallest, -torch.inf) if self.signed else smallest.detach()
        out = scaled(magnitude, rounded.detach(), top, low, 1.0) - shift
        if isinstance(step, Tensor):
            with torch.no_grad():
                exact = -torch.log2((magnitude / top).clamp(min=torch.finfo(x.dtype).tiny)) / step
                code = torch.round(exact).clamp(0, self._count - 1)
                inside = (exact >= -1e-5) & (exact <= self._count - 1)
                slope = -math.log(2.0) * rounded * (code - torch.where(inside, exact, 0.0))
            out = out + slope * step - (slope * step).detach()
        return out * sign

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        if self.octaves is None or self.offset:
            return self._decode_stored(codes, params, dtype)
        magnitudes = tuple(2.0 ** (-q * self._step) for q in range(self._count))
        table = table_on(magnitudes, dtype, codes.device)
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
