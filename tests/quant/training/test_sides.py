"""Learned ranges: what they can never become, and how a layer's own start is kept."""

from __future__ import annotations

import pytest
import torch

from quant.formats.grids import IntGrid
from quant.training.policy import by_channel, by_tensor
from quant.training.sides import Master, StoredInput, whole


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1e-9])
def test_a_scale_that_was_driven_through_nothing_stays_one(scale: float) -> None:
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    side = Master(weight, by_channel(4), "linear_weight")
    start = side.params()["scale"].detach().clone()
    side.scale.data.fill_(scale)
    assert torch.equal(side.params()["scale"], 1e-3 * start)
    assert torch.equal(side.encoded().decode(), side.weight().detach())
    for sign in (1.0, -1.0):  # a scale that is too small can grow again, and no more shrink
        side.scale.grad = None
        (sign * side.params()["scale"]).sum().backward()
        assert side.scale.grad is not None and side.scale.grad.unique().tolist() == [min(sign, 0.0)]
    params = {"scale": torch.full((1, 1, 1), 0.1), "zero_point": torch.full((1, 1, 1), 7).byte()}
    inputs = StoredInput(by_tensor(4), "linear_input", params)
    inputs.scale[0].data.fill_(scale)
    assert inputs.params()[0]["scale"].item() == pytest.approx(1e-4)
    assert bool(torch.isfinite(inputs(weight[None])).all())


def test_a_zero_point_is_a_code_and_comes_back_from_outside_of_them() -> None:
    zero = torch.tensor([-0.7, 0.4, 7.6, 15.2], requires_grad=True)
    found = whole(zero, by_tensor(4))
    assert found.tolist() == [0, 0, 8, 15]
    for sign, wanted in ((1, [0, 1, 1, 1]), (-1, [-1, -1, -1, 0])):  # descent leads in, or does not lead out
        zero.grad = None
        (sign * whole(zero, by_tensor(4))).sum().backward()
        assert zero.grad is not None and zero.grad.tolist() == wanted
    grid = by_tensor(4).grid
    assert isinstance(grid, IntGrid) and grid.code_range == (0, 15)
