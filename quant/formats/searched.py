"""Small floats whose split into exponent and mantissa bits is chosen by tensor and stored with it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from quant.formats.grids import FloatGrid, Grid, Params


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

    def _used(self, params: Params) -> list[int]:
        return [int(index) for index in params["format"].unique()]
