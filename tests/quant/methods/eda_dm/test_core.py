"""EDA-DM: soft rounding, units in execution order, the fine-grained loss, and what it buys."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.methods.eda_dm import EdaDmConfig
from quant.methods.eda_dm.reconstruct import mixed, unit_loss
from quant.methods.eda_dm.sampling import calibration
from quant.methods.eda_dm.soft import SoftLayer
from quant.sensitivity.probes import NoisePrediction
from quant.training import rounding
from quant.training.blocks import find_units, inputs_of
from quant.training.rounding import undecided

FEW = ["mid_block.*"]
SHORT = EdaDmConfig(points=8, iterations=3, batch_size=4, weight_bits=4)


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(20, 5, 24, generator=torch.Generator().manual_seed(0))
    return quant.record(
        tiny.build("level"),
        FlowMatchEulerDiscreteScheduler(),
        conditions,
        tmp_path_factory.mktemp("s"),
        n_steps=4,
    )


def soft_layer(model, name: str, drop: float = 0.0, bits: int = 4) -> SoftLayer:
    line = next(x for x in quant.plan(model, EdaDmConfig(weight_bits=bits)).layers if x.name == name)
    inputs = {"scale": torch.full((1, 1, 1, 1), 0.03), "zero_point": torch.full((1, 1, 1, 1), 100).byte()}
    return SoftLayer(model.get_submodule(name), line, inputs, drop, torch.Generator().manual_seed(0))


CONV = "mid_block.resnets.0.conv1"


def test_soft_rounding_starts_as_the_clipped_weight(tiny) -> None:
    soft = soft_layer(tiny.build("level"), CONV)
    scale, zero = soft.params["scale"], soft.params["zero_point"].float()
    clipped = soft.source.clamp(-zero * scale, (15 - zero) * scale)
    torch.testing.assert_close(soft.weight(), clipped, rtol=1e-5, atol=1e-6)
    assert undecided(soft.soft(), 1.0) > 0


def test_rectified_sigmoid_is_the_published_one() -> None:
    """``h = clip(1.2 sigmoid(alpha) - 0.1, 0, 1)``; pull ``1 - |2h - 1|^b``, b from 20 to 2 after a fifth."""
    alpha = torch.linspace(-6, 6, 49)
    h = rounding.soft(alpha)
    torch.testing.assert_close(h, (1.2 / (1 + torch.exp(-alpha)) - 0.1).clamp(0, 1))
    share = torch.linspace(0, 1, 11)
    torch.testing.assert_close(rounding.soft(rounding.start(share)), share, rtol=1e-5, atol=1e-6)
    for progress, power in ((0.2, 20.0), (0.6, 11.0), (1.0, 2.0)):
        wanted = (1 - (2 * h - 1).abs().pow(power)).mean()
        torch.testing.assert_close(undecided(h, progress), wanted)
    assert undecided(h, 0.19) == 0.0


def test_codes_are_the_floor_or_the_one_above(tiny) -> None:
    soft = soft_layer(tiny.build("level"), CONV)
    soft.alpha.data += torch.randn(soft.alpha.shape, generator=torch.Generator().manual_seed(1)) * 5
    codes = soft.result({}).weight.codes().int()
    floor = soft.base + soft.params["zero_point"].float()
    up = codes - floor.clamp(0, 15).int()
    assert set(up.unique().tolist()) == {0, 1}
    inside = (floor >= 0) & (floor < 15)
    assert torch.equal(up[inside].bool(), (soft.alpha >= 0)[inside])


def test_untrained_codes_are_nearest_rounding(tiny) -> None:
    soft = soft_layer(tiny.build("level"), CONV)
    nearest = quant.layers.encoded.EncodedWeight.from_weight(soft.source, soft.line.weight, "conv_weight")
    assert (soft.result({}).weight.codes() != nearest.codes()).float().mean() < 1e-3  # ties only


def test_dropping_nothing_is_the_plain_quantized_forward(tiny) -> None:
    model = tiny.build("level")
    x = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    soft = soft_layer(model, CONV)
    plain = soft.line.activation.fake(x, "conv_input", soft.inputs)
    torch.testing.assert_close(soft.input(x).detach(), plain)
    everything = soft_layer(model, CONV, drop=1.0)
    assert torch.equal(everything.input(x), x)
    half = soft_layer(model, CONV, drop=0.5).input(x).detach()
    assert 0.4 < (half == x).float().mean() < 0.6


def test_input_mixing_leaves_vectors_alone() -> None:
    a, b = torch.zeros(4, 3, 5), torch.ones(4, 3, 5)
    out = mixed(
        [a, torch.zeros(4, 7), None], [b, torch.ones(4, 7), None], 0.5, torch.Generator().manual_seed(0)
    )
    assert 0.2 < out[0].mean() < 0.8 and not out[1].any() and out[2] is None
    assert torch.equal(mixed([a], [b], 0.0, torch.Generator())[0], a)
    many = [torch.full((9, 30, 30), v) for v in (0.0, 1.0)]
    few = mixed(many[:1], many[1:], 0.2, torch.Generator().manual_seed(0))[0]
    assert 0.17 < few.mean() < 0.23  # the share that is in full precision


def test_units_are_blocks_in_execution_order(tiny, store) -> None:
    model = tiny.build("level")
    names = [line.name for line in quant.plan(model, SHORT).quantized]
    batch = calibration(model, store, SHORT, 0)[0]
    units = find_units(model, names, batch, blocks=True)
    assert sorted(itertools.chain(*(u.layers for u in units))) == sorted(names)
    order = [u.name for u in units]
    middle = next(i for i, n in enumerate(order) if n.startswith("mid_block"))
    up = next(i for i, n in enumerate(order) if n.startswith("up_blocks"))
    # registered the other way round: up blocks come before the middle block in the module tree
    assert order[0].startswith("time_embedding") and middle < up and order[-1] == "conv_out"
    block = next(u for u in units if u.name.endswith("transformer_blocks.0"))
    assert block.layers[0].endswith("attn1.to_q") and block.layers[-1].endswith("ff.net.2")
    alone = find_units(model, names, batch, blocks=False)
    assert all(u.layers == (u.name,) for u in alone) and len(alone) == len(names)


def test_inputs_are_cut_by_point(tiny, store) -> None:
    model = tiny.build("level")
    batch = calibration(model, store, SHORT, 0)[0]
    name = "mid_block.resnets.0"
    whole, parts = inputs_of(model, name, batch, 8), inputs_of(model, name, batch, 3)
    index = torch.tensor([5, 0])
    a, b = (x.call(model.get_submodule(name), x.rows(index)) for x in (whole, parts))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(a) == 2 and not model.get_submodule(name)._forward_pre_hooks


def test_loss_of_one_layer_ignores_the_layer_weight_and_zero_is_the_block_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    out, target = torch.randn(2, 3, 4, 4, generator=draw), torch.randn(2, 3, 4, 4, generator=draw)
    seen = {"a": torch.randn(2, 5, 6, generator=draw), "b": out}
    wanted = {"a": torch.randn(2, 5, 6, generator=draw), "b": target}
    block = unit_loss(out, target, seen, wanted, ["a", "b"], EdaDmConfig(reconstruction="block"))
    assert block == (out - target).square().sum(1).mean()
    fine = [EdaDmConfig(layer_weight=w) for w in (0.0, 0.8, 5.0)]
    assert unit_loss(out, target, seen, wanted, ["a", "b"], fine[0]) == block
    one = [unit_loss(out, target, seen, wanted, ["b"], config) for config in fine]
    assert one[0] == one[1] == one[2] == block
    extra = 0.8 * (seen["a"] - wanted["a"]).square().sum(-1).mean()
    assert unit_loss(out, target, seen, wanted, ["a", "b"], fine[1]) == pytest.approx(float(block + extra))
    maps = {"a": out}, {"a": target}  # of a linear over (n, h, w, channels): its channels are last
    extra = 0.8 * (out - target).square().sum(-1).mean()
    found = unit_loss(seen["b"], target, *maps, ["a", "b"], fine[1], {"a"})
    assert found == pytest.approx(float(block + extra))
    alone = unit_loss(out, target, {}, {}, [""], fine[1], {""})
    assert alone == (out - target).square().sum(-1).mean()
    released = EdaDmConfig(as_released=True)
    over_tokens = 0.8 * (seen["a"] - wanted["a"]).square().sum(1).mean()
    assert unit_loss(out, target, seen, wanted, ["a", "b"], released) == pytest.approx(
        float(block + over_tokens)
    )


def test_without_layer_losses_fine_is_block_reconstruction(tiny, store) -> None:
    codes = []
    for change in ({"reconstruction": "block"}, {"layer_weight": 0.0}, {}):
        model = tiny.build("level")
        config = SHORT.model_copy(update={**change, "rate_weight": 0.5})
        quant.quantize_(model, config, trajectories=store, include=["mid_block.attentions.*"])
        layers = quant.layers.install.quant_layers(model)
        codes.append(torch.cat([layer.codes.flatten() for layer in layers.values()]))
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


def test_training_leaves_no_gradients_and_lowers_the_loss(tiny, store) -> None:
    model = tiny.build("level")
    config = SHORT.model_copy(update={"iterations": 40, "weight_bits": 3, "drop": 0.0, "regulariser": 0.01})
    ledger = quant.quantize_(model, config, trajectories=store, include=["mid_block.resnets.0.*"])
    assert all(p.grad is None for p in model.parameters())
    notes = next(r.notes for r in ledger.layers if r.name == CONV)
    assert notes["unit"] == "mid_block.resnets.0" and notes["loss_last"] < notes["loss_first"]


def test_learned_rounding_beats_nearest_on_held_out_trajectories(tiny, store) -> None:
    errors = {}
    for kind in ("none", "fine"):
        model = tiny.build("level")
        probe = NoisePrediction(store, 4, 2, subset="evaluate")
        reference = probe.run(model)
        config = SHORT.model_copy(
            update={
                "reconstruction": kind,
                "iterations": 60,
                "points": 24,
                "weight_bits": 3,
                "rate_weight": 0.05,
            }
        )
        quant.quantize_(model, config, trajectories=store, include=FEW)
        errors[kind] = probe.compare(reference, probe.run(model))[0]["nmse"]
    assert errors["fine"] < 0.9 * errors["none"]


def test_policy_of_the_paper_and_the_common_one(tiny) -> None:
    paper = {x.name: x for x in quant.plan(tiny.build("level"), "eda-dm-w4a8").layers}
    assert paper["conv_in"].bits == "W8A8" and paper["conv_out"].bits == "W8A32"
    assert paper["time_embedding.linear_1"].bits == paper[CONV].bits == "W4A8"
    shortcut = paper["up_blocks.0.resnets.0.conv_shortcut"].activation
    assert shortcut.granularity.kind == "input_channel"
    common = {x.name: x for x in quant.plan(tiny.build("level"), "eda-dm-w4a8-common").layers}
    assert common["conv_in"].skipped and common["time_embedding.linear_1"].skipped
    assert common["mid_block.resnets.0.time_emb_proj"].bits == "W8A32"
