from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from quant.errors import InputError
from quant.formats.floats import FloatGrid
from quant.formats.grids import IntGrid
from quant.observation import bins
from quant.observation.stats import TensorStats
from quant.observation.whatif import what_if


def stats_of(x: torch.Tensor) -> TensorStats:
    """Statistics (one timestep) of values of shape (n, channels), as `observe` would count them."""
    edges = bins.edges().numpy()
    counts = np.stack([np.histogram(column, edges)[0] for column in x.T.numpy()])
    channel = {"min": x.amin(0)[None].numpy(), "max": x.amax(0)[None].numpy()}
    nothing = np.zeros((1, 0))
    return TensorStats(
        "layer", "input", nn.Linear.__name__, np.array([1.0]), channel, counts.sum(0)[None], counts,
        np.array([1.0]), nothing, nothing, np.zeros((x.shape[1], 0)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    spread = torch.exp(torch.randn(24, generator=g))
    return torch.randn(4000, 24, generator=g) * spread


GRIDS = [
    IntGrid(bits=8),
    IntGrid(bits=4),
    IntGrid(bits=3, mode="asymmetric"),
    FloatGrid(exponent=2, mantissa=1),
    FloatGrid(exponent=4, mantissa=3),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.label)
@pytest.mark.parametrize("shared", ["tensor", "channel"])
@pytest.mark.parametrize("clip", [1.0, 0.4])
def test_it_says_what_rounding_the_values_gives(values, grid, shared, clip) -> None:
    axis = None if shared == "tensor" else 0
    low = clip * (values.amin() if axis is None else values.amin(0))
    high = clip * (values.amax() if axis is None else values.amax(0))
    params = grid.fit_range(low, high, False, torch.float32)
    exact = (grid.fake(values.clone(), params) - values).square().mean().item()
    seen = what_if(stats_of(values), grid, shared, clip)
    assert seen.sqnr_db == pytest.approx(10 * math.log10(values.square().mean().item() / exact), abs=0.15)
    outside = ((values < low) | (values > high)).float().mean().item()
    assert seen.clipped == pytest.approx(outside, abs=0.004)
    assert clip < 1 or seen.clipped == 0
    assert len(seen.levels) <= 2**grid.code_bits


def test_channels_with_scales_of_their_own_lose_less(values) -> None:
    stats, grid = stats_of(values), IntGrid(bits=4)
    assert what_if(stats, grid, "channel").sqnr_db > what_if(stats, grid, "tensor").sqnr_db + 3


@pytest.mark.parametrize("clip", [0.0, 1.1, math.nan])
def test_clips_out_of_bounds_are_refused(values, clip) -> None:
    with pytest.raises(InputError, match=r"clip .*must be 0\.01 to 1"):
        what_if(stats_of(values), IntGrid(bits=4), "tensor", clip)
