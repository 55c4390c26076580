"""Layers through the kernels from end to end: the result as simulated, and a reason where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from quant.errors import InputError
from quant.formats.codebooks import BinaryGrid
from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.lowbit import paths
from quant.layers.native.fits import fit
from quant.layers.native.prepared import Convolution, Product, WeightOnly
from quant.layers.native.producers import Producer
from quant.layers.native.run import needs_of, prepared
from quant.layers.quantized import QuantLayer, make
from quant.layers.rotations import Rotate
from quant.observers.ranges import Percentile

STATIC = Schedule(kind="static")
GROUP = Granularity(kind="group", group_size=64)
TOKEN, CHANNEL = Granularity(kind="token"), Granularity(kind="channel")
E4M3 = FloatGrid(hardware="e4m3fn")


def fine(kind: str, search: int = 0, mode: str = "symmetric", static: bool = False) -> Quantizer:
    grid = IntGrid(bits=4, mode=mode)
    options = {"schedule": STATIC} if static else {}
    return Quantizer(grid=grid, granularity=GROUP, fine=kind, search=search, **options)


def weights(name: str) -> Quantizer:
    if name in ("pow2", "int"):
        return fine(name, search=4, static=True)
    if name == "e4m3":
        return Quantizer(grid=IntGrid(bits=4), granularity=GROUP, fine="e4m3", schedule=STATIC)
    if name == "real":
        return int_quantizer(4, "group", 64, schedule=STATIC)
    return int_quantizer(int(name), "channel", schedule=STATIC)


# weight, input, smoothing and branch, operation
LINEARS = [
    ("pow2", fine("pow2"), True, "W4A4 fp8"), ("int", fine("int"), True, "W4A4 int8"),
    ("pow2", fine("pow2", mode="unsigned"), True, "W4A4 fp8"), ("int", int_quantizer(8, "token"), True,
    "W4A8 int8"),
    ("8", int_quantizer(8, "token"), True, "int8"), ("4", int_quantizer(6, "token"), False, "int8"),
    ("real", None, True, "W4A16"), ("pow2", None, False, "W4A16"), ("e4m3", None, True, "W4A16"),
]  # fmt: skip


def linear(
    weight: str, activation: Quantizer | None, dressed: bool, dtype: torch.dtype, device: str
) -> QuantLayer:
    generator = torch.Generator().manual_seed(0)
    original = nn.Linear(200, 48)
    for parameter in original.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    unsigned = activation is not None and getattr(activation.grid, "mode", "") == "unsigned"
    factor = torch.rand(200, generator=generator) + 0.5
    smooth = Smooth(factor, -1, 4.0 if unsigned else 0.0) if dressed else None
    scaled = original.weight.data if smooth is None else smooth.to_weight(original.weight.data)
    encoded = EncodedWeight.from_weight(scaled, weights(weight), "linear_weight")
    branch = None
    if dressed:
        down = torch.randn(8, 200, generator=generator) * 0.1
        branch = LowRank(down, torch.randn(48, 8, generator=generator) * 0.1)
    result = LayerResult(encoded, activation, transform=smooth, branch=branch)
    return make(original.to(dtype), result, Clock()).to(device, dtype)


def distance(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


@torch.no_grad()
def check(device: str) -> None:
    """Native against simulated, linears and convolutions."""
    for weight, activation, dressed, op in LINEARS:
        for dtype, tolerance in ((torch.float32, 1e-2), (torch.float16, 2e-2)):
            layer = linear(weight, activation, dressed, dtype, device)
            x = torch.randn(2, 5, 200, generator=torch.Generator().manual_seed(1)).to(device, dtype)
            simulated = layer(x)
            layer.backend = "kernels"
            out = layer(x)
            whole = op == "W4A16" and dtype == torch.float32  # decoded first: only 16-bit rows are few
            assert layer.last_path == f"{op}: triton" + (", product by torch" if whole else "")
            assert out.dtype == dtype and distance(out, simulated) < tolerance, (
                op,
                dtype,
                distance(out, simulated),
            )
            # what is prepared follows what is stored
            layer.weight_scale.mul_(2)
            again = layer(x)
            layer.backend = "simulated"
            assert distance(again, layer(x)) < tolerance, op
    for bits in (8, 4):
        convolution(bits, device)
    many_rows(device)
    refused(device)
    replaced(device)


def many_rows(device: str) -> None:
    """Weights in 4 bits only: from 65 rows up what a simulated layer multiplies is decoded in each call."""
    dtype = torch.float16 if device == "cpu" else torch.bfloat16  # which the interpreter cuts, not rounds
    for weight in ("real", "pow2", "int", "e4m3"):
        layer = linear(weight, None, weight != "int", dtype, device)
        x = torch.randn(5, 13, 200, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        simulated = layer(x)
        layer.backend = "kernels"
        layer.forget_decoded()
        assert torch.equal(layer(x), simulated), weight
        assert layer.last_path == "W4A16: triton, product by torch" and not layer.decoded.numel()
        assert layer(x[:0]).shape == (0, 13, 48)
        x[0, 0, 3] = torch.nan
        out = layer(x)
        assert out[0, 0].isnan().all() and not out[1:].isnan().any()


def refused(device: str) -> None:
    """What no kernel takes is not simulated in silence: the ledger calls these layers native."""
    for weight, activation in (("8", int_quantizer(8, "token")), ("real", None)):
        layer = linear(weight, activation, True, torch.float64, device)
        layer.backend = "kernels"
        with pytest.raises(InputError, match=r"no kernel takes torch.float64 of shape \(3, 200\)"):
            layer(torch.ones(3, 200, dtype=torch.float64, device=device))


def replaced(device: str) -> None:
    """A tensor that took the place of a freed one, address and all, is another one."""
    layer = linear("8", int_quantizer(8, "token"), True, torch.float32, device)
    layer.backend = "kernels"
    x = torch.randn(3, 200, generator=torch.Generator().manual_seed(4)).to(device)
    memory = np.full(200, 0.5, dtype=np.float32)
    if device == "cpu":
        layer.transform.factor = torch.from_numpy(memory)
    layer(x)
    prepared = layer.native
    layer(x)
    assert layer.native is prepared  # nothing is made twice
    if device == "cpu":
        memory[:] = np.linspace(0.5, 2, 200)
        layer.transform.factor = torch.from_numpy(memory)
        out = layer(x)
        layer.backend = "simulated"
        assert distance(out, layer(x)) < 1e-2


def convolution(bits: int, device: str) -> None:
    original = nn.Conv2d(20, 12, 3, stride=2, padding=1)
    encoded = EncodedWeight.from_weight(original.weight.data, weights(str(bits)), "conv_weight")
    layer = make(original, LayerResult(encoded, int_quantizer(bits, "sample")), Clock()).to(device)
    x = torch.randn(2, 20, 9, 7, generator=torch.Generator().manual_seed(2)).to(device)
    simulated = layer(x)
    layer.backend = "kernels"
    assert distance(layer(x), simulated) < 1e-5
    assert layer.last_path == "conv int8: triton"


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_compiled() -> None:
    check("cuda")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on the CPU, and nowhere else."""
    monkeypatch.setattr(paths, "obstacle", lambda device, needs: "" if device.type == "cpu" else "elsewhere")


