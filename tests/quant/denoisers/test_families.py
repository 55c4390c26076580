"""Every family through plan, quantize, export, load into the bare architecture, and two steps of sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.denoisers.inventory import find_layers
from quant.denoisers.roles import role_of
from quant.denoisers.skips import halves
from quant.layers.attention import find_attention
from quant.recordings.repeat import Sampler
from quant.registry import get_method, get_preset

NAMES = ("unet", "unconditional", "dit", "pixart", "sd3", "flux", "wan", "cogvideox")
PRESETS = quant.list_presets()
CALIBRATED = [p for p in PRESETS if get_method(get_preset(p).method).info.needs_calibration]
CHEAP = [p for p in PRESETS if p not in CALIBRATED]
# one preset stands for its method here, on recordings of two steps; tests/quant/methods has them all
PLAIN = [p for p in CALIBRATED if not p.endswith("-branch")]
FIRST = [next(p for p in PLAIN if get_preset(p).method == m) for m in
         dict.fromkeys(get_preset(p).method for p in CALIBRATED)]  # fmt: skip
# every preset meets two families, and every family a third of the presets
COMBINATIONS = [
    (NAMES[(place + step) % len(NAMES)], preset)
    for place, preset in enumerate((*CHEAP, *FIRST))
    for step in (0, len(NAMES) // 2)
]
SHORT = {
    "iterations": 2, "samples": 2, "points": 6, "calibration_points": 6, "batch_size": 2, "steps": 2,
    "rows": 32, "smooth_points": 3, "feature_samples": 2, "clips": 8, "values": 512,
    "train_steps": 2, "train_rows": 2, "calibration_rows": 4, "held_out_rows": 0, "probe_rows": 1,
}  # fmt: skip


def recipe(preset: str) -> Any:
    """Make the preset's config, with little work where it searches or trains."""
    _, method, config = quant.recipes.resolve(preset)
    return config.model_copy(update={k: v for k, v in SHORT.items() if k in method.config.model_fields})


@pytest.mark.parametrize(("name", "preset"), COMBINATIONS, ids=[f"{n}-{p}" for n, p in COMBINATIONS])
def test_the_whole_way(name: str, preset: str, family, store, tmp_path: Path) -> None:
    model = family.build(name)
    layers = [layer.name for layer in find_layers(model)]
    trajectories = store(name) if preset in FIRST else None
    planned = quant.plan(model, recipe(preset), trajectories=trajectories)
    assert [line.name for line in planned.layers] == layers and planned.quantized
    assert all(line.reason for line in planned.layers if line.skipped)
    assert "counted over one forward" in planned.mac_rule

    sampler = Sampler(store(name), FlowMatchEulerDiscreteScheduler())
    before = sampler.run(model, [0, 1])[1]
    ledger = quant.quantize_(model, recipe(preset), trajectories=trajectories)
    assert [record.as_plan() for record in ledger.layers] == planned.layers
    after = sampler.run(model, [0, 1])[1]
    assert after.shape == before.shape and bool(torch.isfinite(after).all())
    assert not torch.equal(after, before)

    file = quant.export(model, tmp_path / "model.safetensors")
    with torch.device("meta"):
        bare = family.build(name)
    loaded = quant.load(file, bare)
    assert torch.equal(sampler.run(bare, [0, 1])[1], after)
    assert loaded.bytes_file == file.stat().st_size and loaded.bytes_other_before is None


@pytest.mark.parametrize("name", NAMES)
def test_kinds_of_layers_and_attention_are_covered(name: str, family, store) -> None:
    """What the issue lists: linears, convolutions of every shape, scores and values, skip concatenations."""
    model = family.build(name)
    modules = dict(model.named_modules())
    attention = find_attention(model)
    ledger = quant.quantize_(model, recipe("dgq-w4a8"), trajectories=store(name))
    assert attention and set(ledger.attention) == set(attention)
    assert all(f.scores is not None and f.values is not None for f in ledger.attention.values())
    done = {record.name: modules[record.name] for record in ledger.quantized}
    assert any(isinstance(m, nn.Linear) for m in done.values())
    if name in ("unet", "unconditional"):
        convolutions = [m for m in done.values() if isinstance(m, nn.Conv2d)]
        shapes = {(m.kernel_size[0], m.stride[0]) for m in convolutions}
        assert shapes >= {(3, 1), (3, 2), (1, 1)}
        quant.restore_(model)
        mixed = quant.quantize_(model, recipe("mixdq-w8a8"), trajectories=store(name))
        inputs = {record.name: record.activation for record in mixed.quantized if record.activation}
        split = [n for n, quantizer in inputs.items() if quantizer.granularity.kind == "input_channel"]
        assert split and all(name.endswith("conv_shortcut") for name in split)


def test_timesteps_of_flux_are_the_schedulers(family, store) -> None:
    """Tables by timestep hold scheduler values although the model is called with a thousandth of them."""
    model = family.build("flux")
    quant.quantize_(model, recipe("dgq-w4a8"), trajectories=store("flux"))
    layer = next(
        m for m in quant.layers.install.quant_layers(model).values() if m.input_quantizer is not None
    )
    assert layer.input_quantizer.timesteps.tolist() == sorted(store("flux").timesteps)
    assert max(store("flux").timesteps) == 1000


ROLES = {
    "first": "conv_in pos_embed.proj x_embedder patch_embedding patch_embed.proj",
    "last": "conv_out proj_out proj_out_1 proj_out_2 norm_out.linear",
    "time": "time_embedding.linear_1 add_embedding.linear_2 a.timestep_embedder.linear_1 "
    "time_text_embed.text_embedder.linear_1 condition_embedder.time_embedder.linear_2",
    "modulation": "a.0.time_emb_proj adaln_single.linear b.norm1.linear b.norm1_context.linear "
    "single_transformer_blocks.0.norm.linear condition_embedder.time_proj",
    "condition": "caption_projection.linear_1 context_embedder encoder_hid_proj patch_embed.text_proj "
    "condition_embedder.text_embedder.linear_1",
    "body": "mid_block.attentions.0.proj_in mid_block.attentions.0.proj_out up_blocks.0.upsamplers.0.conv "
    "single_transformer_blocks.0.proj_out transformer_blocks.0.attn1.to_q",
}


def test_roles_by_name() -> None:
    for role, names in ROLES.items():
        assert {name: role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_ranges_of_the_halves_of_a_skip_concatenation() -> None:
    low, high = -torch.arange(1.0, 6.0).reshape(1, 5, 1, 1), torch.arange(5.0).flip(0).reshape(1, 5, 1, 1)
    before = low.clone(), high.clone()
    found = [[side.flatten().tolist() for side in halves(low, high, split)] for split in (2, None)]
    assert found[0] == [[-2.0, -2.0, -5.0, -5.0, -5.0], [4.0, 4.0, 2.0, 2.0, 2.0]]
    assert found[1] == [[-5.0] * 5, [4.0] * 5]
    assert torch.equal(low, before[0]) and torch.equal(high, before[1])
