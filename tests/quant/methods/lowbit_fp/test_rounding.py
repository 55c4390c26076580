"""Low-bit floats: rounding learned by the layer's output."""

from __future__ import annotations

import pytest
import torch

from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.methods.lowbit_fp import LowbitFpConfig
from quant.methods.lowbit_fp.core import _layer, _quantizer
from quant.methods.lowbit_fp.rounding import learn, step_of
from quant.methods.lowbit_fp.search import Values, sample, search
from quant.plans.plan import LayerPlan
from quant.recordings.rows import LayerRows
from quant.registry import Context
from quant.training.rounding import soft, start, undecided


def everything(weight: torch.Tensor) -> Values:
    return sample(weight, weight.numel(), torch.Generator())


def test_soft_rounding_is_adarounds() -> None:
    """zeta = 1.1, gamma = -0.1: half at 0, full from log 11 on."""
    edge = torch.log(torch.tensor(11.0))
    values = soft(torch.stack([-edge - 0.01, -edge + 0.01, 0 * edge, edge - 0.01, edge + 0.01]))
    assert values[0] == 0 < values[1] < values[2] == 0.5 < values[3] < values[4] == 1
    assert float(soft(torch.tensor(1.0))) == pytest.approx(1.2 / (1 + 2.718282**-1) - 0.1, rel=1e-5)


def test_undecided_roundings_cost_more_and_more() -> None:
    h = torch.tensor([0.5, 0.9, 0.0, 1.0])
    assert undecided(h, 0.0) == undecided(h, 0.19) == 0
    for progress, beta in ((0.2, 20), (0.6, 11), (1.0, 2)):
        assert float(undecided(h, progress)) == pytest.approx((1 + 1 - 0.8**beta) / 4, rel=1e-5)


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Heavy-tailed weight and correlated inputs, as in the card's ordering."""
    generator = torch.Generator().manual_seed(seed)
    chi = torch.randn(64, 128, 6, generator=generator).square().mean(-1).sqrt()
    weight = torch.randn(64, 128, generator=generator) / chi
    mix = torch.randn(128, 128, generator=generator) / 128**0.5 + 0.5 * torch.eye(128)
    return weight, torch.randn(512, 128, generator=generator) @ mix


def test_learned_rounding_stays_on_the_grid_within_a_step() -> None:
    weight, rows = case()
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=30)
    params, _ = search(everything(weight), _quantizer(4, config), 111)
    grid = _quantizer(4, config).grid.format(int(params["format"]))
    learned = learn(weight, rows, grid, params["scale"], config, Context(), "w")
    torch.testing.assert_close(grid.fake(learned, params), learned, rtol=1e-6, atol=0)
    edge = grid.largest * params["scale"]
    clipped = weight.clamp(-edge, edge)
    step = step_of(clipped, grid, params["scale"])
    assert bool(((learned - clipped).abs() <= step * (1 + 1e-5)).all())
    fraction = clipped / step - torch.floor(clipped / step)
    torch.testing.assert_close(soft(start(fraction)), fraction, rtol=1e-4, atol=1e-5)
    untouched = learn(
        weight,
        rows,
        grid,
        params["scale"],
        config.model_copy(update={"learning_rate": 1e-12}),
        Context(),
        "w",
    )
    tie = (fraction - 0.5).abs() < 1e-4
    torch.testing.assert_close(untouched[~tie], grid.fake(weight, params)[~tie], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_errors_of_weights_come_in_order(seed: int) -> None:
    """INT4 > FP4 > FP4 with learned rounding, in the layer's output on inputs that were not learned from."""
    weight, rows = case(seed)
    learned_from, fresh = rows.chunk(2)
    config = LowbitFpConfig(weight_bits=4, rounding="learned")
    four = _quantizer(4, config)
    params, _ = search(everything(weight), four, 111)
    absmax = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="tensor"))
    grid = four.grid.format(int(params["format"]))

    def error(value: torch.Tensor) -> float:
        return float((fresh @ (value - weight).T).square().mean() / (fresh @ weight.T).square().mean())

    nearest = error(four.fake(weight, "linear_weight", params))
    learned = error(learn(weight, learned_from, grid, params["scale"], config, Context(), "w"))
    assert error(absmax.fake(weight, "linear_weight")) > nearest > learned


def output_error(seed: int, **changes) -> float:
    weight, rows = case(seed)
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=100, **changes)
    four = _quantizer(4, config)
    params, _ = search(everything(weight), four, 56)
    learned = learn(
        weight, rows, four.grid.format(int(params["format"])), params["scale"], config, Context(), "w"
    )
    return float((rows @ (learned - weight).T).square().mean())


def test_the_penalty_makes_the_cut_at_one_half_harmless() -> None:
    assert output_error(11) < 0.8 * output_error(11, penalty=0.0)


