"""GPTQ on a residual: what it is given, what it is kept for, and inputs that leave directions open."""

from __future__ import annotations

import pytest
import torch

from quant.methods.svdquant import SvdQuantConfig, gptq, solve
from quant.methods.svdquant import formats as policy
from quant.methods.svdquant.gptq import gptq_codes
from quant.methods.svdquant.solve import SHIFT, Problem


def shifted(**settings) -> Problem:
    """A layer after GELU with one salient channel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.gelu(1.5 * torch.randn(600, 128, generator=generator) - 0.5)
    x[:, 5] *= 20
    weight = torch.randn(32, 128, generator=generator)
    config = SvdQuantConfig(residual="gptq", smooth_points=4, rank=8, svd="exact", iterations=2, **settings)
    layer = policy.LayerInfo("layer", "Linear", (32, 128), 1, 0, True, after_gelu=True)
    return Problem(
        weight=weight, rows=x, absmax=(x + SHIFT).abs().amax(0), rank=8, config=config, shift=SHIFT,
        quantizer=policy.weight_quantizer(config, 128), activation=policy.activation_quantizer(config, layer),
    )  # fmt: skip


def test_it_is_given_the_residual_and_smoothed_inputs_without_the_shift(monkeypatch) -> None:
    """The bias takes the shift back through the codes: sparing their sum would cost the rest."""
    case, seen, plain = shifted(), [], gptq_codes
    monkeypatch.setattr(solve, "gptq_codes", lambda *a: seen.extend(a[:2]) or plain(*a))
    found = solve.solve(case)
    factor = found.factor.float()
    assert found.notes["gptq"] and float(factor.max() / factor.min()) > 2
    residual = case.weight * factor - found.up.float() @ (found.down.float() * factor)
    torch.testing.assert_close(seen[0], residual, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[1], case.rows / factor)


def test_rounding_stays_where_it_measures_better(monkeypatch) -> None:
    case = shifted()
    monkeypatch.setattr(solve, "gptq_codes", lambda w, *_: torch.zeros(w.shape, dtype=torch.int8))
    found = solve.solve(case)
    assert found.notes["gptq"] is False and bool(found.codes.any())


def test_a_channel_that_never_fires_is_rounded_and_drowns_nobody() -> None:
    """Its stand-in diagonal of 1 once was the mean, and 1 % of that more than small inputs have."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 64, generator=generator) @ torch.randn(64, 64, generator=generator) / 8
    x[:, 9] = 0
    weight = torch.randn(16, 64, generator=generator)
    quantizer = policy.weight_quantizer(SvdQuantConfig(), 64)
    nearest, params = quantizer.encode(weight, "linear_weight")
    small, large = (gptq_codes(weight, x * 2.0**k, quantizer, params, 0.01, 32) for k in (-10, 4))
    assert torch.equal(small, large) and torch.equal(large[:, 9], nearest[:, 9])
    alive = torch.arange(64) != 9
    exact = gptq_codes(weight[:, alive], x[:, alive], quantizer, params, 0.01, 32)
    assert float((large[:, alive] == exact).float().mean()) > 0.99
    assert torch.equal(gptq_codes(weight, 0 * x, quantizer, params, 0.01, 32), nearest)


@pytest.mark.parametrize("failures", [0, 3])
def test_damping_rises_by_a_thousandth_of_the_mean(failures: int, monkeypatch) -> None:
    left, plain = [failures], torch.linalg.cholesky_ex

    def sometimes(matrix: torch.Tensor, **options) -> tuple[torch.Tensor, torch.Tensor]:
        left[0] -= 1
        return plain(matrix, **options) if left[0] < 0 else (matrix, torch.ones(()))

    monkeypatch.setattr(torch.linalg, "cholesky_ex", sometimes)
    upper = gptq._inverse_factor(torch.diag(torch.tensor([1.0, 3.0])), 0.01)
    expected = torch.tensor([1.0, 3.0]) + 2 * (0.01 + 0.001 * failures)
    torch.testing.assert_close(upper, torch.diag(expected**-0.5))
