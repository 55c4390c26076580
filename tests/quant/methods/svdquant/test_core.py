"""SVDQuant through the library: plans, exports, kernels, determinism, overrides, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import quant
from quant.layers.attachments import LowRank, Smooth
from quant.layers.install import quant_layers
from quant.methods.svdquant import SvdQuantConfig

PRESETS = quant.list_presets("svdquant-*")
CASES = [(preset, "pixart") for preset in PRESETS] + [("svdquant-w4a4-common", "unet")]
FAST = {"smooth_points": 2, "iterations": 2, "samples": 3, "steps": 2, "rows": 64}


def quick(preset: str) -> SvdQuantConfig:
    return SvdQuantConfig(**{**quant.get_preset(preset).config, **FAST})


@pytest.fixture(scope="module")
def made(tiny, recorded):
    """``made(preset, model)``: ledger, quantized model (do not change), file; each worked out once."""
    known = {}

    def get(preset: str, name: str):
        if (preset, name) not in known:
            model = tiny.build(name)
            ledger = quant.quantize_(model, quick(preset), trajectories=recorded(name), seed=3)
            known[preset, name] = (ledger, model)
        return known[preset, name]

    return get


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_plan_is_what_is_done(preset, name, made, tiny) -> None:
    ledger, model = made(preset, name)
    plan = quant.plan(tiny.build(name), quick(preset))
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    assert ledger.bytes_after == plan.bytes_after
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    branched = [layer for layer in quant_layers(model).values() if isinstance(layer.branch, LowRank)]
    assert bool(branched) == (quick(preset).rank > 0)


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_loaded_equals_simulated(preset, name, made, tiny, tmp_path) -> None:
    ledger, model = made(preset, name)
    simulated = tiny.run(model, name)
    assert torch.isfinite(simulated).all() and not torch.equal(simulated, tiny.run(tiny.build(name), name))
    file = quant.export(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        bare = tiny.build(name)
    loaded = quant.load(file, bare)
    assert torch.equal(tiny.run(bare, name), simulated)
    assert loaded.bytes_file == file.stat().st_size and ledger.bytes_other_before is None
    again = quant.export(bare, tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_kernels_equal_simulation(preset, name, made, tiny, tmp_path) -> None:
    _, model = made(preset, name)
    file = quant.export(model, tmp_path / "m.safetensors")
    exported = tiny.build(name, seed=99)
    quant.load(file, exported)
    seen = {}
    handles = [
        layer.register_forward_hook(lambda m, args, out, key=key: seen.__setitem__(key, (args[0], out)))
        for key, layer in quant_layers(model).items()
    ]
    tiny.run(model, name)
    for handle in handles:
        handle.remove()
    for key, layer in quant_layers(exported).items():
        x, out = seen[key]
        layer.backend = "kernels"
        with torch.no_grad():
            torch.testing.assert_close(
                layer(x), out, rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("preset", ["svdquant-gptq-w4a4"])
def test_same_seed_same_bytes(preset, made, tiny, recorded, tmp_path) -> None:
    _, model = made(preset, "pixart")
    other = tiny.build("pixart")
    quant.quantize_(other, quick(preset), trajectories=recorded("pixart"), seed=3)
    one = quant.export(model, tmp_path / "a.safetensors")
    assert quant.export(other, tmp_path / "b.safetensors").read_bytes() == one.read_bytes()


def test_undo_and_refuse(tiny, recorded) -> None:
    model = tiny.build("pixart")
    before = tiny.run(model, "pixart")
    with pytest.raises(quant.MissingDataError, match="got none"):
        quant.quantize_(model, "svdquant-w4a4")
    quant.quantize_(model, quick("svdquant-w4a4"), trajectories=recorded("pixart"))
    with quant.enabled(model, False):
        assert torch.equal(tiny.run(model, "pixart"), before)
    with pytest.raises(quant.InputError, match="already quantized"):
        quant.quantize_(model, "svdquant-w4a4", trajectories=recorded("pixart"))
    quant.restore_(model)
    assert torch.equal(tiny.run(model, "pixart"), before)


def test_failure_halfway_leaves_the_model_unharmed(tiny, recorded) -> None:
    model = tiny.build("pixart")
    before = copy.deepcopy(model.state_dict())

    def interrupt(done: int, total: int, what: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quant.quantize_(model, quick("svdquant-w4a4"), trajectories=recorded("pixart"), progress=interrupt)
    assert not quant_layers(model) and not any(m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_zero_and_constant_weights(value, tiny, recorded) -> None:
    model = tiny.build("pixart")
    trajectories = recorded("pixart")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.constant_(module.weight, value)
    before = tiny.run(model, "pixart")
    config = quick("svdquant-gptq-w4a4-common").model_copy(update={"activation_bits": None})
    ledger = quant.quantize_(model, config, trajectories=trajectories)
    torch.testing.assert_close(tiny.run(model, "pixart"), before, rtol=2e-2, atol=1e-5)
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 40 for record in ledger.layers)


def test_layers_that_share_an_input_share_the_input_side(made) -> None:
    _, model = made("svdquant-w4a4-common", "unet")
    block = model.get_submodule("mid_block.attentions.0.transformer_blocks.0")
    q, k, v = block.attn1.to_q, block.attn1.to_k, block.attn1.to_v
    for other in (k, v):
        assert torch.equal(q.transform.factor, other.transform.factor)
        assert torch.equal(q.branch.down, other.branch.down) and not torch.equal(q.branch.up, other.branch.up)
    cross = block.attn2
    assert torch.equal(cross.to_k.branch.down, cross.to_v.branch.down)
    assert cross.to_q.branch.down.shape != cross.to_k.branch.down.shape  # another input


def test_paper_policy_keeps_what_the_paper_keeps(made, tiny) -> None:
    lines = {line.name: line for line in quant.plan(tiny.build("unet"), "svdquant-w4a4").layers}
    block = "mid_block.attentions.0.transformer_blocks.0"
    for kept in ("conv_in", "mid_block.attentions.0.proj_in", f"{block}.attn2.to_k", "conv_out",
                 "mid_block.resnets.0.time_emb_proj", "down_blocks.0.downsamplers.0.conv"):  # fmt: skip
        assert lines[kept].skipped and lines[kept].reason, kept
    assert lines[f"{block}.attn1.to_q"].bits == "W4A4" and lines["mid_block.resnets.0.conv1"].bits == "W4A4"
    float_convolutions = quant.plan(tiny.build("unet"), SvdQuantConfig(convolutions="float"))
    assert all(line.skipped for line in float_convolutions.layers if line.kind == "Conv2d")


def test_a_rank_above_a_quarter_of_a_layer_is_named_in_the_plan(tiny) -> None:
    def notes(rank: int) -> list[str]:
        planned = quant.plan(tiny.build("pixart"), f"svdquant-w4a4+rank={rank}").layers
        return [line.reason or "" for line in planned if line.bits == "W4A4"]

    assert notes(999) and all("of 999: at most a quarter of the layer's" in note for note in notes(999))
    assert not any("quarter" in note for note in notes(1))


def test_post_gelu_inputs_are_unsigned(made) -> None:
    _, model = made("svdquant-w4a4", "pixart")
    down = model.transformer_blocks[0].ff.net[2]
    assert isinstance(down.transform, Smooth) and down.transform.shift == 0.171875
    assert down.input_quantizer.quantizer.grid.mode == "unsigned"
    assert not torch.equal(down.bias, down.original.bias)
    assert (
        made("svdquant-w4a4", "unet")[1].mid_block.attentions[0].transformer_blocks[0].ff.net[2].bias
        is not None
    )
    _, fp4 = made("svdquant-nvfp4", "pixart")
    assert fp4.transformer_blocks[0].ff.net[2].transform.shift == 0


def test_overrides_reach_single_layers(tiny, recorded) -> None:
    model = tiny.build("unet")
    overrides = {"*attn1.to_out.0": {"rank": 2}, "*.ff.*": "skip", "*attn1.to_q": {"activation_bits": None}}
    quant.quantize_(model, quick("svdquant-w4a4"), trajectories=recorded("unet"), overrides=overrides)
    block = model.mid_block.attentions[0].transformer_blocks[0]
    assert block.attn1.to_out[0].branch.down.shape[0] == 2 and type(block.ff.net[2]) is nn.Linear
    assert block.attn1.to_q.input_quantizer is None and block.attn1.to_k.input_quantizer is not None


def test_other_recordings_are_refused_clearly(tiny, recorded) -> None:
    with pytest.raises(quant.MissingDataError, match="got list"):
        quant.quantize_(tiny.build("unet"), quick("svdquant-w4a4"), trajectories=[1])
    model = tiny.build("unet")
    model.mid_block.attentions[0].proj_in.weight.data[0, 0] = torch.nan
    with pytest.raises(quant.InputError, match="NaN"):
        quant.quantize_(model, quick("svdquant-w4a4"), trajectories=recorded("unet"))
