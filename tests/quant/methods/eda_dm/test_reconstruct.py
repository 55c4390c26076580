"""What EDA-DM trains on, from what it starts, and that what it learned is what is kept."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.denoisers.inventory import LayerInfo
from quant.layers.encoded import EncodedWeight
from quant.layers.quantized import weight_sqnr_db
from quant.methods.eda_dm import EdaDmConfig, core, reconstruct
from quant.methods.eda_dm.core import formats
from quant.methods.eda_dm.sampling import calibration
from quant.methods.eda_dm.soft import SoftLayer
from quant.plans.plan import LayerPlan
from quant.registry import Context
from quant.training.blocks import Inputs, Unit
from quant.training.rounding import undecided

CONV = "mid_block.resnets.0.conv1"
SHORT = EdaDmConfig(points=8, iterations=3, batch_size=4, weight_bits=3)


def line_of(config: EdaDmConfig = SHORT) -> LayerPlan:
    layer = LayerInfo("0", "Linear", (5, 4), 1, 80, True)
    found = formats(layer, config)
    return LayerPlan(
        name="0", kind="Linear", shape=(5, 4), weight=found.weight, activation=found.activation,
        bytes_before=80, bytes_after=20,
    )  # fmt: skip


def inputs_with(value: float | torch.Tensor, count: int = 8) -> Inputs:
    x = value if isinstance(value, torch.Tensor) else torch.full((count, 6, 4), value)
    return Inputs([(((x,), {}), len(x))], (((x[:1],), {}), 1))


def one_layer(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5)).eval()


def train(config: EdaDmConfig, full: Inputs, inputs: Inputs) -> dict:
    generator = torch.Generator().manual_seed(0)
    return reconstruct.reconstruct(
        one_layer(), Unit("0", ("0",)), {"0": line_of(config)}, full, inputs, {}, config, generator, Context()
    )


def test_targets_are_full_precision_and_inputs_are_mixed(monkeypatch) -> None:
    """Full-precision inputs are ones, quantized ones halves: each shows where it went."""
    seen, targets = [], []
    forward, loss = SoftLayer.forward, reconstruct.unit_loss
    monkeypatch.setattr(SoftLayer, "forward", lambda self, x: seen.append(x) or forward(self, x))
    monkeypatch.setattr(reconstruct, "unit_loss", lambda o, t, *rest: targets.append(t) or loss(o, t, *rest))
    config = SHORT.model_copy(update={"drop": 0.5, "iterations": 8})
    train(config, inputs_with(1.0), inputs_with(0.5))
    mixed = torch.cat(seen)
    assert set(mixed.unique().tolist()) == {0.5, 1.0} and 0.6 < float(mixed.mean()) < 0.9
    with torch.no_grad():
        expected = one_layer()(torch.ones(4, 6, 4))
    assert len(targets) == 8
    for target in targets:
        torch.testing.assert_close(target, expected)


class Backwards(nn.Module):
    """Two layers that run in the other order than they are registered in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.later, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.later(self.first(x).relu())


@pytest.mark.parametrize(("released", "order"), [(False, ["first", "later"]), (True, ["later", "first"])])
def test_the_layer_left_out_is_the_last_that_runs(released, order, monkeypatch) -> None:
    """The released code leaves out the last *registered* one."""
    found, loss = [], reconstruct.unit_loss
    monkeypatch.setattr(
        reconstruct,
        "unit_loss",
        lambda o, t, s, w, order, *rest: found.append(list(order)) or loss(o, t, s, w, order, *rest),
    )
    config = SHORT.model_copy(update={"iterations": 1, "as_released": released})
    lines = {f"0.{n}": line_of().model_copy(update={"name": f"0.{n}", "shape": (4, 4)}) for n in order}
    reconstruct.reconstruct(
        nn.Sequential(Backwards()), Unit("0", ("0.first", "0.later")), lines, inputs_with(1.0),
        inputs_with(0.5), {}, config, torch.Generator().manual_seed(0), Context(),
    )  # fmt: skip
    assert found == [order]


def test_input_ranges_start_behind_the_quantized_prefix() -> None:
    x = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0))
    config = SHORT.model_copy(update={"reconstruction": "none"})
    found = train(config, inputs_with(10 * x), inputs_with(x))["0"].activation_params
    reach = float(found["scale"]) * 255
    assert 0.3 * float(x.max() - x.min()) < reach <= 1.01 * float(x.max() - x.min())


def test_halves_of_a_skip_concatenation_have_their_own_range() -> None:
    name = "up_blocks.0.resnets.0.conv_shortcut"
    format_ = formats(LayerInfo(name, "Conv2d", (2, 4, 1, 1), 1, 32, True), SHORT)
    assert format_.activation.observer.kind == "minmax"  # a search a channel would not be the half's
    line = line_of().model_copy(update={"kind": "Conv2d", "activation": format_.activation})
    x = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    x[:, 2:] *= 10
    inputs = Inputs([(((x,), {}), 4)], (((x[:1],), {}), 1))
    found = reconstruct.input_params(nn.Conv2d(4, 2, 1), {"": line}, inputs, {"": 2})[""]
    wanted = [float(x[:, part].max() - x[:, part].min()) / 255 for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(found["scale"].flatten(), torch.tensor(wanted).repeat_interleave(2))


def test_learned_input_scale_is_kept() -> None:
    start = {"scale": torch.full((1, 1, 1), 0.03), "zero_point": torch.full((1, 1, 1), 100).byte()}
    soft = SoftLayer(one_layer()[0], line_of(), start, 0.5, torch.Generator())
    soft.log_scale.data.fill_(0.2)
    kept = soft.result({}).activation_params
    torch.testing.assert_close(kept["scale"], start["scale"] * math.exp(0.2))
    assert torch.equal(kept["zero_point"], start["zero_point"])
    x = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0))
    still, moved = (
        train(SHORT.model_copy(update={"iterations": 20, "rate_scale": rate}), inputs_with(x), inputs_with(x))
        for rate in (0.0, 0.1)
    )
    factor = float(moved["0"].activation_params["scale"] / still["0"].activation_params["scale"])
    assert abs(factor - 1) > 0.02