@pytest.mark.usefixtures("here")
def test_an_input_that_lay_elsewhere_does_not_take_the_kernels_away() -> None:
    layer, x = linear("real", None, False, torch.float16, "cpu"), torch.ones(1, 200, dtype=torch.float16)
    assert prepared(layer, x.to("meta")) is None
    assert prepared(layer, x) is not None


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("weight", "activation", "dressed", "op"), LINEARS)
@torch.no_grad()
def test_inputs_of_any_rank_and_stride(
    weight: str, activation: Quantizer | None, dressed: bool, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quant.layers.native.prepared.TRITON", "reference")  # what kernels are held to
    generator = torch.Generator().manual_seed(5)
    for dtype, tolerance in ((torch.float32, 1e-2), (torch.float16, 2e-2)):
        layer = linear(weight, activation, dressed, dtype, "cpu")
        wide = torch.randn(2, 200, 140, generator=generator).to(dtype)
        for x in (
            wide[0, :, 0], wide[0, :, :3].T, wide.mT, wide[:, :, :6].unflatten(2, (2, 3)).movedim(1, 3),
            wide[:1, :, 0].expand(70, 200), wide.movedim(1, 2)[:, :0], wide[0, :1, :1].expand(2, 1, 200),
        ):  # fmt: skip
            layer.backend = "simulated"
            exact = layer(x)
            layer.backend = "kernels"
            out = layer(x)
            assert layer.last_path.startswith(f"{op}: triton")
            assert out.shape == exact.shape == (*x.shape[:-1], 48) and out.dtype == dtype
            assert not x.numel() or distance(out, exact) < tolerance, (x.shape, x.stride(), dtype)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("mode", "shift"), [("symmetric", 4.0), ("unsigned", 0.0), ("unsigned", 4.0)])