def test_dividing_by_the_step_learns_faster() -> None:
    """Small steps have small gradients; what 500 plain steps reach, fewer normalized ones do."""
    assert output_error(12) < 0.95 * output_error(12, normalized=False)


def test_learning_serves_a_layer_whose_steps_differ_much() -> None:
    """One outlier chooses E3M0, whose steps differ 64-fold."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator) * 0.07
    weight[0, 0] = 3.0
    rows = torch.randn(512, 12, generator=generator) @ torch.randn(12, 64, generator=generator)
    rows += 0.2 * torch.randn(512, 64, generator=generator)
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=50)
    four = _quantizer(4, config)
    params, chosen = search(everything(weight), four, 111)
    assert chosen["format"] == "fp4-e3m0"
    grid = four.grid.format(int(params["format"]))

    def error(value: torch.Tensor) -> float:
        return float((rows @ (value - weight).T).square().mean())

    learned = error(learn(weight, rows, grid, params["scale"], config, Context(), "w"))
    assert learned < 0.7 * error(four.fake(weight, "linear_weight", params))


@pytest.mark.parametrize("kind", ["Linear", "Conv2d"])
def test_a_layer_learns_from_its_own_rows(kind: str) -> None:
    """Rows of a convolution are patches in the order of its flattened weight."""
    weight, rows = case(13)
    mix = torch.linspace(0.2, 3, 128)  # channels of unlike size: rows of another order teach nothing
    rows = rows * mix
    module = torch.nn.Linear(128, 64) if kind == "Linear" else torch.nn.Conv2d(32, 64, 2)
    with torch.no_grad():
        module.weight.copy_(weight.reshape(module.weight.shape))
    line = {"kind": kind, "shape": tuple(module.weight.shape), "bytes_before": 1, "bytes_after": 1}
    nearest, learned = (
        LowbitFpConfig(weight_bits=4, rounding=rounding, iterations=100)
        for rounding in ("nearest", "learned")
    )
    plan = LayerPlan(name="layer", weight=_quantizer(4, learned), **line)
    seen = LayerRows(rows, rows.amin(0), rows.amax(0))
    images = rows.reshape(-1, 32, 2, 2) if kind == "Conv2d" else rows
    exact, errors = module(images).detach(), []
    for config in (nearest, learned):
        decoded = _layer(module, plan, seen, config, Context()).weight.decode()
        call = torch.nn.functional.linear if kind == "Linear" else torch.nn.functional.conv2d
        out = call(images, decoded, module.bias).detach()
        errors.append(float((out - exact).square().mean()))
    assert errors[1] < 0.75 * errors[0]


def test_integers_in_place_of_floats_are_the_same_method_on_another_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(24, 32, generator=generator), torch.randn(128, 32, generator=generator)
    config = LowbitFpConfig(weight_bits=4, formats="integer", rounding="learned", iterations=60)
    quantizer = _quantizer(4, config)
    assert quantizer.grid == IntGrid(bits=4) and _quantizer(8, config).grid == IntGrid(bits=8)
    params, notes = search(everything(weight), quantizer, 40)
    assert notes["format"] == "int4" and 0.1 <= notes["clip"] <= 1.2
    learned = learn(weight, rows, quantizer.grid, params["scale"], config, Context(), "w")
    steps = learned / params["scale"]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert float(steps.abs().max()) <= 7.001
    nearest = quantizer.fake(weight, "linear_weight", {"scale": params["scale"].reshape(1, 1)})
    assert ((learned - weight) @ rows.T).norm() < ((nearest - weight) @ rows.T).norm()


def test_others_make_up_for_what_is_clipped_and_nothing_leaves_the_grid() -> None:
    """E1M2 to 3.5: what a weight of 5 lacks is made up for by its neighbour, 0.7 up to 1."""
    weight, rows = torch.tensor([[5.0, 0.7]]), torch.ones(64, 2)
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=200)
    grid = FloatGrid(exponent=1, mantissa=2)
    learned = learn(weight, rows, grid, torch.ones(1), config, Context(), "w")
    assert torch.equal(learned, torch.tensor([[3.5, 1.0]]))


def test_grouped_convolutions_are_rounded_to_nearest() -> None:
    module = torch.nn.Conv2d(8, 8, 3, groups=8)
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=5, activation_bits=None)
    shape = tuple(module.weight.shape)
    line = {"kind": "Conv2d", "shape": shape, "bytes_before": 1, "bytes_after": 1}
    plan = LayerPlan(name="layer", weight=_quantizer(4, config), **line)
    seen = LayerRows(torch.randn(30, 72), -torch.ones(8), torch.ones(8))
    result = _layer(module, plan, seen, config, Context())
    weight = module.weight.detach()
    assert "rounding" not in result.notes
    assert torch.equal(result.weight.decode(), plan.weight.fake(weight, "conv_weight", result.weight.params))
