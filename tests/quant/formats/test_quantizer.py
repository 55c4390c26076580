"""Grids, granularities and observers, each alone and put together."""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError

from quant.formats.codebooks import BinaryGrid, CodebookGrid
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.observers.ranges import MinMax, MseSearch, Percentile

GRIDS = [
    *[IntGrid(bits=b, mode=m) for b in (2, 3, 4, 8) for m in ("symmetric", "asymmetric", "unsigned")],
    FloatGrid(exponent=4, mantissa=3),
    FloatGrid(exponent=4, mantissa=3, hardware="e4m3fn"),
    FloatGrid(exponent=5, mantissa=2, hardware="e5m2"),
    FloatGrid(exponent=2, mantissa=1),
    FloatGrid(exponent=1, mantissa=2),
    FloatGrid(exponent=3, mantissa=0),
    LogGrid(bits=3),
    LogGrid(bits=4),
    LogGrid(bits=4, signed=False),
    BinaryGrid(bits=1),
    BinaryGrid(bits=2),
    CodebookGrid(values=(-1.0, -0.3, 0.0, 1.0)),
]
SHAPES = {
    "linear_weight": (9, 70),
    "conv_weight": (6, 20, 3, 3),
    "linear_input": (2, 5, 70),
    "conv_input": (2, 20, 4, 3),
}


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(
        dtype
    )


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.label)
@pytest.mark.parametrize("layout", list(SHAPES))
def test_fake_is_decode_of_encode(grid, layout: str) -> None:
    for kind, scale in itertools.product(
        ("tensor", "channel", "token", "sample", "input_channel", "group"), ("real", "power_of_two")
    ):
        granularity = Granularity(kind=kind, group_size=16 if kind == "group" else None)
        if not granularity.allows(layout):
            continue
        for dtype, stored in (
            (torch.float32, "float32"),
            (torch.bfloat16, "bfloat16"),
            (torch.float64, "float16"),
        ):
            q = Quantizer(grid=grid, granularity=granularity, scale=scale, scale_dtype=stored)
            x = drawn(*SHAPES[layout], dtype=dtype)
            codes, params = q.encode(x, layout)
            assert codes.shape == x.shape and codes.dtype == (
                torch.int8 if grid.signed_codes else torch.uint8
            )
            decoded = q.decode(codes, params, layout, dtype)
            assert torch.equal(q.fake(x, layout), decoded) and decoded.dtype == dtype
            blank = q.blank_params(tuple(x.shape), layout)
            assert {k: (v.shape, v.dtype) for k, v in blank.items()} == {
                k: (v.shape, v.dtype) for k, v in params.items()
            }
            assert Quantizer.model_validate_json(q.model_dump_json()) == q


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.label)
def test_never_more_levels_than_codes(grid) -> None:
    q = Quantizer(grid=grid, granularity=Granularity(kind="tensor"))
    ramp = torch.linspace(-3, 2, 20001, dtype=torch.float64)[None]
    codes, params = q.encode(ramp, "linear_weight")
    assert q.fake(ramp, "linear_weight").unique().numel() <= 2**grid.code_bits
    assert len({int(c) & (2**grid.code_bits - 1) for c in codes.unique()}) <= 2**grid.code_bits
    if "zero_point" in params:
        assert params["zero_point"].dtype == torch.uint8
        assert q.fake(torch.zeros(1, 4), "linear_weight", params).eq(0).all()


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.label)
def test_codes_are_idempotent(grid) -> None:
    q = Quantizer(grid=grid, granularity=Granularity(kind="channel"))
    x = drawn(4, 33, dtype=torch.float64)
    codes, params = q.encode(x, "linear_weight")
    again, _ = q.encode(q.decode(codes, params, "linear_weight", torch.float64), "linear_weight", params)
    if isinstance(grid, FloatGrid):  # -0 and 0 are two codes of one value
        assert torch.equal(q.decode(again, params, "linear_weight"), q.decode(codes, params, "linear_weight"))
    elif not isinstance(grid, BinaryGrid) or grid.bits == 1:
        assert torch.equal(again, codes)


@pytest.mark.parametrize(
    ("grid", "dtype"),
    [
        (FloatGrid(hardware="e4m3fn"), torch.float8_e4m3fn),
        (FloatGrid(exponent=5, mantissa=2, hardware="e5m2"), torch.float8_e5m2),
    ],
)
def test_hardware_floats_are_torch_bit_patterns(grid: FloatGrid, dtype: torch.dtype) -> None:
    x = torch.cat(
        [drawn(50000) * 10.0 ** torch.arange(-6, 4).repeat(5000), torch.tensor([0.0, -0.0, 1e9, -1e9])]
    )
    table = torch.tensor([v for v in grid.table() if abs(v) <= grid.largest])
    x = torch.cat(
        [x, table, (table.sort().values[1:] + table.sort().values[:-1]) / 2]
    )  # values and all midpoints
    codes = grid.encode(x, {"scale": torch.ones(1)})
    assert torch.equal(codes, x.clamp(-grid.largest, grid.largest).to(dtype).view(torch.uint8))