def test_codes_are_unsigned_where_the_grid_is(mode: str, shift: float) -> None:
    layer = linear("pow2", fine("pow2", mode=mode), True, torch.float32, "cpu")
    layer.transform.shift = shift
    found = prepared(layer, torch.ones(1, 200))
    assert isinstance(found, Product)
    assert (found.weight.unsigned, found.weight.shift) == (mode == "unsigned", shift)


def test_float8_wants_newer_gpus() -> None:
    for op in ("W4A4 fp8", "W4A8 e4m3", "W8A8 e4m3"):
        assert needs_of(op) == paths.FLOAT8
    for op in ("int8", "W4A4 int8", "W4A8 int8", "W4A16", "W4A4 table", "conv int8"):
        assert needs_of(op) < paths.FLOAT8


@pytest.mark.usefixtures("here")
@torch.no_grad()
def test_no_rows_and_no_images_pass_what_comes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.layers.native.prepared.TRITON", "reference")
    rows, images = torch.zeros(0, 3, 200), torch.zeros(0, 20, 9, 7)
    first = linear("8", int_quantizer(8, "token"), True, torch.float32, "cpu")
    original = nn.Conv2d(20, 12, 3, stride=2, padding=1)
    encoded = EncodedWeight.from_weight(original.weight.detach(), weights("8"), "conv_weight")
    second = make(original, LayerResult(encoded, int_quantizer(8, "sample")), Clock())
    for layer, x, producer, shape in (
        (first, rows, Producer("layer_norm", nn.LayerNorm(200)), (0, 3, 48)),
        (first, rows.repeat(1, 1, 2), Producer("geglu", nn.Identity()), (0, 3, 48)),
        (second, images, Producer("group_norm_silu", nn.GroupNorm(4, 20)), (0, 12, 5, 4)),
    ):  # fmt: skip
        found = prepared(layer, x)
        assert isinstance(found, Product | Convolution) and found(x, producer).shape == shape


@pytest.mark.usefixtures("here")
def test_small_scales_keep_their_bits_in_float16() -> None:
    layer = linear("real", None, False, torch.float16, "cpu")
    layer.weight_scale *= 1e-6
    exact = layer.weight_scale.squeeze(-1)
    found = prepared(layer, torch.ones(1, 200, dtype=torch.float16))
    assert isinstance(found, WeightOnly) and found.column is not None
    assert torch.equal(found.scale * found.column[:, None], exact)
    lost = (found.scale.half().float() * found.column[:, None] - exact).abs()
    assert (lost <= 2**-11 * exact).all() and 0.5 <= found.scale.amax(1).min() <= found.scale.max() < 1
    wide = prepared(layer, torch.ones(1, 200, dtype=torch.bfloat16))
    assert isinstance(wide, WeightOnly) and wide.column is None and torch.equal(wide.scale, exact)


