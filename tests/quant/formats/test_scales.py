"""Group scales of two levels: exact in 8 bits, close to plain group scales, stored as counted."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.formats.scales import effective, fine_values, split
from quant.layers.encoded import EncodedWeight, planned_bytes

G64 = Granularity(kind="group", group_size=64)


def quantizer(fine: str | None) -> Quantizer:
    if fine == "e4m3":
        group = Granularity(kind="group", group_size=16)
        return Quantizer(grid=FloatGrid(exponent=2, mantissa=1), granularity=group, fine="e4m3")
    return Quantizer(grid=IntGrid(bits=4), granularity=G64, fine=fine)


def weights() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(0.7 * torch.randn(512, generator=generator))
    return torch.randn(64, 512, generator=generator) * spread


def sqnr(reference: torch.Tensor, value: torch.Tensor) -> float:
    noise = (reference - value).square().sum() / reference.square().sum()
    return -10 * float(torch.log10(noise))


@pytest.mark.parametrize("layout", ["linear_weight", "linear_input"])
def test_codes_times_powers_of_two_are_exact_in_e4m3(layout) -> None:
    q, x = quantizer("pow2"), weights()
    codes, params = q.encode(x, layout)
    assert params["scale"].shape == (64, 1, 1) and params["scale_fine"].dtype == torch.int8
    assert int(params["scale_fine"].max()) == 6 and int(params["scale_fine"].min()) >= -9
    operand = codes.unflatten(-1, (-1, 64)).double() * fine_values(params["scale_fine"], torch.float64)
    assert torch.equal(operand.to(torch.float8_e4m3fn).double(), operand)
    # the GEMM of e4m3 operands with row scales in the epilogue is the simulated product
    decoded = q.decode(codes, params, layout, torch.float64)
    other = torch.randn(8, 512, dtype=torch.float64)
    epilogue = (operand.flatten(1) @ other.T) * params["scale"].flatten().double()[:, None]
    torch.testing.assert_close(decoded @ other.T, epilogue, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["linear_input", "conv_input"])
@pytest.mark.parametrize(("fine", "most"), [("pow2", 240), ("int", 120)])
def test_unsigned_codes_leave_less_room_for_fine_scales(fine, most, layout) -> None:
    """Inputs after GELU have codes 0..15: 15 * 2^4 is an e4m3 number and 15 * 8 an int8; 15 * 2^6 is not."""
    q = Quantizer(grid=IntGrid(bits=4, mode="unsigned"), granularity=G64, fine=fine)
    x = weights().abs() if layout == "linear_input" else weights().abs().reshape(8, 512, 4, 2)
    codes, params = q.encode(x, layout)
    assert int(codes.max()) == 15
    operand = q.granularity.view(codes, layout).tensor.double() * fine_values(
        params["scale_fine"], torch.float64
    )
    assert float(operand.max()) == most
    exact = operand.to(torch.float8_e4m3fn if fine == "pow2" else torch.int8).double()
    assert torch.equal(exact, operand)
    plain = q.model_copy(update={"fine": None})
    assert sqnr(x, plain.fake(x, layout)) - sqnr(x, q.fake(x, layout)) < {"pow2": 2.2, "int": 1.5}[fine]


def test_every_power_of_two_and_code_is_an_e4m3_number() -> None:
    grid = torch.arange(-7, 16).double()[:, None] * 2.0 ** torch.arange(-9, 5).double()
    assert torch.equal(grid.to(torch.float8_e4m3fn).double(), grid)
    signed = torch.arange(-7, 8).double()[:, None] * 2.0 ** torch.arange(-9, 7).double()
    assert torch.equal(signed.to(torch.float8_e4m3fn).double(), signed)


def test_codes_times_integers_fit_int8() -> None:
    q, x = quantizer("int"), weights()
    codes, params = q.encode(x, "linear_weight")
    operand = codes.unflatten(-1, (-1, 64)).int() * params["scale_fine"].int()
    assert int(operand.abs().max()) <= 105 and int(params["scale_fine"].max()) == 15
    decoded = operand.flatten(1).double() * params["scale"].flatten().double()[:, None]
    torch.testing.assert_close(q.decode(codes, params, "linear_weight").double(), decoded, rtol=1e-6, atol=0)


def test_fine_scales_are_the_nearest() -> None:
    real = Quantizer(grid=IntGrid(bits=4), granularity=G64).params(weights(), "linear_weight")["scale"]
    largest = real.amax(1, keepdim=True)
    two = effective(split(real, "linear_weight", "pow2"), torch.float32)["scale"]
    assert bool(((two / real).log2().abs() <= 0.5 + 1e-5).all())
    integer = effective(split(real, "linear_weight", "int"), torch.float32)["scale"]
    assert bool(((integer - real).abs() <= largest / 30 * (1 + 1e-5)).all())
    for kind in (two, integer):
        torch.testing.assert_close(kind.amax(1, keepdim=True), largest, rtol=2e-6, atol=0)


def test_cost_of_two_levels_is_small() -> None:
    x = weights()
    plain = sqnr(x, quantizer(None).fake(x, "linear_weight"))
    assert plain - sqnr(x, quantizer("int").fake(x, "linear_weight")) < 0.3
    assert plain - sqnr(x, quantizer("pow2").fake(x, "linear_weight")) < 1.2
    channel = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="channel"))
    assert sqnr(x, quantizer("pow2").fake(x, "linear_weight")) - sqnr(x, channel.fake(x, "linear_weight")) > 3


@pytest.mark.parametrize("fine", ["pow2", "int"])
@pytest.mark.parametrize(
    ("layout", "mode"),
    [
        ("linear_input", "symmetric"), ("linear_input", "unsigned"), ("conv_input", "symmetric"),
        ("linear_weight", "symmetric"),
    ],
)  # fmt: skip
def test_search_finds_the_least_squared_error_of_all_its_choices(fine, layout, mode) -> None:
    """Every coarse scale times every neighbouring fine one, rewritten by loops over rows and groups."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 128, 2, 2, generator=generator) if layout == "conv_input" else weights()[:3, :128]
    x = x.abs() if mode == "unsigned" else x
    q = Quantizer(grid=IntGrid(bits=4, mode=mode), granularity=G64, fine=fine, search=4)
    code, top = (15, {"pow2": 16, "int": 8}) if mode == "unsigned" else (7, {"pow2": 64, "int": 15})
    steps = [2.0 ** (i / 4) if fine == "pow2" else (2 / 3) ** (i / 4) for i in range(4)]
    for row, got in zip(
        x.flatten(2) if layout == "conv_input" else x[..., None], q.fake(x, layout), strict=True
    ):
        groups = row.reshape(-1, 64, row.shape[-1]).transpose(1, 2).reshape(-1, 64)
        real = groups.abs().amax(1) / code
        least = min(
            sum(
                min(
                    float((group - (group / s).round().clamp(-code if mode == "symmetric" else 0, code) * s)
                          .square().sum())
                    for s in options(fine, float(scale), float(real.max()) / top[fine] * step, top[fine])
                )
                for group, scale in zip(groups, real, strict=True)
            )
            for step in steps
        )  # fmt: skip
        assert float((row.flatten() - got.flatten()).square().sum()) == pytest.approx(least, rel=1e-4)