@pytest.mark.parametrize("grid", [g for g in GRIDS if isinstance(g, FloatGrid)], ids=lambda g: g.label)
def test_floats_go_to_the_nearest_value(grid: FloatGrid) -> None:
    values = torch.tensor(sorted({v for v in grid.table() if abs(v) <= grid.largest}), dtype=torch.float64)
    assert len(values) == 2**grid.code_bits - 1 or grid.hardware
    x = drawn(2000, dtype=torch.float64) * grid.largest / 3
    nearest = (x[:, None].clamp(-grid.largest, grid.largest) - values).abs().min(1).values
    fake = grid.fake(x, {"scale": torch.ones(1, dtype=torch.float64)})
    torch.testing.assert_close(
        (fake - x.clamp(-grid.largest, grid.largest)).abs(), nearest, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("grid", [g for g in GRIDS if isinstance(g, FloatGrid)], ids=lambda g: g.label)
@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-4])
def test_float_fake_needs_no_codes(grid: FloatGrid, scale: float) -> None:
    values = torch.tensor(sorted(set(grid.table())))
    ties, edges = (values[1:] + values[:-1]) / 2, torch.tensor([0.0, -0.0, 1e-40, -1e-45, 1e30, -1e30])
    x = torch.cat([values, ties, edges, drawn(4000) * grid.largest / 3, drawn(4000) * 1e-3]) * scale
    params = {"scale": torch.full((1,), scale)}
    quick, coded = grid.fake(x, params), grid.decode(grid.encode(x, params), params, x.dtype)
    assert torch.equal(quick.view(torch.int32), coded.view(torch.int32))  # the sign of zero as well


def test_log_grid_is_scale_equivariant_and_keeps_signs() -> None:
    q = Quantizer(grid=LogGrid(bits=4), granularity=Granularity(kind="channel"))
    x = drawn(8, 64)
    assert torch.equal(q.fake(4 * x, "linear_weight"), 4 * q.fake(x, "linear_weight"))
    assert torch.equal(q.fake(x, "linear_weight").sign(), x.sign())
    assert (q.fake(x, "linear_weight")[0] > 0).sum() and q.fake(x, "linear_weight")[0].unique().numel() <= 16
    attention = LogGrid(bits=4, signed=False, octaves=15.0)
    zeros = attention.fake(
        torch.zeros(3), attention.fit_range(torch.zeros(1), torch.ones(1), False, torch.float32)
    )
    assert torch.isfinite(zeros).all() and zeros.max() <= 2.0**-15


def test_power_of_two_scales_are_powers_of_two_and_cover() -> None:
    q = int_quantizer(4, "group", 16, scale="power_of_two")
    _, params = q.encode(drawn(8, 64), "linear_weight")
    mantissa, _ = torch.frexp(params["scale"].float())
    assert mantissa.eq(0.5).all()
    assert (
        params["scale"].float() * 7 >= drawn(8, 64).unflatten(1, (-1, 16)).abs().amax(2, keepdim=True)
    ).all()


def test_group_along_channels_keeps_kernel_positions_apart() -> None:
    w = torch.zeros(2, 128, 3, 3)
    w[0, 3, 1, 1] = 100.0
    w[0, 4] = 1.0
    _, params = int_quantizer(8, "group", 64).encode(w, "conv_weight")
    assert params["scale"].shape == (2, 2, 1, 3, 3)
    assert (params["scale"][0, 0, 0] > 0.5).nonzero().tolist() == [[1, 1]]


def test_costs_are_told_apart() -> None:
    assert Granularity(kind="channel").cost("linear_weight") == "free"
    assert Granularity(kind="token").cost("conv_input", kernel_size=1) == "free"
    assert Granularity(kind="token").cost("conv_input", kernel_size=9) == "reduction"
    assert Granularity(kind="sample").cost("conv_input", kernel_size=9) == "free"
    assert Granularity(kind="group", group_size=64).cost("linear_input") == "reduction"
    with pytest.raises(ValidationError, match="group_size"):
        Granularity(kind="token", group_size=64)


