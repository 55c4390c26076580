"""Sensitivity where attention is rounded too: rows of their own, and none of it in a layer's row."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.layers.attention import attention_watchers
from quant.methods.dgq import DgqConfig
from quant.sensitivity.by_layer import ALL, Sensitivity, layer_sensitivity
from quant.sensitivity.probes import NoisePrediction

FEW = ["mid_block.attentions.0.transformer_blocks.0.attn1.*", "mid_block.resnets.0.conv1"]
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
CONFIG = DgqConfig(weight_bits=8, activation_bits=8, groups=2, samples=2, attention_bits=4)


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("store")
    return quant.record(tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), conditions, folder, n_steps=2)


def table(tiny, store, config: DgqConfig, **options) -> Sensitivity:
    probes = [NoisePrediction(store, 2, 2)]
    return layer_sensitivity(tiny.build("unet"), config, store, probes=probes, include=FEW, **options)


def close(metrics: dict[str, float]):
    """Calibration that watches attention computes it by its formula: the last bits of ranges differ."""
    return pytest.approx(metrics, rel=1e-3)


def test_layers_are_measured_with_attention_in_full_precision(tiny, store) -> None:
    rounded = table(tiny, store, CONFIG, sides=("both", "weight", "activation"))
    plain = table(
        tiny, store, CONFIG.model_copy(update={"attention": "none"}), sides=("both", "weight", "activation")
    )
    known = {(r.layer, r.side): r.metrics for r in plain.rows}
    found = {(r.layer, r.side): r for r in rounded.rows}
    for (layer, side), row in found.items():
        if row.kind in ("Linear", "Conv2d"):
            assert row.metrics == close(known[layer, side])
    # the module alone has a row of its own, and the row of everything has it in
    alone = found[ATTENTION, "both"]
    assert alone.kind == "Attention" and alone.metrics["nmse"] > 0.1 * known[ALL, "both"]["nmse"]
    assert found[ALL, "both"].metrics["nmse"] > known[ALL, "both"]["nmse"]
    assert found[ALL, "weight"].metrics == close(known[ALL, "weight"]) and (ATTENTION, "weight") not in found
    assert found[ATTENTION, "activation"].metrics == alone.metrics


def test_one_off_switches_attention_too(tiny, store) -> None:
    off = table(tiny, store, CONFIG, mode="one-off")
    without = next(r for r in off.rows if r.layer == ATTENTION)
    plain = table(tiny, store, CONFIG.model_copy(update={"attention": "none"}))
    assert without.metrics == close(next(r for r in plain.rows if r.layer == ALL).metrics)


def test_it_goes_on_and_leaves_nothing_behind(tiny, store, tmp_path) -> None:
    paths = tmp_path / "whole.json", tmp_path / "parts.json"
    calls: list[tuple[int, int]] = []
    table(tiny, store, CONFIG, path=paths[0], progress=lambda d, t, w: calls.append((d, t)))
    assert calls[-1] == (7, 7) and {total for _, total in calls} == {7}

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table(tiny, store, CONFIG, path=paths[1], progress=interrupt)
    table(tiny, store, CONFIG, path=paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_switches_are_put_back(tiny, store) -> None:
    from quant.layers.install import quant_layers
    from quant.sensitivity.by_layer import _only, _Parts

    model = tiny.build("unet")
    quant.quantize_(model, CONFIG, trajectories=store, include=FEW)
    parts = _Parts(quant_layers(model), attention_watchers(model))
    with _only(parts, {ATTENTION}, "both"):
        assert parts.attention[ATTENTION].active and not any(x.active for x in parts.layers.values())
    with _only(parts, set(parts.layers), "both"):
        assert not parts.attention[ATTENTION].active
    assert all(part.active for part in (*parts.layers.values(), *parts.attention.values()))