def options(fine: str, real: float, coarse: float, top: int) -> list[float]:
    """Nearest fine scale (pow2: nearest logarithm) and its two neighbours, times the coarse one."""
    if fine == "int":
        near = min(max(round(real / coarse), 1), top)
        return [coarse * m for m in (near - 1, near, near + 1) if 1 <= m <= top]
    near = min(max(round(math.log2(real / coarse)), -9), int(math.log2(top)))
    return [coarse * 2.0**k for k in (near - 1, near, near + 1) if -9 <= k <= math.log2(top)]


@pytest.mark.parametrize("layout", ["linear_input", "conv_input"])
def test_cost_of_searched_inputs_on_gaussian_numbers(layout) -> None:
    """A token has a coarse scale of its own; the pixels of an image share one and gain less."""
    shape = (512, 256) if layout == "linear_input" else (8, 128, 16, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    plain = sqnr(x, quantizer(None).fake(x, layout))

    def cost(fine: str, search: int) -> float:
        chosen = quantizer(fine).model_copy(update={"search": search})
        return plain - sqnr(x, chosen.fake(x, layout))

    assert 1.0 < cost("pow2", 0) < 1.2
    assert cost("pow2", 4) < {"linear_input": 0.25, "conv_input": 0.9}[layout]
    assert cost("int", 4) < -0.35


def test_searched_inputs_do_not_depend_on_their_batch() -> None:
    q = quantizer("pow2").model_copy(update={"search": 4})
    image = torch.randn(3, 128, 5, 5, generator=torch.Generator().manual_seed(4))
    image[1] *= 40
    assert torch.equal(q.fake(image, "conv_input")[:1], q.fake(image[:1], "conv_input"))
    zero = torch.zeros(2, 128)
    assert torch.equal(q.fake(zero, "linear_input"), zero)


def test_search_without_fine_integers_is_refused() -> None:
    for wrong in ({"fine": None}, {"fine": "e4m3"}):
        with pytest.raises(ValidationError, match="search is for integers with fine scales"):
            Quantizer(grid=IntGrid(bits=4), granularity=G64, search=4, **wrong)


def test_nvfp4_scales_are_e4m3_times_one_number() -> None:
    q, x = quantizer("e4m3"), weights()
    codes, params = q.encode(x, "linear_weight")
    assert params["scale"].numel() == 1 and params["scale_fine"].dtype == torch.float8_e4m3fn
    assert float(params["scale_fine"].float().max()) == 448.0
    unit = {**params, "scale": torch.ones(1, 1, 1)}
    value = q.decode(codes, unit, "linear_weight")
    assert torch.equal(value.bfloat16().float(), value)  # <= 6 significant bits: exact in bfloat16


@pytest.mark.parametrize("fine", ["pow2", "int", "e4m3"])
@pytest.mark.parametrize("shape", [(24, 96), (10, 40), (6, 20, 3, 3)])
def test_stored_as_planned_and_fake_is_decode(fine, shape) -> None:
    q = quantizer(fine)
    layout = "linear_weight" if len(shape) == 2 else "conv_weight"
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    encoded = EncodedWeight.from_weight(x, q, layout)
    assert encoded.bytes() == planned_bytes(q, shape, layout)
    assert torch.equal(encoded.decode(), q.fake(x, layout))
    again, _ = q.encode(encoded.decode(), layout, encoded.params)
    assert torch.equal(again, encoded.codes())
    zero = EncodedWeight.from_weight(torch.zeros(shape), q, layout)
    assert torch.equal(zero.decode(), torch.zeros(shape))


def test_one_level_e4m3_scales() -> None:
    q = Quantizer(
        grid=FloatGrid(exponent=2, mantissa=1), granularity=Granularity(kind="group", group_size=16),
        scale_dtype="float8_e4m3fn",
    )  # fmt: skip
    x = torch.randn(4, 64) * torch.tensor([1e-6, 1.0, 50.0, 1e6])[:, None]
    x[1, :16] = 0
    out = q.fake(x, "linear_input")
    assert bool(torch.isfinite(out).all()) and torch.equal(out[1, :16], torch.zeros(16))
    assert float(out[3].abs().max()) == 448 * 6
    assert sqnr(x[1:3], out[1:3]) > 18


def test_inputs_do_not_depend_on_their_batch() -> None:
    q, x = quantizer("pow2"), weights()[:4]
    torch.testing.assert_close(q.fake(x, "linear_input")[:1], q.fake(x[:1], "linear_input"))
    image = torch.randn(3, 128, 5, 5)
    image[1] *= 40
    both, one = q.fake(image, "conv_input"), q.fake(image[:1], "conv_input")
    assert torch.equal(both[:1], one)


def test_fine_scales_need_groups() -> None:
    with pytest.raises(ValidationError, match="fine scales belong to groups"):
        Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="token"), fine="int")


