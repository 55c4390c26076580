"""EfficientDM: merged factors are plain integers; rows of other timesteps keep every bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quant
from quant.formats.schedule import Clock
from quant.layers.install import quant_layers
from quant.methods.efficientdm import EfficientDmConfig
from quant.methods.efficientdm.core import Adapted
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.policy import by_channel, by_tensor
from quant.training.sides import Master, Rows, StoredInput

CONFIG = EfficientDmConfig(train_steps=0, train_rows=2, calibration_rows=6, held_out_rows=0)


def line_of(tiny, name: str):
    return next(x for x in quant.plan(tiny.build("level"), CONFIG).layers if x.name == name)


@pytest.mark.parametrize("name", ["mid_block.resnets.0.conv1", "mid_block.attentions.0.proj_in"])
def test_factors_that_are_zero_leave_the_naive_codes(name: str, tiny) -> None:
    line = line_of(tiny, name)
    weight = tiny.build("level").get_submodule(name).weight
    side = Adapted(weight, line, 4)
    naive = Master(weight, line.weight, side.layout)
    assert torch.equal(side.encoded().codes(), naive.encoded().codes())
    assert torch.equal(side.weight(), naive.weight())
    assert torch.equal(side.effective(), naive.weight())  # W0 is the rounded weight: the float one is gone
    assert side.down.shape[0] == 4 and Adapted(weight, line, 1000).down.shape[0] == min(
        weight.shape[0], weight[0].numel()
    )


def test_the_factors_of_a_convolution_are_its_kernel_and_a_pointwise_one(tiny) -> None:
    name = "mid_block.resnets.0.conv1"
    conv = tiny.build("level").get_submodule(name)
    side = Adapted(conv.weight, line_of(tiny, name), 3).double()
    side.up.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(
        2, conv.in_channels, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    first = nn.functional.conv2d(x, side.down.reshape(3, *conv.weight.shape[1:]), padding=1)
    two = nn.functional.conv2d(first, side.up[:, :, None, None])
    merged = nn.functional.conv2d(x, side.effective() - side.master, padding=1)
    torch.testing.assert_close(two, merged, rtol=1e-10, atol=1e-10)


def table(bits: int = 4, timesteps=(100.0, 500.0, 900.0)) -> tuple[StoredInput, Clock]:
    clock = Clock()
    start = {"scale": torch.full((1, 1, 1), 0.1), "zero_point": torch.full((1, 1, 1), 7).byte()}
    quantizer = by_tensor(bits, timesteps is not None)
    rows = None if timesteps is None else Rows(timesteps, quantizer.schedule, clock)
    return StoredInput(quantizer, "linear_input", start, rows), clock


def test_a_step_at_one_timestep_leaves_the_other_rows_bit_for_bit() -> None:
    side, clock = table()
    parameters = dict(side.named_parameters())
    optimizer = Optimizer([Group(parameters, 0.01, decay=0.1)], Rules(), 10)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

    def step(timestep: float) -> None:
        clock.timestep = torch.tensor([timestep])
        side(x).square().sum().backward()
        optimizer.step()

    for timestep in (100.0, 500.0, 900.0):  # every row has moments
        step(timestep)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for _ in range(3):
        step(500.0)
    changed = {name for name, p in parameters.items() if not torch.equal(p, before[name])}
    assert changed == {"scale.1", "zero.1"}


def test_a_table_of_equal_rows_is_one_range_and_mixed_batches_read_each_row() -> None:
    side, clock = table()
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    start = {"scale": torch.full((1, 1, 1), 0.1), "zero_point": torch.full((1, 1, 1), 7).byte()}
    static = StoredInput(by_tensor(4), "linear_input", start)
    clock.timestep = torch.tensor([100.0, 900.0])  # guidance stacks two batches: 4 rows
    assert torch.equal(side(x), static(x))
    side.scale[2].data.mul_(2)
    each = []
    for row, timestep in enumerate((100.0, 900.0, 100.0, 900.0)):
        clock.timestep = torch.tensor([timestep])
        each.append(side(x[row : row + 1]))
    clock.timestep = torch.tensor([100.0, 900.0])
    assert torch.equal(side(x), torch.cat(each)) and not torch.equal(side(x), static(x))
    clock.samples = 2  # of the model's call: two rows a sample, as a clip's frames are, do not alternate
    clock.timestep = torch.tensor([100.0, 900.0])
    assert torch.equal(side(x[[0, 2, 1, 3]]), torch.cat([each[i] for i in (0, 2, 1, 3)]))
    params, timesteps = side.params()
    assert params["scale"].shape == (3, 1, 1, 1) and params["zero_point"].dtype == torch.uint8
    assert timesteps.tolist() == [100.0, 500.0, 900.0]
    assert timesteps.data_ptr() != side.params()[1].data_ptr()  # each layer has its own in the file


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_more_levels_than_codes_however_the_zero_point_lies(bits: int) -> None:
    ramp = torch.linspace(-40, 40, 8001)[None]
    for zero in (-1.7, 0.3, 2.5, 2**bits + 3.2):
        side, _ = table(bits, None)
        side.zero[0].data.fill_(zero)
        levels = side(ramp[None]).unique()
        assert len(levels) <= 2**bits and 0.0 in levels.tolist()


def test_scale_gradients_are_the_closed_form() -> None:
    side, _ = table(4, None)
    x = torch.linspace(-2, 2, 301).reshape(1, 1, -1)
    out = side(x)
    out.sum().backward()
    code = (x / 0.1).round() + 7
    inside = (code >= 0) & (code <= 15)
    expected = torch.where(inside, (x / 0.1).round() - x / 0.1, code.clamp(0, 15) - 7).sum()
    torch.testing.assert_close(side.scale[0].grad.sum(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(side.zero[0].grad.sum(), -0.1 * (~inside).sum().float(), rtol=1e-5, atol=0)


def test_policy_and_plain_integers(tiny, recorded) -> None:
    model = tiny.build("level")
    ledger = quant.quantize_(model, CONFIG, trajectories=recorded("level"))
    by_name = {record.name: record for record in ledger.layers}
    assert by_name["conv_in"].weight.bits == by_name["conv_in"].activation.bits == 8
    assert by_name["conv_in"].activation.schedule.kind == "static"
    assert "not quantized" in by_name["up_blocks.0.resnets.0.conv_shortcut"].reason
    body = by_name["mid_block.resnets.0.conv1"]
    assert (body.weight.bits, body.activation.bits, body.activation.schedule.kind) == (4, 4, "timestep")
    for layer in quant_layers(model).values():
        assert layer.branch is None and layer.transform is None
        assert layer.encoded().codes().dtype == torch.uint8
    assert by_channel(4).grid.mode == "asymmetric"
    static = quant.plan(tiny.build("unet"), CONFIG.model_copy(update={"temporal": False})).quantized
    assert {line.activation.schedule.kind for line in static} == {"static"}


def test_rates_follow_the_steps_of_the_layers(tiny, recorded, monkeypatch) -> None:
    from quant.training.student import Student

    seen = {}

    def look(self, key, groups, **rest):
        seen["groups"], seen["rules"], seen["layers"] = groups, rest["rules"], self.layers

    monkeypatch.setattr(Student, "train", look)
    some = ["mid_block.resnets.0.conv*"]
    for form in ("rate", "gradient", "none"):
        config = CONFIG.model_copy(update={"scale_aware": form, "rate_factors": 0.5})
        quant.quantize_(tiny.build("level"), config, trajectories=recorded("level"), include=some)
        steps = [float(layer.side.params()["scale"].detach().mean()) for layer in seen["layers"].values()]
        factors = [g for g in seen["groups"] if any(n.endswith(".up") for n in g.parameters)]
        assert [g.rate for g in factors] == pytest.approx([0.5 * s if form == "rate" else 0.5 for s in steps])
        assert [g.gradient for g in factors] == pytest.approx(steps if form == "gradient" else [1.0, 1.0])
        for layer in seen["layers"].values():  # in units of themselves, zero points in codes
            start = layer.inputs.scale[0].detach()
            for part, rate in (
                (layer.side.scale, config.rate_weight_scale * layer.side.scale.detach().mean()),
                (layer.inputs.scale[1], config.rate_input * start), (layer.inputs.zero[1], config.rate_input),
            ):  # fmt: skip
                (found,) = (g.rate for g in seen["groups"] if any(p is part for p in g.parameters.values()))
                assert found == pytest.approx(float(rate))
        assert seen["rules"].schedule == "linear" and seen["rules"].warm_up == 0
        assert seen["rules"].optimizer == ("sgd" if form == "gradient" else "adam")
