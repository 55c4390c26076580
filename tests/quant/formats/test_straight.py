"""Gradients of every grid: straight through and clipped for inputs, LSQ's form for learned parameters."""

from __future__ import annotations

import pytest
import torch

from quant.formats.codebooks import BinaryGrid, CodebookGrid
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.grids import Grid, IntGrid
from quant.formats.logs import LogGrid

SCALED = [
    IntGrid(bits=4),
    IntGrid(bits=4, mode="unsigned"),
    FloatGrid(exponent=4, mantissa=3),
    FloatGrid(exponent=2, mantissa=1),
    FloatGrid(exponent=4, mantissa=3, hardware="e4m3fn"),
    SearchedFloatGrid(formats=((1, 2), (2, 1)), default=1),
    LogGrid(bits=4, signed=False),
    CodebookGrid(values=(-1.0, -0.3, 0.0, 1.0)),
]
"""One scale: x_hat(c x, c s) = c x_hat(x, s), so the gradient to the scale follows from the input's."""
X = torch.linspace(-6.1, 6.1, 801, dtype=torch.float64)


def fitted(grid: Grid, dtype: torch.dtype = torch.float64, reach: float = 2.0) -> dict[str, torch.Tensor]:
    """Parameters for -reach .. reach, one set for all of `X`."""
    ends = torch.tensor([reach], dtype=dtype)
    return grid.fit_range(-ends, ends, False, dtype)


def ends_of(grid: Grid, params: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Lowest and highest value of a grid, from what very large inputs become."""
    huge = torch.tensor([-1e6, 1e6], dtype=torch.float64)
    low, high = grid.fake(huge, params).tolist()
    return low, high


def gradients(grid: Grid, params: dict[str, torch.Tensor], names: list[str]) -> tuple[torch.Tensor, ...]:
    """Values, gradient to each input, and each input's gradient to the named parameters (n, ...)."""
    x = X.clone().requires_grad_()
    # one copy of each parameter for every input, so that their gradients stay apart
    wide = {k: v.expand(v.shape[:-1] + X.shape).clone() for k, v in params.items()}
    for name in names:
        wide[name].requires_grad_()
    values = grid.fake(x, wide)
    found = torch.autograd.grad(values.sum(), [x, *(wide[name] for name in names)])
    return values.detach(), *found


@pytest.mark.parametrize("grid", SCALED, ids=lambda g: f"{g.kind} {g.label}")
def test_input_and_scale(grid: Grid) -> None:
    params = fitted(grid)
    low, high = ends_of(grid, params)
    values, to_x, to_scale = gradients(grid, params, ["scale"])
    assert torch.equal(values, grid.fake(X, params)) and torch.equal(
        values, grid.decode(grid.encode(X, params), params, X.dtype)
    )
    step = (values.unique().diff()).max()
    inside, outside = (X >= low) & (X <= high), (X < low - step) | (X > high + step)
    assert torch.equal(to_x[inside], torch.ones_like(to_x[inside])) and not to_x[outside].any()
    assert (inside.sum() > 50 and outside.sum() > 50) or grid.label == "int4 unsigned"
    expected = (values - X * to_x) / params["scale"].double()
    torch.testing.assert_close(to_scale, expected, rtol=1e-9, atol=1e-9)


def test_zero_points_of_integers() -> None:
    grid = IntGrid(bits=4, mode="asymmetric")
    params = grid.fit_range(torch.tensor([-1.0]), torch.tensor([2.0]), False, torch.float64)
    params = {"scale": params["scale"].double(), "zero_point": params["zero_point"].double()}
    values, to_x, to_scale, to_zero = gradients(grid, params, ["scale", "zero_point"])
    assert torch.equal(to_zero, torch.where(to_x > 0, 0.0, -params["scale"]).expand_as(to_zero))
    torch.testing.assert_close(to_scale, (values - X * to_x) / params["scale"])


def test_each_sign_of_a_logarithmic_grid_has_its_scale() -> None:
    grid = LogGrid(bits=4)
    params = {**fitted(grid), "scale_negative": torch.tensor([1.0], dtype=torch.float64)}
    values, to_x, positive, negative = gradients(grid, params, ["scale", "scale_negative"])
    assert torch.equal(to_x, ((X >= -1.0) & (X <= 2.0)).double())
    expected = (values - X * to_x) / torch.where(X < 0, 1.0, 2.0)
    torch.testing.assert_close(positive, torch.where(X < 0, 0.0, expected))
    # as |x_hat| grows with the scale
    torch.testing.assert_close(negative, torch.where(X < 0, expected, 0.0))


def test_stored_steps_and_offsets_of_a_logarithmic_grid() -> None:
    grid = LogGrid(bits=4, octaves=None, offset=True)
    params = {**fitted(grid), "offset": torch.tensor([0.05], dtype=torch.float64)}
    names = ["scale", "offset", "step", "step_negative"]
    values, to_x, _, to_offset, to_step, to_negative = gradients(grid, params, names)
    sign = torch.where(X < 0, -1.0, 1.0).double()
    torch.testing.assert_close(to_offset, torch.where(to_x > 0, 0.0, -sign))
    # straight through in the exponent: d/dstep of top 2^(-q step) with q - q_exact in place of q
    magnitude, top, step = values * sign + 0.05, 2.0, params["step"]
    exact = -torch.log2((X.abs() + 0.05) / top) / step
    code = exact.round().clamp(0, 7)
    used = torch.where((exact >= 0) & (exact <= 7), exact, 0.0)
    expected = -torch.log(torch.tensor(2.0)).double() * magnitude * (code - used) * sign
    torch.testing.assert_close(to_step, torch.where(X < 0, 0.0, expected), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(to_negative, torch.where(X < 0, expected, 0.0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_bases_of_a_binary_grid(bits: int) -> None:
    grid = BinaryGrid(bits=bits)
    params = {"bases": torch.tensor([[1.0], [0.5], [0.25]], dtype=torch.float64)[:bits]}
    reach = float(params["bases"].sum())
    values, to_x, to_bases = gradients(grid, params, ["bases"])
    assert torch.equal(to_x, (X.abs() <= reach * (1 + 1e-6)).double())
    assert torch.equal(values, grid.fake(X, params)) and to_bases.shape[0] == bits
    # x_hat(c x, c alpha) = c x_hat: Euler's relation over all bases
    torch.testing.assert_close((to_bases * params["bases"]).sum(0), values - X * to_x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_that_made_the_scale_are_inside(dtype: torch.dtype) -> None:
    for grid in SCALED:
        x = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype).float().abs()
        params = grid.fit_range(-x.max()[None], x.max()[None], False, torch.float32)
        x.requires_grad_()
        grid.fake(x, params).sum().backward()
        assert x.grad is not None and float(x.grad[x.argmax()]) == 1.0, grid.label


def test_nothing_is_recorded_without_need() -> None:
    for grid in [*SCALED, BinaryGrid(bits=2)]:
        params = {"bases": torch.ones(2, 1)} if isinstance(grid, BinaryGrid) else fitted(grid, torch.float32)
        with torch.no_grad():
            assert not grid.fake(X.float().requires_grad_(), params).requires_grad
        assert not grid.fake(X.float(), params).requires_grad