@pytest.mark.parametrize(("weight", "activation", "dressed", "op"), LINEARS)
def test_reference_from_codes_equals_simulated(
    weight: str, activation: Quantizer | None, dressed: bool, op: str
) -> None:
    layer = linear(weight, activation, dressed, torch.float64, "cpu")
    x = torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    simulated = layer(x)
    layer.backend = "kernels"
    torch.testing.assert_close(layer(x), simulated, rtol=1e-9, atol=1e-9)
    assert layer.last_path == ("decode: reference" if op == "W4A16" else f"{op}: reference")


@pytest.mark.parametrize(
    ("weight", "activation", "transform", "why"),
    [
        (fine("pow2", static=True), fine("pow2", search=4), None, "input_search=0"),
        (weights("real"), int_quantizer(4, "group", 64), None, "reduction axis"),
        (fine("pow2", static=True), fine("pow2"), Rotate(64), "rotate before it"),
        (weights("8"), None, None, "the input is not quantized"),
        (weights("8"), int_quantizer(8, "tensor", schedule=Schedule(kind="timestep")), None, "timestep"),
        (weights("8"), Quantizer(grid=IntGrid(mode="asymmetric"), granularity=TOKEN), None, "beside"),
        (Quantizer(grid=FloatGrid(exponent=3, mantissa=4), granularity=CHANNEL), int_quantizer(8, "token"),
        None, "no tensor core takes fp8-e3m4"),
        (Quantizer(grid=FloatGrid(exponent=2, mantissa=1), granularity=CHANNEL), int_quantizer(8, "token"),
        None, "int8/token inputs beside fp4-e2m1"),
        (Quantizer(grid=FloatGrid(exponent=2, mantissa=1), granularity=GROUP, fine="e4m3"), None, None,
        "weights"),
        (fine("pow2", static=True), fine("int"), None, "beside"),
        (fine("pow2", static=True), Quantizer(grid=IntGrid(bits=8), granularity=GROUP, fine="pow2"), None,
         "no kernel for int8/g64xpow2 inputs"),
        (int_quantizer(4, "group", 16, schedule=STATIC), None, None, "groups of 16; kernels take 32"),
        (Quantizer(grid=FloatGrid(exponent=5, mantissa=1), granularity=CHANNEL),
         Quantizer(grid=E4M3, granularity=TOKEN), None, "no tensor core takes fp7-e5m1"),
        (Quantizer(grid=IntGrid(bits=8, mode="asymmetric"), granularity=CHANNEL), int_quantizer(8, "token"),
         None, "no tensor core takes int8 asym"),
        (Quantizer(grid=BinaryGrid(bits=3), granularity=CHANNEL), int_quantizer(8, "token"), None,
         "no tensor core takes binary3"),
        (weights("8"), int_quantizer(8, "token", observer=Percentile()), None, "input ranges by percentile"),
        (weights("8"), Quantizer(grid=IntGrid(), granularity=TOKEN, scale_dtype="float16"), None,
         "real in float16"),
        (Quantizer(grid=E4M3, granularity=CHANNEL), Quantizer(grid=E4M3, granularity=TOKEN,
         scale="power_of_two"), None, "power_of_two in float32"),
    ],
)  # fmt: skip
def test_no_kernel_says_why(
    weight: Quantizer, activation: Quantizer | None, transform: object, why: str
) -> None:
    found = fit("Linear", weight, activation, transform)
    assert found.op == "decode" and why in found.text


def test_convolutions_with_more_than_codes_have_no_kernel() -> None:
    codes, images = weights("8"), int_quantizer(8, "sample")
    assert fit("Conv2d", codes, images).op == "conv int8"
    extra = torch.ones(4, 4)
    for transform, branch in ((Smooth(extra[0], 1), None), (None, LowRank(extra, extra))):
        assert "a branch at a convolution" in fit("Conv2d", codes, images, transform, branch).why
