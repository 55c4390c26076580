"""Streaming range searches against searches on the data themselves."""

from __future__ import annotations

import pytest
import torch

from quant.formats.granularity import View
from quant.formats.grids import IntGrid
from quant.observers.ranges import MseSearch, Percentile
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


@pytest.mark.parametrize("name", NAMES)
def test_percentiles_are_order_statistics(name: str) -> None:
    """Of both ends; the histogram gives them to half a bin, an eighth of an octave wide."""
    x = torch.stack([data(name, 5000), data(name, 5000).flip(0) ** 3 - 0.2])
    ordered = x.sort(1).values
    sketch = LogHistogram(2, x.device)
    for part in x.split(700, 1):
        sketch.update(part)
    assert torch.equal(sketch.counts.sum(1), torch.tensor([5000, 5000]))
    for share, rank in ((0.0, 0), (0.0005, 2), (0.01, 50), (0.3, 1500), (0.99, 4950), (1.0, 4999)):
        torch.testing.assert_close(
            sketch.quantile(share), ordered[:, rank], rtol=2 ** (1 / 16) - 1, atol=1e-6
        )
    whole, streamed = View(x, (1,)), Percentile(percent=98.0)
    low, high = streamed.range_of(whole, IntGrid(bits=8))  # 1 % of 5000 is cut at either end
    assert torch.equal(low[:, 0], ordered[:, 50]) and torch.equal(high[:, 0], ordered[:, 4949])
    stream = streamed.stream()
    stream.update(whole)
    found = stream.range(IntGrid(bits=8))
    for side, exact in zip(found, (low, high), strict=True):
        torch.testing.assert_close(side, exact, rtol=0.08, atol=1e-6)
