"""How a range is found: min-max, percentile, MSE search; in one shot or streaming.

An observer is a frozen description. `range_of` looks at a whole tensor at once (weights, dynamic scales);
`stream` starts a running summary for calibration that keeps a few numbers a group and never the inputs.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from quant.formats.granularity import View
from quant.formats.grids import Grid
from quant.observers.sketch import LogHistogram

Range = tuple[Tensor, Tensor]
_POINTS, _GROUPS = 64, 32
"""Values that stand for a histogram's bin (20 codes of 8 bits), groups searched together."""
_PORTION = 2**20
"""Groups times shrink factors whose parameters are found together."""


class Stream:
    """Running summary of one tensor position; subclasses keep a bounded state."""

    def update(self, view: View) -> None:
        """Take one batch in."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def range(self, grid: Grid) -> Range:
        """Low and high of everything seen, shaped like the view with shared axes of size 1."""
        raise TypeError(f"{type(self).__name__} is abstract")


class MinMax(BaseModel):
    """The smallest and the largest value."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["minmax"] = "minmax"

    def range_of(self, view: View, grid: Grid) -> Range:
        """Exact minimum and maximum."""
        return torch.amin(view.tensor, view.dims, keepdim=True), torch.amax(
            view.tensor, view.dims, keepdim=True
        )

    def stream(self) -> Stream:
        """Keep a running minimum and maximum."""
        return _MinMaxStream()


class _MinMaxStream(Stream):
    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, view: View) -> None:
        low = torch.amin(view.tensor, view.dims, keepdim=True).detach()
        high = torch.amax(view.tensor, view.dims, keepdim=True).detach()
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def range(self, grid: Grid) -> Range:
        if self.low is None or self.high is None:
            raise RuntimeError("the observer has seen nothing: run calibration data through the model first")
        return self.low, self.high


class Percentile(BaseModel):
    """Cut the tails, keep the central `percent` of the values (streaming: off a histogram with 9 % bins)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["percentile"] = "percentile"
    percent: float = Field(
        default=99.9, gt=50, le=100, description="share of the values inside the range, percent"
    )

    def range_of(self, view: View, grid: Grid) -> Range:
        """Exact order statistics (nearest rank, outwards)."""
        rows = _rows(view)
        tail = int(rows.shape[1] * (1 - self.percent / 100) / 2)
        ordered = rows.sort(dim=1).values
        return _shaped(ordered[:, tail], view), _shaped(ordered[:, rows.shape[1] - 1 - tail], view)

    def stream(self) -> Stream:
        """Quantiles of a signed log histogram."""
        return _SketchStream(self)


class MseSearch(BaseModel):
    """Shrink the min-max range by the factor that leaves the least mean |error|^norm, a group at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["mse"] = "mse"
    candidates: int = Field(default=40, ge=2, le=400, description="shrink factors tried")
    smallest: float = Field(default=0.3, gt=0, lt=1, description="smallest shrink factor")
    norm: float = Field(default=2.0, gt=0, le=8, description="power of the error; 2.4 is common for weights")

    def range_of(self, view: View, grid: Grid) -> Range:
        """Search on the tensor itself."""
        low, high = MinMax().range_of(view, grid)
        return self.search(view.tensor, None, view.dims, low, high, grid)

    def stream(self) -> Stream:
        """Search on a signed log histogram, whose bins count as evenly filled."""
        return _SketchStream(self)

    def search(
        self, x: Tensor, weight: Tensor | None, dims: tuple[int, ...], low: Tensor, high: Tensor, grid: Grid
    ) -> Range:
        """Best of `candidates` shrink factors from 1 down; `weight` counts the entries of `x`."""
        factors = torch.linspace(1.0, self.smallest, self.candidates).to(low)
        best, chosen = torch.full_like(low, torch.inf), torch.ones_like(low)
        # in portions: on few groups an operation costs more than its work
        for some in factors.split(max(1, _PORTION // low.numel())):
            spread = some.reshape(-1, *[1] * low.ndim)
            params = grid.fit_range(low * spread, high * spread, False, torch.float32)
            totals = []
            for index in range(len(some)):
                rounded = grid.fake(x, {name: value[index] for name, value in params.items()})
                error = (rounded - x).abs_().pow_(self.norm)
                totals.append((error if weight is None else error.mul_(weight)).sum(dims, keepdim=True))
            least = torch.stack(totals).nan_to_num_(nan=torch.inf, posinf=torch.inf).min(0)  # first of equals
            better = least.values < best
            best = torch.where(better, least.values, best)
            chosen = torch.where(better, some[least.indices], chosen)
        return low * chosen, high * chosen


class _SketchStream(Stream):
    def __init__(self, observer: Percentile | MseSearch) -> None:
        self.observer = observer
        self.sketch: LogHistogram | None = None
        self.shape: tuple[int, ...] = ()

    def update(self, view: View) -> None:
        rows = _rows(view)
        self.shape = tuple(1 if axis in view.dims else n for axis, n in enumerate(view.tensor.shape))
        if self.sketch is None:
            self.sketch = LogHistogram(rows.shape[0], rows.device)
        self.sketch.update(rows.detach())

    def range(self, grid: Grid) -> Range:
        if self.sketch is None:
            raise RuntimeError("the observer has seen nothing: run calibration data through the model first")
        low, high = self.sketch.low[:, None], self.sketch.high[:, None]
        if isinstance(self.observer, Percentile):
            tail = (1 - self.observer.percent / 100) / 2
            low, high = self.sketch.quantile(tail)[:, None], self.sketch.quantile(1 - tail)[:, None]
        else:
            parts = []
            for start in range(0, len(low), _GROUPS):
                rows = slice(start, start + _GROUPS)
                x, weight = self.sketch.points(_POINTS, rows)
                parts.append(self.observer.search(x, weight, (1,), low[rows], high[rows], grid))
            low, high = (torch.cat(side) for side in zip(*parts, strict=True))
        return low.reshape(self.shape), high.reshape(self.shape)


def _rows(view: View) -> Tensor:
    """Lay the view out as (groups, entries), groups in view order."""
    kept = [axis for axis in range(view.tensor.ndim) if axis not in view.dims]
    entries = 1
    for axis in view.dims:
        entries *= view.tensor.shape[axis]
    return view.tensor.permute(*kept, *view.dims).reshape(-1, entries)


def _shaped(rows: Tensor, view: View) -> Tensor:
    return rows.reshape([1 if axis in view.dims else n for axis, n in enumerate(view.tensor.shape)])


AnyObserver = Annotated[MinMax | Percentile | MseSearch, Field(discriminator="kind")]
