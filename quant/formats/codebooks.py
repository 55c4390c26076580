"""Grids that are lists: sums of binary bases, and any increasing list of values."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from quant.formats.grids import Grid, Params
from quant.formats.rounding import as_storage, table_on
from quant.formats.straight import scaled


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

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        """Every basis rounds what the ones before it left over, straight through from -alpha to alpha."""
        rest, total = x, torch.zeros_like(x)
        for alpha in params["bases"].to(x.dtype):
            sign = torch.where(rest < 0, -alpha, alpha).detach()
            part = scaled(rest, sign, alpha, -1.0, 1.0)
            total, rest = total + part, rest - part
        return total

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
        table = table_on(self.values, x.dtype, x.device)
        middles = (table[1:] + table[:-1]) / 2
        return torch.bucketize(x / params["scale"].to(x.dtype), middles).to(torch.uint8)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
        table = table_on(self.values, dtype, codes.device)
        return table[codes.long()] * params["scale"].to(dtype)

    def surrogate(self, x: Tensor, params: Params, values: Tensor) -> Tensor:
        return scaled(x, values, params["scale"].to(x.dtype), self.values[0], self.values[-1])