@pytest.mark.parametrize("observer", [MinMax(), Percentile(percent=99), MseSearch()])
def test_streams_agree_with_one_shot_and_stay_small(observer) -> None:
    q = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="input_channel"), observer=observer)
    x = drawn(64, 40, 6) * torch.arange(1, 7)
    stream = q.stream()
    for batch in x.split(8):
        q.observe(stream, batch, "linear_input")
    once, streamed = q.params(x, "linear_input")["scale"], q.params_of(stream)["scale"]
    assert once.shape == streamed.shape
    torch.testing.assert_close(streamed, once, rtol=0.0 if isinstance(observer, MinMax) else 0.12, atol=0.0)
    held = [t for t in vars(getattr(stream, "sketch", stream)).values() if isinstance(t, torch.Tensor)]
    assert sum(t.numel() for t in held) <= 6 * 800


def test_mse_search_beats_min_max_on_tails() -> None:
    x = drawn(16, 256) ** 3
    errors = []
    for observer in (MinMax(), MseSearch()):
        q = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="channel"), observer=observer)
        errors.append((q.fake(x, "linear_weight") - x).square().mean().item())
    assert errors[1] < 0.9 * errors[0]


def test_gradients_pass_straight_through() -> None:
    x = drawn(4, 32).requires_grad_()
    scale = torch.full((4, 1), 0.3, requires_grad=True)
    q = int_quantizer(4, "token")
    q.fake(x, "linear_input", {"scale": scale}).sum().backward()
    inside = (x / scale).round().abs() <= 7
    assert torch.equal(x.grad, inside.float())
    steps = (x / scale).detach()
    expected = torch.where(inside, steps.round() - steps, 7 * steps.sign()).sum(1, keepdim=True)
    torch.testing.assert_close(scale.grad, expected)


def test_empty_stream_says_so() -> None:
    with pytest.raises(RuntimeError, match="seen nothing"):
        int_quantizer(8, "tensor").params_of(MinMax().stream())


WITHOUT_ZERO = CodebookGrid(values=(-1.0, -0.3, 0.3, 1.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("grid", [*GRIDS, LogGrid(bits=3, octaves=None), WITHOUT_ZERO], ids=lambda g: g.label)
def test_a_group_of_zeros_is_nothing(grid, dtype) -> None:
    """Grids without a code for 0 once gave it the smallest value of a stand-in scale of 1."""
    q = Quantizer(grid=grid, granularity=Granularity(kind="group", group_size=10), scale_dtype=dtype)
    x = 0.02 * drawn(4, 70)
    x[:, :10] = 0
    x[:, 10:20] = -x[:, 10:20].abs()
    x[:, 15] = 0
    codes, params = q.encode(x, "linear_weight")
    fake = q.fake(x, "linear_weight")
    assert torch.equal(q.decode(codes, params, "linear_weight"), fake) and bool(torch.isfinite(fake).all())
    assert float(fake[:, :10].abs().max()) < 1e-4  # of float16, whose least scale is 6e-5
    if isinstance(grid, LogGrid):
        assert float(fake[:, 15].abs().max()) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [1e-5, 1e-4, 3e5], ids=str)
def test_small_and_wide_groups_are_rounded_as_others(dtype: str, size: float) -> None:
    """In float16 a group below 4e-4 was once all zeros, and one above 5e5 not a number."""
    q = Quantizer(
        grid=IntGrid(bits=4), granularity=Granularity(kind="group", group_size=10), scale_dtype=dtype
    )
    x = drawn(4, 70)
    x = x / x.abs().max() * size
    error = float((q.fake(x, "linear_weight") - x).norm() / x.norm())
    assert error < (0.5 if (dtype, size) == ("float16", 1e-5) else 0.12)


@pytest.mark.parametrize("grid", [LogGrid(bits=4), WITHOUT_ZERO], ids=lambda g: g.label)
def test_numbers_below_any_scale_stay_below_it(grid) -> None:
    q = Quantizer(grid=grid, granularity=Granularity(kind="channel"))
    x = drawn(4, 70) * 1e-40
    x[2:] = x[2:].abs()
    assert float(q.fake(x, "linear_weight").abs().max()) < 1e-37


def test_a_searched_format_is_fake_as_it_is_decoded() -> None:
    grid = SearchedFloatGrid()
    x = drawn(6, 70) * 10 ** torch.arange(-3.0, 3.0)[:, None]
    x[0, :3] = torch.tensor([0.0, -0.0, 1e9])
    for formats in (torch.arange(6) % 4, torch.full((6,), 3)):
        params = grid.fit_range(-x.abs().amax(1, True), x.abs().amax(1, True) / 3, False, torch.float32)
        params["format"] = formats.to(torch.uint8)[:, None]
        whole = grid.decode(grid.encode(x, params), params, x.dtype)
        assert torch.equal(grid.fake(x, params), whole)
        half = grid.rounded(x.bfloat16(), params)
        assert torch.equal(half, grid.decode(grid.encode(x.bfloat16(), params), params, torch.bfloat16))
