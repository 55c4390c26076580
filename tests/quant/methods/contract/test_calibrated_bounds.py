"""The contract's bounds for methods that calibrate: bits, odd sizes, memory, and configs that travel."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

import quant
from quant.recipes import resolve
from quant.registry import get_method, get_preset, validate

METHODS = [name for name in quant.list_methods() if get_method(name).info.needs_calibration]
PRESETS = [p for p in quant.list_presets() if get_preset(p).method in METHODS]

SHORT = {
    "iterations": 2,
    "samples": 4,
    "points": 8,
    "batch_size": 2,
    "rows": 64,
    "smooth_points": 4,
    "train_steps": 3,
    "train_rows": 2,
    "calibration_rows": 6,
    "held_out_rows": 2,
    "look_every": 2,
    "probe_rows": 1,
}
"""Little work where a method trains or searches."""
RISING: dict[str, list[dict[str, Any]]] = {
    "svdquant": [{"numbers": "int4"}, {"numbers": "int8"}],
    "binarydm": [{"bases": n, "outer": 0.0, "train_steps": 0} for n in (1, 2, 4)],
}
"""Settings with ever more bits, where they are not `weight_bits`."""
SOME = ["mid_block.*", "up_blocks.0.resnets.0.*"]
"""Convolutions, a shortcut, time, attention and feed-forward layers: one block of each."""
FEW = ["mid_block.resnets.0.*", "mid_block.attentions.*.attn2.*"]


def config_of(name: str, **settings: Any) -> Any:
    config = get_method(name).config
    short = {key: value for key, value in SHORT.items() if key in config.model_fields}
    return config(**{**short, **settings})


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset: str) -> None:
    _, method, config = resolve(preset)
    assert validate(method, json.loads(config.model_dump_json())) == config
    for name, field in method.config.model_fields.items():
        assert field.description, f"{name} has no help text"
    with pytest.raises(quant.InputError, match="nonsense"):
        validate(method, {"nonsense": 1})


@pytest.mark.parametrize("name", METHODS)
def test_more_bits_are_never_worse(name: str, tiny, recorded) -> None:
    """Weight error falls with the bits, in every layer."""
    if name not in RISING:
        assert "weight_bits" in get_method(name).config.model_fields, "add the method to RISING"
    settings = RISING.get(name, [{"weight_bits": bits} for bits in (3, 4, 6, 8)])
    brief = {"train_steps": 1, "held_out_rows": 0} if get_method(name).info.trains else {}
    previous: dict[str, float] = {}
    for setting in settings:
        try:
            config = config_of(name, **{**brief, **setting})
        except ValueError:  # floats of three and six bits exist in some formats only
            continue
        ledger = quant.quantize_(tiny.build("level"), config, trajectories=recorded("level"), include=SOME)
        found = {
            r.name: r.weight_sqnr_db for r in ledger.layers if not r.skipped and r.activation is not None
        }
        assert len(found) > 12
        for layer, now in found.items():
            assert now is not None and now >= previous.get(layer, -99.0) - 0.01, (setting, layer)
        assert not previous or sum(found.values()) > sum(previous[x] for x in found) + len(found)
        previous = found
    assert previous


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """An unconditional U-Net of one input channel whose widths no group divides, and its recording."""

    def build(seed: int = 0) -> UNet2DModel:
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(36,),
            norm_num_groups=4, attention_head_dim=4, down_block_types=("AttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
        ).eval()  # fmt: skip

    store = quant.record(
        build(), FlowMatchEulerDiscreteScheduler(), None, tmp_path_factory.mktemp("odd"), n_samples=6,
        n_steps=3, batch_size=6,
    )  # fmt: skip
    return build, store


@pytest.mark.parametrize("name", METHODS)
def test_odd_sizes(name: str, odd, tmp_path) -> None:
    """Plan is what is done, a loaded model equals it, and an image does not depend on its neighbours."""
    build, store = odd
    model = build()
    config = config_of(name)
    plan = quant.plan(model, config, trajectories=store)
    ledger = quant.quantize_(model, config, trajectories=store)
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    time = torch.full((3,), float(store.timesteps[1]))
    with torch.no_grad():
        out = model(x, time).sample
        bare = build(seed=9)
        quant.load(quant.export(model, tmp_path / "m.safetensors"), bare)
        assert torch.equal(bare(x, time).sample, out)
        loud = x.clone()
        loud[1:] *= 30
        torch.testing.assert_close(model(loud, time).sample[0], out[0], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def short_and_long(tiny, tmp_path_factory):
    """Recordings of 12 and of 48 samples."""
    folder = tmp_path_factory.mktemp("lengths")
    return [
        quant.record(
            tiny.build("level"), FlowMatchEulerDiscreteScheduler(),
            torch.randn(samples, 7, 24, generator=torch.Generator().manual_seed(0)), folder / str(samples),
            n_steps=3, batch_size=12,
        ).path
        for samples in (12, 48)
    ]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_memory_does_not_grow_with_the_recording(name: str, tiny, short_and_long, peak_bytes) -> None:
    """Four times the samples take the same memory: statistics stream, and what is kept is bounded."""
    peaks = []
    for path in short_and_long:
        model, store = tiny.build("level"), quant.Trajectories.open(path)
        peaks.append(
            peak_bytes(lambda model=model, store=store: quant.quantize_(
                model, config_of(name), trajectories=store, include=FEW
            ))
        )  # fmt: skip
    recorded = 36 * 3 * (4 * 8 * 8 + 7 * 24) * 4  # what the further samples hold
    assert peaks[1] < peaks[0] + 0.25 * recorded