@pytest.mark.parametrize("search", [0, 4])
@pytest.mark.parametrize("fine", ["pow2", "int", "e4m3"])
@pytest.mark.parametrize("layout", ["linear_weight", "linear_input"])
def test_a_group_of_zeros_takes_no_share_in_the_coarse_scale(layout, fine, search) -> None:
    """Its stand-in scale of 1 once was the largest, and every other group kept 2 or 3 levels."""
    if fine == "e4m3" and search:
        return
    q = quantizer(fine).model_copy(update={"search": search})
    size = q.granularity.group_size
    x = 0.02 * weights()
    full = sqnr(x, q.fake(x, layout))
    x[:, :size] = 0
    x[3, size : 2 * size] = 0
    fake = q.fake(x, layout)
    assert not fake[:, :size].any() and not fake[3, size : 2 * size].any()
    assert sqnr(x, fake) > full - 0.3
    rest = q.params(x[:, size:], layout)["scale"]
    there = q.params(x, layout)["scale"]
    assert torch.equal(there, rest)


@pytest.mark.parametrize("fine", ["pow2", "int", "e4m3"])
def test_rows_and_tensors_of_zeros_stay_zero(fine) -> None:
    q, x = quantizer(fine), 0.02 * weights()
    x[5] = 0
    fake = q.fake(x, "linear_weight")
    assert not fake[5].any() and bool(torch.isfinite(fake).all())
    assert not q.fake(torch.zeros_like(x), "linear_weight").any()


@pytest.mark.parametrize("fine", ["pow2", "int"])
def test_unsigned_groups_without_anything_above_zero(fine) -> None:
    q = Quantizer(grid=IntGrid(bits=4, mode="unsigned"), granularity=G64, fine=fine)
    x = 0.02 * weights().abs()
    x[:, 64:128] *= -1
    fake = q.fake(x, "linear_input")
    kept = torch.cat([x[:, :64], x[:, 128:]], 1)
    assert not fake[:, 64:128].any()
    assert sqnr(kept, torch.cat([fake[:, :64], fake[:, 128:]], 1)) > 15


@pytest.mark.parametrize("level", [0.5, 1.0, 7.0, 1e-30])
def test_a_real_scale_of_one_is_no_stand_in(level) -> None:
    q = quantizer("int")
    x = torch.zeros(2, 128)
    x[:, 0], x[:, 64] = level, level / 2
    assert torch.allclose(q.fake(x, "linear_weight"), x, rtol=0.15, atol=0)
