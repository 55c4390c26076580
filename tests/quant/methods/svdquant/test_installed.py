"""The error that SVDQuant searched is that of the layers that come out, whatever is switched on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import quant
from quant.denoisers.inventory import LayerInfo
from quant.formats.schedule import Clock
from quant.layers.quantized import make
from quant.methods.svdquant import SvdQuantConfig, core
from quant.methods.svdquant import formats as policy
from quant.methods.svdquant.core import solve_stack
from quant.methods.svdquant.lowrank import top_singular
from quant.methods.svdquant.solve import SHIFT, Problem, attempt
from quant.plans.plan import LayerPlan
from quant.recordings.rows import LayerRows


@pytest.mark.parametrize(
    ("gelu", "settings"),
    [
        (False, {}),
        (False, {"smooth": "none", "rank": 0}),
        (False, {"numbers": "nvfp4", "branch_dtype": "float16"}),
        (False, {"numbers": "int8"}),
        (False, {"scales": "pow2", "group": 32}),
        (True, {}),
        (True, {"residual": "gptq", "scales": "int"}),
        (True, {"smooth": "none", "rank": 0}),
        (True, {"shift": False}),
        (True, {"activation_bits": None}),
        (True, {"residual_bits": 2, "activation_bits": 8}),
    ],
    ids=str,
)
def test_the_searched_error_is_the_layers(gelu: bool, settings: dict) -> None:
    """Two layers that read one input, in float32: outputs against those of full precision."""
    torch.manual_seed(0)
    x = torch.randn(80, 72)
    x[:, 7] *= 12
    x = nn.functional.gelu(x) if gelu else x
    config = SvdQuantConfig(**{"rank": 4, "smooth_points": 3, "iterations": 3, **settings})
    modules: dict[str, nn.Module] = {"block.a": nn.Linear(72, 20), "block.b": nn.Linear(72, 20)}
    info = LayerInfo("block.a", "Linear", (20, 72), 1, 0, True, after_gelu=gelu)
    planned = policy.formats(info, config)
    lines = [
        LayerPlan(
            name=name, kind="Linear", shape=(20, 72), weight=planned.weight, activation=planned.activation,
            bytes_before=1, bytes_after=1,
        )
        for name in modules
    ]  # fmt: skip
    seen = LayerRows(x, x.amin(0), x.amax(0))
    found = solve_stack([(line, seen) for line in lines], copy.deepcopy(modules), info, config)
    errors = exact = 0.0
    with torch.no_grad():
        for name, module in modules.items():
            layer = make(module, found[name], Clock())
            errors += float((layer(x) - module(x)).double().square().sum())
            exact += float((module(x) - module.bias).double().square().sum())
            stored = found[name].weight.bytes()
            parts = [t for p in (found[name].transform, found[name].branch) if p for t in p.buffers()]
            size = sum(stored.values()) + sum(t.numel() * t.element_size() for t in parts)
            coded = policy.weight_quantizer(config, 72)
            assert coded == planned.weight and size == sum(stored.values()) + planned.side_bytes
    notes = found["block.a"].notes
    assert notes["relative_output_error"] == pytest.approx((errors / exact) ** 0.5, rel=2e-3)
    assert notes["relative_output_error"] < 0.5


@pytest.mark.parametrize("how", ["exact", "randomized"])
def test_both_factors_carry_half_of_the_singular_values(how: str) -> None:
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    up, down, _ = top_singular(weight, 6, how)
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1), rtol=1e-3, atol=0)


def test_a_neighbours_subspace_is_a_start_and_no_answer() -> None:
    """From the branch at one smoothing to that at the next, by half of the rounds."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 128, generator=generator)
    spread = torch.exp(torch.randn(128, generator=generator))
    basis = top_singular(weight * spread**0.4, 8, "randomized")[2]
    smoothed = weight * spread**0.7
    up, down, _ = top_singular(smoothed, 8, "randomized", basis)
    best = float(torch.linalg.svdvals(smoothed)[8:].square().sum())
    assert float((smoothed - up @ down).square().sum()) < 1.01 * best
    stale = smoothed - smoothed @ basis[:, :8] @ basis[:, :8].T
    assert float(stale.square().sum()) > 1.02 * best


def test_only_the_branch_that_stays_has_its_coarse_scales_searched() -> None:
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    config = SvdQuantConfig(scales="pow2", rank=0)
    quantizer = policy.weight_quantizer(config, 128)
    case = Problem(weight, weight, weight.abs().amax(0), 0, quantizer, None, config)
    first = quantizer.model_copy(update={"search": 0})
    for refine, wanted in ((True, quantizer), (False, first)):
        found = attempt(case, None, weight, None, refine=refine)
        assert torch.equal(quantizer.decode(found.codes, found.params, "linear_weight"),
                           wanted.fake(weight, "linear_weight"))  # fmt: skip
    assert not torch.equal(quantizer.fake(weight, "linear_weight"), first.fake(weight, "linear_weight"))


def test_smoothing_sees_inputs_as_they_are_after_the_shift(monkeypatch) -> None:
    class Seen(Exception):
        pass

    def look(case: Problem) -> None:
        raise Seen(case.absmax)

    monkeypatch.setattr(core, "solve", look)
    config, info = SvdQuantConfig(), LayerInfo("a", "Linear", (4, 3), 1, 0, True, after_gelu=True)
    planned = policy.formats(info, config)
    line = LayerPlan(
        name="a", kind="Linear", shape=(4, 3), weight=planned.weight, activation=planned.activation,
        bytes_before=1, bytes_after=1,
    )  # fmt: skip
    seen = LayerRows(torch.zeros(2, 3), torch.tensor([-0.1, -0.15, 0.5]), torch.tensor([2.0, -0.12, 0.75]))
    with pytest.raises(Seen) as caught:
        solve_stack([(line, seen)], {"a": nn.Linear(3, 4)}, info, config)
    expected = torch.tensor([2.0, -0.12, 0.75]) + SHIFT
    torch.testing.assert_close(caught.value.args[0], expected)


def test_presets_are_the_publications() -> None:
    def planned(preset: str):
        config = SvdQuantConfig(**quant.get_preset(preset).config)
        info = LayerInfo("blocks.0.attn1.to_q", "Linear", (256, 256), 1, 0, True)
        return config, policy.formats(info, config)

    config, four = planned("svdquant-w4a4")
    assert (config.rank, config.iterations, config.smooth_points, config.residual) == (32, 100, 20, "rtn")
    assert (four.weight.label, four.activation.label) == ("int4/g64", "int4/g64")
    config, fed = planned("svdquant-gptq-w4a4")
    assert (config.residual, config.damp, config.block) == ("gptq", 0.01, 128)
    assert (fed.weight, fed.activation) == (four.weight, four.activation)
    config, eight = planned("svdquant-w8a8")
    assert config.rank == 16
    assert (eight.weight.label, eight.activation.label) == ("int8/channel", "int8/token")
    config, floats = planned("svdquant-nvfp4")
    assert config.rank == 32 and floats.weight.label == "fp4-e2m1/g16xe4m3"
    assert (floats.activation.label, floats.activation.scale_dtype) == ("fp4-e2m1/g16", "float8_e4m3fn")
