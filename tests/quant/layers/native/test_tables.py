"""Weights whose codes stand for numbers of a table, through the kernels: the result as simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quant.formats.codebooks import BinaryGrid, CodebookGrid
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.lowbit import paths
from quant.layers.native.tables import op_of
from quant.layers.quantized import QuantLayer, make
from quant.layers.rotations import Rotate

STATIC = Schedule(kind="static")
K, N = 96, 40
BY_TOKEN = int_quantizer(4, "token")
CALIBRATED = {bits: int_quantizer(bits, "tensor", schedule=STATIC) for bits in (4, 8)}
WITH_ZERO = {
    bits: Quantizer(
        grid=IntGrid(bits=bits, mode="asymmetric"), granularity=Granularity(kind="tensor"), schedule=STATIC
    )
    for bits in (4, 8)
}


def weight(grid: Any, shared: str = "channel") -> Quantizer:
    return Quantizer(grid=grid, granularity=Granularity(kind=shared), schedule=STATIC)


def float8(shared: str, **options: Any) -> Quantizer:
    grid = FloatGrid(hardware="e4m3fn")
    return Quantizer(grid=grid, granularity=Granularity(kind=shared), **options)


# weight, input, what is before and beside
LAYERS: list[tuple[Quantizer, Quantizer, str]] = [
    (weight(SearchedFloatGrid(formats=((1, 2), (2, 1), (3, 0)), default=1), "tensor"),
     float8("tensor", schedule=STATIC), ""),
    (weight(SearchedFloatGrid(formats=((1, 2), (2, 1), (3, 0)), default=1)), float8("token"), ""),
    (weight(FloatGrid(hardware="e4m3fn"), "tensor"), float8("tensor", schedule=STATIC), "smooth"),
    (weight(FloatGrid(exponent=1, mantissa=2)), float8("token"), "branch"),
    (weight(LogGrid(bits=4, octaves=None)), BY_TOKEN, "rotate"),
    (weight(LogGrid(bits=3)), BY_TOKEN, ""),
    (weight(CodebookGrid(values=(-1.0, -0.3, 0.0, 0.2, 0.5))), int_quantizer(8, "token"), "smooth"),
    (weight(BinaryGrid(bits=1)), CALIBRATED[4], ""),
    (weight(BinaryGrid(bits=2)), CALIBRATED[8], "branch"),
    (weight(IntGrid(bits=4, mode="asymmetric")), BY_TOKEN, "rotate"),
    (weight(IntGrid(bits=4), "tensor"), CALIBRATED[8], ""),
    (weight(IntGrid(bits=8)), CALIBRATED[8], "rotate"),
    (weight(IntGrid(bits=6)), BY_TOKEN, "rotate"),
    (weight(IntGrid(bits=4, mode="asymmetric")), WITH_ZERO[8], "smooth"),
    (weight(IntGrid(bits=8)), WITH_ZERO[4], "branch"),
    (weight(BinaryGrid(bits=2)), WITH_ZERO[8], ""),
]  # fmt: skip


def layer(
    grid: Quantizer, activation: Quantizer, dressed: str, dtype: torch.dtype, device: str, k: int = K
) -> QuantLayer:
    generator = torch.Generator().manual_seed(0)
    original = nn.Linear(k, N)
    for parameter in original.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    transform: Any = None
    if dressed == "smooth":
        transform = Smooth(torch.rand(k, generator=generator) + 0.5)
    elif dressed == "rotate":
        transform = Rotate(k)
    scaled = original.weight.data if transform is None else transform.to_weight(original.weight.data)
    encoded = EncodedWeight.from_weight(scaled, grid, "linear_weight")
    branch = None
    if dressed == "branch":
        down = torch.randn(8, k, generator=generator) * 0.1
        branch = LowRank(down, torch.randn(N, 8, generator=generator) * 0.1)
    params = {}
    if activation.schedule.kind == "static":
        params = activation.params(torch.linspace(-2, 4, 9)[None], "linear_input")
    result = LayerResult(encoded, activation, params, transform=transform, branch=branch)
    return make(original.to(dtype), result, Clock()).to(device, dtype)


def distance(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


@torch.no_grad()
def check(device: str) -> None:
    """Native against simulated, and a NaN that comes out where it went in."""
    for grid, activation, dressed in LAYERS:
        for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 2e-2)):
            one = layer(grid, activation, dressed, dtype, device)
            x = torch.randn(2, 5, K, generator=torch.Generator().manual_seed(1)).to(device, dtype)
            simulated = one(x)
            one.backend = "kernels"
            out = one(x)
            label = (grid.label, activation.label, dressed, dtype)
            around = {"rotate": ", rotate by torch", "branch": ", lowrank by torch"}.get(dressed, "")
            if activation in WITH_ZERO.values():
                around = {"smooth": ", smooth by torch"}.get(dressed, around)
            assert one.last_path == f"{op_of(grid, activation)}: triton{around}", (one.last_path, label)
            assert out.dtype == dtype and distance(out, simulated) < tolerance, (
                label,
                distance(out, simulated),
            )
            x[1, 2, 3] = torch.nan
            lost = one(x).isnan()
            assert lost[1, 2].all() and lost.sum() == N, label
            assert one(x[:0]).shape == (0, 5, N)


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_compiled() -> None:
    check("cuda")


@torch.no_grad()
def test_inputs_of_any_rank_and_stride_and_columns_that_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.layers.native.tables.TRITON", "reference")  # what kernels are held to
    monkeypatch.setattr(paths, "obstacle", lambda device, needs: "")
    k = 90
    wide = torch.randn(2, k, 4, generator=torch.Generator().manual_seed(2))
    for grid, activation, dressed in LAYERS:
        if dressed == "rotate":
            continue
        for dtype, tolerance in ((torch.float32, 1e-3), (torch.float16, 4e-3)):
            one = layer(grid, activation, dressed, dtype, "cpu", k)
            for x in (wide[0, :, 0], wide.mT, wide[:1, :, 0].expand(3, k), wide.mT[:, :0]):
                one.backend = "simulated"
                exact = one(x.to(dtype))
                one.backend = "kernels"
                out = one(x.to(dtype))
                assert one.last_path.startswith(f"{op_of(grid, activation)}: triton")
                assert out.shape == exact.shape and out.dtype == dtype
                assert not x.numel() or distance(out, exact) < tolerance, (grid.label, dtype, x.shape)


@pytest.mark.parametrize(
    ("grid", "activation", "name"),
    [(LAYERS[0][0], LAYERS[0][1], "W4A8 e4m3"), (LAYERS[4][0], BY_TOKEN, "W4A4 table"),
     (LAYERS[7][0], CALIBRATED[4], "W1A4 table")],
)  # fmt: skip
def test_operations_are_named_by_bits(grid: Quantizer, activation: Quantizer, name: str) -> None:
    assert op_of(grid, activation) == name
