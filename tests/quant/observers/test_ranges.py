"""Streaming range searches against searches on the data themselves."""

from __future__ import annotations

import pytest
import torch

from quant.formats.granularity import View
from quant.formats.grids import IntGrid
from quant.observers.ranges import MseSearch
from quant.observers.sketch import LogHistogram

NAMES = ("uniform", "unsigned", "gauss", "heavy", "silu")


def data(name: str, count: int = 60_000) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    if name in ("uniform", "unsigned"):
        x = torch.rand(count, generator=draw)
        return x if name == "unsigned" else 2 * x - 1
    x = torch.randn(count, generator=draw)
    return {"gauss": x, "heavy": x**3, "silu": torch.nn.functional.silu(x)}[name]


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("name", NAMES)
def test_streamed_search_is_close_to_the_exact_one(name: str, bits: int, mode: str) -> None:
    x, grid, search = data(name), IntGrid(bits=bits, mode=mode), MseSearch(norm=2.4)
    stream = search.stream()
    for part in x.split(7000):
        stream.update(View(part, (0,)))

    def decibel(low: torch.Tensor, high: torch.Tensor) -> float:
        error = (x - grid.fake(x, grid.fit_range(low, high, False, torch.float32))).abs().pow(2.4).sum()
        return float(10 * torch.log10(error))

    found = decibel(*stream.range(grid))
    assert found <= decibel(*search.range_of(View(x, (0,)), grid)) + 0.15
    assert found <= decibel(x.amin(), x.amax()) + 0.01


def test_points_of_a_histogram_stand_for_its_entries() -> None:
    x = torch.stack([data("gauss"), data("unsigned") * 30 + 2, torch.zeros(60_000)])
    sketch = LogHistogram(3, x.device)
    sketch.update(x)
    for group in range(3):
        values, counts = sketch.points(64, slice(group, group + 1))
        assert float(counts.sum()) == pytest.approx(60_000)
        assert values.min() >= x[group].min() and values.max() <= x[group].max()
        mean = float((values * counts).sum() / counts.sum())
        assert mean == pytest.approx(float(x[group].mean()), abs=5e-3 * float(x[group].abs().max() + 1))
    far = LogHistogram(1, x.device)  # beyond the last bin
    far.update(torch.tensor([[2.0**30, -(2.0**27), 1.0]]))
    values, counts = far.points(4, slice(0, 1))
    assert values.isfinite().all() and values.max() > 2.0**29 and values.min() < -(2.0**26)


def test_groups_are_searched_apart() -> None:
    x = torch.stack([data("gauss", 4000) * factor for factor in torch.logspace(-2, 2, 40)])
    stream, grid = MseSearch().stream(), IntGrid(bits=4)
    stream.update(View(x, (1,)))
    low, high = stream.range(grid)
    assert low.shape == high.shape == (40, 1)
    one = MseSearch().stream()
    one.update(View(x[37:38], (1,)))
    assert torch.equal(one.range(grid)[1], high[37:38])
