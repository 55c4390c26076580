"""A quantizer is four words: which numbers, who shares a scale, when, and how the range is found."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from quant.formats.codebooks import BinaryGrid, CodebookGrid
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.granularity import Granularity, Layout, View
from quant.formats.grids import IntGrid, Params
from quant.formats.logs import LogGrid
from quant.formats.rounding import least_scale
from quant.formats.scale_search import searched
from quant.formats.scales import effective, split
from quant.formats.schedule import Schedule
from quant.observers.ranges import AnyObserver, MinMax, Stream

AnyGrid = Annotated[
    IntGrid | FloatGrid | LogGrid | BinaryGrid | CodebookGrid | SearchedFloatGrid, Field(discriminator="kind")
]
DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}  # fmt: skip


class Quantizer(BaseModel):
    """Grid, granularity, schedule and observer, put together.

    Examples
    --------
    >>> import torch
    >>> q = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="group", group_size=64))
    >>> codes, params = q.encode(torch.randn(8, 128), "linear_weight")
    >>> q.decode(codes, params, "linear_weight").shape
    torch.Size([8, 128])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    grid: AnyGrid
    granularity: Granularity
    schedule: Schedule = Schedule()
    observer: AnyObserver = MinMax()
    scale: Literal["real", "power_of_two"] = Field(default="real", description="which scales exist")
    scale_dtype: Literal["float32", "bfloat16", "float16", "float8_e4m3fn"] = Field(
        default="float32", description="how scales are stored; codes are computed with the stored value"
    )
    fine: Literal["pow2", "int", "e4m3"] | None = Field(
        default=None,
        description="group scales of two levels (formats.scales): a coarse one times a small exact number",
    )

    search: int = Field(
        default=0, ge=0, description="coarse scales tried a row for fine scales pow2 and int; 0: no search"
    )

    @model_validator(mode="after")
    def _check(self) -> Quantizer:
        if self.fine and (self.granularity.kind != "group" or self.scale != "real"):
            raise ValueError(f"fine scales belong to groups with real scales, got {self.granularity.kind}")
        if self.search and not (self.fine in ("pow2", "int") and isinstance(self.grid, IntGrid)):
            raise ValueError(f"search is for integers with fine scales pow2 or int, got {self.label}")
        return self

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.grid.code_bits

    @property
    def largest_code(self) -> int:
        """Largest integer code; of floats, whose fine scales do not depend on it, 1."""
        return self.grid.code_range[1] if isinstance(self.grid, IntGrid) else 1

    @property
    def label(self) -> str:
        """Short name for tables, as `int4/g64`."""
        kind = "/pow2" if self.scale == "power_of_two" else ""
        return f"{self.grid.label}/{self.granularity.label}{kind}" + (f"x{self.fine}" if self.fine else "")

    def params(self, x: Tensor, layout: Layout) -> Params:
        """Parameters from the data of `x` alone."""
        view = self.granularity.view(_wide(x).detach(), layout)
        if isinstance(self.grid, BinaryGrid):
            return self.grid.fit_data(view.tensor, view.dims, DTYPES[self.scale_dtype])
        low, high = self.observer.range_of(view, self.grid)
        if self.search:
            return self._searched(view, low, high, layout)
        return self._fit(low, high, layout)

    def blank_params(self, shape: tuple[int, ...], layout: Layout) -> Params:
        """Parameters of the right shapes and types for a tensor of `shape`, without making one."""
        view = self.granularity.view(torch.empty(shape, device="meta"), layout)
        blank = torch.zeros([1 if axis in view.dims else n for axis, n in enumerate(view.tensor.shape)])
        if isinstance(self.grid, BinaryGrid):
            return self.grid.fit_data(blank, view.dims, DTYPES[self.scale_dtype])
        return self._fit(blank, blank, layout)

    def stream(self) -> Stream:
        """Start streaming statistics for `params_of`."""
        return self.observer.stream()

    def observe(self, stream: Stream, x: Tensor, layout: Layout) -> None:
        """Add a batch to a stream."""
        stream.update(self.granularity.view(_wide(x).detach(), layout))

    def params_of(self, stream: Stream, layout: Layout = "linear_input") -> Params:
        """Parameters from everything a stream has seen; `layout` matters to scales of two levels."""
        return self._fit(*stream.range(self.grid), layout)

    def _fit(self, low: Tensor, high: Tensor, layout: Layout) -> Params:
        if self.fine is not None:
            real = self._real_scales(low, high)
            return {**real, **split(real["scale"], layout, self.fine, code=self.largest_code)}
        params = self.grid.fit_range(low, high, self.scale == "power_of_two", DTYPES[self.scale_dtype])
        if self._without_zero:  # the stand-in scale of 1 for a group of zeros would be a value
            least = least_scale(params["scale"].dtype)
            reach = {"scale": high if isinstance(self.grid, LogGrid) else torch.maximum(high, -low)}
            if "scale_negative" in params:
                reach["scale_negative"] = -low
            for name, largest in reach.items():
                params[name] = params[name].masked_fill(largest < least, least)
        return params

    @property
    def _without_zero(self) -> bool:
        """Whether no code stands for 0."""
        grid = self.grid
        return isinstance(grid, LogGrid) or (isinstance(grid, CodebookGrid) and 0 not in grid.values)

    def _real_scales(self, low: Tensor, high: Tensor) -> Params:
        """Group scales before they are split; 0 for a group of zeros, whose stand-in of 1 is no range."""
        real = self.grid.fit_range(low, high, False, torch.float32)
        signed = not (isinstance(self.grid, IntGrid) and self.grid.mode == "unsigned")
        reach = high.maximum(-low) if signed else high
        nothing = (real["scale"] == 1) & (reach < 0.5)  # a real scale of 1 reaches to 1 at least
        return {**real, "scale": real["scale"].masked_fill(nothing, 0.0)}

    def _searched(self, view: View, low: Tensor, high: Tensor, layout: Layout) -> Params:
        assert isinstance(self.grid, IntGrid) and self.fine in ("pow2", "int")  # as `_check` saw to
        real = self._real_scales(low, high)
        return {**real, **searched(view, real["scale"], self.grid, layout, self.fine, self.search)}

    def encode(self, x: Tensor, layout: Layout, params: Params | None = None) -> tuple[Tensor, Params]:
        """Codes in the shape of `x`, and the parameters (found from `x` unless given)."""
        params = self.params(x, layout) if params is None else params
        view = self.granularity.view(_wide(x), layout)
        codes = self.grid.encode(view.tensor, effective(params, view.tensor.dtype))
        return self.granularity.unview(codes, x.shape, layout), params

    def decode(
        self, codes: Tensor, params: Params, layout: Layout, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Values that codes stand for, computed in at least float32 and returned as `dtype`."""
        view = self.granularity.view(codes, layout)
        wide = torch.promote_types(dtype, torch.float32)
        values = self.grid.decode(view.tensor, effective(params, wide), wide)
        return self.granularity.unview(values, codes.shape, layout).to(dtype)

    def fake(self, x: Tensor, layout: Layout, params: Params | None = None) -> Tensor:
        """Quantize and come back: bit for bit `decode(encode(x))`."""
        params = self.params(x, layout) if params is None else params
        view = self.granularity.view(_wide(x), layout)
        values = self.grid.fake(view.tensor, effective(params, view.tensor.dtype))
        return self.granularity.unview(values, x.shape, layout).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """Arithmetic happens in at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def int_quantizer(bits: int, granularity: str, group_size: int | None = None, **options: object) -> Quantizer:
    """Symmetric integers; group scales are stored as bfloat16, others as float32.

    A bfloat16 scale keeps float32's range and moves the top code by at most 2^-9 of its value: nothing at
    4 bits, up to a quarter of a step at 8, hence float32 there.
    """
    dtype = "bfloat16" if granularity == "group" and bits <= 4 else "float32"
    shared = Granularity(kind=granularity, group_size=group_size)  # type: ignore[arg-type]
    return Quantizer(grid=IntGrid(bits=bits), granularity=shared, scale_dtype=dtype, **options)  # type: ignore
