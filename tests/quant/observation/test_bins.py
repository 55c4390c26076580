"""Bins by bit pattern, quantiles off them, moments that merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from quant.formats.floats import FloatGrid
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.observation import bins, grid_levels
from quant.observation.moments import Moments
from quant.observation.stats import bimodality


def values(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp2(torch.randint(-30, 20, (count,), generator=generator).float())
    drawn = torch.randn(count, generator=generator) * spread
    return torch.cat([drawn, torch.tensor([0.0, -0.0, 1.0, -1.0, 1.125, 2.0**-18, -(2.0**-18), 6e4, 1e9])])


def test_bin_holds_its_value() -> None:
    x, edges = values(), bins.edges()
    place = bins.bin_index(x).long()
    assert edges.shape == (bins.BINS + 1,) and bool((edges.diff() > 0).all())
    for value, low, high in zip(x.double(), edges[place], edges[place + 1], strict=True):
        if abs(value) >= 2.0**bins.HIGHEST:
            assert max(abs(low), abs(high)) == 2.0**bins.HIGHEST
        elif value >= 0:
            assert low <= value < high
        else:
            assert low < value <= high or (abs(value) < 2.0**bins.LOWEST and low <= value < high)


def test_counts_by_group_and_beyond_an_edge_are_exact() -> None:
    x = values().reshape(-1, 1).repeat(1, 3) * torch.tensor([1.0, 2.0, -4.0])
    counts = bins.count(x, 3)
    assert counts.sum(1).tolist() == [len(x)] * 3
    edge = bins.nearest_edge(5.1)
    threshold = float(bins.magnitudes()[edge])
    assert threshold == 5.0
    assert bins.beyond(counts, edge).tolist() == (x.abs() >= threshold).sum(0).tolist()


def test_quantiles_within_a_bin() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(1)) * 3 + 1
    shares = (0.001, 0.01, 0.25, 0.9, 0.999)
    found = bins.quantiles(bins.count(x[:, None], 1), shares, x.min()[None], x.max()[None])[0]
    exact = torch.from_numpy(np.quantile(x.numpy(), shares))
    assert torch.allclose(found, exact, rtol=0.03, atol=0.02)
    low = bins.quantiles(bins.count(torch.full((5, 1), 0.3), 1), (0.0, 0.5, 1.0), *[torch.tensor([0.3])] * 2)
    assert torch.equal(low.float(), torch.full((1, 3), 0.3))


def test_moments_merge_to_scipys() -> None:
    generator = torch.Generator().manual_seed(2)
    # a mean far from 0, where power sums would cancel
    x = torch.empty(3000, 4).exponential_(generator=generator) + torch.tensor([0.0, 10.0, 1000.0, -5.0])
    parts = [Moments.of(part, (0,)) for part in x.split([1, 700, 1299, 1000])]
    merged = parts[0]
    for part in parts[1:]:
        merged = Moments.merge([merged, part])
    wide = x.double().numpy()
    for ours, theirs in (
        (merged.mean, wide.mean(0)), (merged.var, wide.var(0)), (merged.skewness, stats.skew(wide)),
        (merged.kurtosis, stats.kurtosis(wide, fisher=False)),
    ):  # fmt: skip
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-3 if ours is merged.kurtosis else 1e-3)
    every, flat = merged.over(0), wide.ravel()  # channels as far apart as their means
    found = [float(value) for value in (every.mean, every.var, every.skewness, every.kurtosis)]
    wanted = flat.mean(), flat.var(), stats.skew(flat), stats.kurtosis(flat, fisher=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    names = {"count": "n", "mean": "mean", "var": "var", "skewness": "skewness", "kurtosis": "kurtosis"}
    again = Moments.from_fields({name: getattr(merged, field).numpy() for name, field in names.items()})
    for one, other in zip(again.fields(), merged.fields(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-9)
    constant = Moments.of(torch.full((10, 2), 3.0), (0,))
    assert constant.kurtosis.tolist() == [0, 0] and constant.var.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("grid", "levels"),
    [
        (IntGrid(bits=4), 15),
        (IntGrid(bits=8, mode="asymmetric"), 256),
        (FloatGrid(exponent=2, mantissa=1), 15),
        (FloatGrid(exponent=4, mantissa=3, hardware="e4m3fn"), 253),
        (LogGrid(bits=4), 16),
    ],
)
def test_levels_of_a_grid(grid: object, levels: int) -> None:
    found = grid_levels(grid, -3.0, 5.0)  # type: ignore[arg-type]
    assert len(found) == levels and (np.diff(found) > 0).all()
    assert found[-1] == pytest.approx(5.0, rel=1e-2)


def test_bimodality_tells_two_peaks_from_one() -> None:
    generator = torch.Generator().manual_seed(4)
    one = torch.exp2(torch.randn(5000, generator=generator) - 8)
    two = torch.cat([one, torch.exp2(0.2 * torch.randn(5000, generator=generator) - 1)])
    low, high = (bimodality(bins.count(x[:, None], 1)[0].numpy()) for x in (one, two))
    assert low < 0.4 and high > 0.75


@pytest.mark.gpu
def test_a_gpu_counts_like_the_cpu() -> None:
    x = values().reshape(-1, 1)
    assert torch.equal(bins.count(x.cuda(), 1).cpu(), bins.count(x, 1))