def test_rates_fall_by_a_cosine(monkeypatch) -> None:
    rates: list[list[float]] = []

    class Adam(torch.optim.AdamW):
        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Adam)
    config = SHORT.model_copy(update={"iterations": 10, "rate_weight": 0.2, "rate_scale": 0.01})
    train(config, inputs_with(1.0), inputs_with(1.0))
    for step, (weight, scale) in enumerate(rates):
        share = (1 + math.cos(math.pi * step / 10)) / 2
        assert weight == pytest.approx(0.2 * share) and scale == pytest.approx(0.01 * share)
    assert len(rates) == 10


def test_regulariser_pulls_to_whole_codes() -> None:
    left = []
    x = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0))
    for weight in (0.0, 10.0):
        config = SHORT.model_copy(update={"iterations": 100, "regulariser": weight, "drop": 0.0})
        generator = torch.Generator().manual_seed(0)
        block = one_layer()[0]
        soft = SoftLayer(block, line_of(config), {}, 0.0, generator)
        reconstruct._train(
            "u", block, {"": soft}, [""], inputs_with(x), inputs_with(x), config, generator, Context()
        )
        left.append(float(undecided(soft.soft(), 1.0).detach()))
    assert left[1] < 0.5 * left[0]


def test_ranges_are_searched_for_the_published_norm() -> None:
    line = line_of()
    assert line.weight.observer.norm == line.activation.observer.norm == 2.4


@pytest.fixture(scope="module")
def guided(tiny, tmp_path_factory):
    conditions = torch.randn(10, 5, 24, generator=torch.Generator().manual_seed(0))
    return quant.record(
        tiny.build("level"), FlowMatchEulerDiscreteScheduler(), conditions, tmp_path_factory.mktemp("s"),
        n_steps=3, guidance=2.0, null_condition=torch.full((5, 24), 0.5),
    )  # fmt: skip


def test_every_second_point_has_the_null_condition(tiny, guided) -> None:
    batch, _ = calibration(tiny.build("level"), guided, SHORT.model_copy(update={"points": 9}), seed=1)
    for row in range(9):
        known = guided.sample(int(batch.key[row]))["condition"]
        expected = torch.full((5, 24), 0.5) if row % 2 else known
        assert torch.equal(batch.condition[row], expected)


def test_units_train_behind_the_quantized_prefix(tiny, guided, monkeypatch) -> None:
    seen = {}
    original = core.reconstruct

    def spy(model, unit, lines, full, inputs, *rest):
        seen[unit.name] = (full, inputs)
        return original(model, unit, lines, full, inputs, *rest)

    monkeypatch.setattr(core, "reconstruct", spy)
    few = ["mid_block.resnets.0.*", "mid_block.resnets.1.*"]
    quant.quantize_(tiny.build("level"), SHORT, trajectories=guided, include=few)
    (full, inputs), (later_full, later) = seen["mid_block.resnets.0"], seen["mid_block.resnets.1"]
    assert full is inputs  # nothing before it is quantized
    assert torch.equal(later_full.leaves[1], later.leaves[1])  # the time embedding
    assert not torch.equal(later_full.leaves[0], later.leaves[0])
    torch.testing.assert_close(later.leaves[0], later_full.leaves[0], rtol=0.5, atol=0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_nearest_is_nearest_in_any_dtype(dtype: torch.dtype, tiny, guided) -> None:
    config = SHORT.model_copy(update={"weight_bits": 8, "reconstruction": "none"})
    model = tiny.build("level").to(dtype)
    weight = model.get_submodule(CONV).weight.detach().clone()
    ledger = quant.quantize_(model, config, trajectories=guided, include=[CONV])
    layer = model.get_submodule(CONV)
    nearest = EncodedWeight.from_weight(weight, layer.weight_quantizer, "conv_weight")
    # other codes at exact ties only, which are common between bfloat16 numbers
    errors = [(weight.double() - w.decode(torch.float64)).abs() for w in (layer.encoded(), nearest)]
    torch.testing.assert_close(*errors, rtol=0, atol=1e-5 * float(layer.weight_scale.max()))
    best = weight_sqnr_db(weight, quant.layers.encoded.LayerResult(nearest))
    record = next(r for r in ledger.layers if r.name == CONV)
    assert record.weight_sqnr_db == pytest.approx(best, abs=0.01)
    assert layer.input_quantizer.scale.dtype == torch.float32


def test_training_in_bfloat16_keeps_its_parameters_in_float32(tiny, guided) -> None:
    model = tiny.build("level").to(torch.bfloat16)
    soft = SoftLayer(
        model.get_submodule(CONV), next(x for x in quant.plan(model, SHORT).layers if x.name == CONV), {},
        0.0, torch.Generator(),
    )  # fmt: skip
    assert soft.alpha.dtype == soft.log_scale.dtype == torch.float32
    config = SHORT.model_copy(update={"iterations": 20, "rate_weight": 0.05})
    ledger = quant.quantize_(model, config, trajectories=guided, include=["mid_block.resnets.0.*"])
    notes = next(r.notes for r in ledger.layers if r.name == CONV)
    assert notes["loss_last"] < notes["loss_first"] and tiny.run(model, "level").isfinite().all()
