"""The invariants of SVDQuant's card on one matrix, and the order of its ablations."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from quant.layers.attachments import LowRank, Smooth
from quant.methods.svdquant import SvdQuantConfig
from quant.methods.svdquant import formats as policy
from quant.methods.svdquant.gptq import gptq_codes
from quant.methods.svdquant.lowrank import branch_weight, stored_branch, top_singular
from quant.methods.svdquant.solve import (
    SHIFT,
    Problem,
    attempt,
    iterate,
    search_smoothing,
    shift_bias,
    smoothing_factor,
    smoothing_grid,
    solve,
)


def planted(width: int = 256, rows: int = 256, salient: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian weight and inputs with a few channels 8 to 40 times larger, as in the card's toy."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(width, width, generator=generator) / width**0.5
    x = torch.randn(rows, width, generator=generator)
    where = torch.randperm(width, generator=generator)[:salient]
    x[:, where] *= 8 + 32 * torch.rand(salient, generator=generator)
    return weight, x


def problem(weight: torch.Tensor, x: torch.Tensor, shift: float = 0.0, **settings) -> Problem:
    config = SvdQuantConfig(**{"smooth_points": 10, "iterations": 20, "rank": 16, **settings})
    layer = policy.LayerInfo("layer", "Linear", tuple(weight.shape), 1, 0, True, after_gelu=shift > 0)
    return Problem(
        weight=weight, rows=x, absmax=(x + shift).abs().amax(0), config=config, shift=shift,
        rank=policy.rank_of(config, *weight.shape),
        quantizer=policy.weight_quantizer(config, weight.shape[1]),
        activation=policy.activation_quantizer(config, layer),
    )  # fmt: skip


def test_smoothing_changes_nothing_before_rounding() -> None:
    weight, x = (t.double() for t in planted())
    factor = smoothing_factor(x.abs().amax(0), weight, 0.6, 0.4)
    smooth = Smooth(factor)
    torch.testing.assert_close(smooth(x) @ smooth.to_weight(weight).T, x @ weight.T, rtol=1e-12, atol=1e-12)
    powers = Smooth(2.0 ** torch.randint(-6, 7, (256,)))
    assert torch.equal(powers(x) * powers.factor, x)
    assert torch.equal(powers.from_weight(powers.to_weight(weight)), weight)
    # channel by channel the products are equal bit for bit
    assert torch.equal(powers(x)[0] * powers.to_weight(weight)[0], x[0] * weight[0])


def test_smoothing_grid_and_degenerate_channels() -> None:
    assert len(smoothing_grid(20)) == 39 and len(smoothing_grid(10)) == 19
    assert smoothing_grid(20)[0] == (0.0, 0.0) and (0.05, 0.95) in smoothing_grid(20)
    weight, x = planted()
    weight[:, 3], x[:, 5] = 0, 0
    factor = smoothing_factor(x.abs().amax(0), weight, 0.5, 0.5)
    assert factor[3] == 1 and factor[5] == 1 and bool((factor > 0).all())
    broken = smoothing_factor(torch.full((256,), torch.inf), weight, 0.5, 0.5)
    assert torch.equal(broken, torch.ones_like(broken))


@pytest.mark.parametrize("how", ["exact", "randomized"])
def test_residual_is_taken_from_the_stored_branch(how) -> None:
    weight, x = planted()
    factor = smoothing_factor(x.abs().amax(0), weight, 0.5, 0.5)
    smoothed = weight * factor.float()
    down, up, low, _ = stored_branch(smoothed, factor, 16, how, torch.bfloat16)
    assert down.dtype == up.dtype == torch.bfloat16
    # fp32 holds R + L1 L2 = W^ to the last bit but the one that adding costs
    residual = smoothed - low
    torch.testing.assert_close(residual + branch_weight(down, up, factor), smoothed, rtol=3e-7, atol=3e-7)
    # folding: the branch on raw inputs is the branch on smoothed inputs
    raw = LowRank(down, up).double()(x.double())
    inner = (x.double() / factor.double()) @ (low.double()).T
    torch.testing.assert_close(raw, inner, rtol=1e-4, atol=1e-4)


def test_eckart_young() -> None:
    weight, _ = planted()
    weight = weight + 3 * torch.randn(256, 4) @ torch.randn(4, 256) / 16
    sigma = torch.linalg.svdvals(weight)
    exact = weight - torch.matmul(*top_singular(weight, 16, "exact")[:2])
    torch.testing.assert_close(exact.square().sum(), sigma[16:].square().sum(), rtol=1e-4, atol=0)
    randomized = weight - torch.matmul(*top_singular(weight, 16, "randomized")[:2])
    assert float(randomized.square().sum() / exact.square().sum()) < 1.01


def test_iterating_is_never_worse() -> None:
    case = problem(*planted())
    factor, _ = search_smoothing(case)
    first = attempt(case, factor, case.quantized_rows(factor), None)
    torch.manual_seed(0)
    best = iterate(case, factor)
    assert best.error <= first.error * (1 + 1e-6) and 1 <= best.notes["rounds"] <= 20


def test_ablations_come_in_order() -> None:
    """naive > branch only > smoothing only > both; more rank helps; exact SVD does not hurt."""
    weight, x = planted()

    def error(**settings) -> float:
        return solve(problem(weight, x, **settings)).notes["relative_output_error"]

    naive = error(rank=0, smooth="none")
    low_rank, smooth, both = error(smooth="none"), error(rank=0), error()
    assert naive > low_rank > smooth > both
    assert error(rank=4) > both > error(rank=48)
    assert error(residual="gptq") < 0.97 * both
    assert error(svd="exact") < 1.05 * both
    assert error(numbers="nvfp4") < both
    for scales in ("pow2", "int"):
        assert error(scales=scales) < 1.12 * both  # 1 dB


@pytest.mark.parametrize("shape", [(128, 1024), (64, 128, 3, 3)])
def test_weight_scales_of_two_levels_cost_less_than_half_a_decibel(shape) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layout = "linear_weight" if len(shape) == 2 else "conv_weight"

    def noise(scales: str) -> float:
        quantizer = policy.weight_quantizer(SvdQuantConfig(scales=scales), shape[1])
        fake = quantizer.fake(weight, layout)
        return 10 * float(torch.log10((weight - fake).square().sum() / weight.square().sum()))

    assert noise("pow2") - noise("real") < 0.4  # 19.0 against 19.36 dB; 18.8 with one scale a row
    assert noise("int") - noise("real") < -0.4  # real scales cover the largest value, the search may cut it


def test_gptq_beats_rounding_and_stays_on_the_scales() -> None:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(128, 128, generator=generator) / 4
    x = torch.randn(1024, 128, generator=generator) @ mix
    weight = torch.randn(64, 128, generator=generator)
    quantizer = policy.weight_quantizer(SvdQuantConfig(), 128)
    params = quantizer.params(weight, "linear_weight")
    errors = {}
    for name, codes in (
        ("rtn", quantizer.encode(weight, "linear_weight", params)[0]),
        ("gptq", gptq_codes(weight, x, quantizer, params, 0.01, 32)),
        ("one block", gptq_codes(weight, x, quantizer, params, 0.01, 128)),
    ):
        assert codes.dtype == torch.int8 and int(codes.abs().max()) <= 7
        decoded = quantizer.decode(codes, params, "linear_weight")
        errors[name] = float((x @ (decoded - weight).T).square().sum())
    assert errors["gptq"] < 0.6 * errors["rtn"]
    assert errors["one block"] == pytest.approx(errors["gptq"], rel=0.02)
    # a channel that never fires and inputs of low rank need no special care
    x[:, 7] = 0
    assert torch.isfinite(gptq_codes(weight, x[:20], quantizer, params, 0.01, 32).float()).all()


def test_shift_is_taken_back_by_the_bias() -> None:
    x = nn.functional.gelu(torch.randn(512, 128, generator=torch.Generator().manual_seed(0)) * 2)
    assert -SHIFT < float(x.min()) < -0.16
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(
        (x.double() + SHIFT) @ weight.T - shift_bias(weight, None, SHIFT), x.double() @ weight.T
    )
    case = problem(weight.float(), x, shift=SHIFT)
    codes, _ = case.activation.encode(case.smoothed_rows(None), "linear_input")
    assert codes.dtype == torch.uint8 and 0 <= int(codes.min()) and int(codes.max()) == 15
    found = solve(case)
    signed = solve(problem(weight.float(), x))
    assert found.notes["relative_output_error"] < 0.8 * signed.notes["relative_output_error"]


def test_codes_are_idempotent() -> None:
    weight, _ = planted()
    quantizer = policy.weight_quantizer(SvdQuantConfig(), 256)
    codes, params = quantizer.encode(weight, "linear_weight")
    again, same = quantizer.encode(quantizer.decode(codes, params, "linear_weight"), "linear_weight")
    assert torch.equal(again, codes) and torch.equal(same["scale"], params["scale"])


@pytest.mark.parametrize(
    "bad", [{"scales": "pow2", "numbers": "nvfp4"}, {"numbers": "int8", "group": 32}, {"rank": -1}]
)
def test_settings_that_contradict(bad) -> None:
    with pytest.raises(ValidationError):
        SvdQuantConfig(**bad)
