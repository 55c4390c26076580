from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

import quant
from quant.recordings.repeat import Sampler
from quant.recordings.sampling import settings_of
from quant.sensitivity.by_layer import ALL, Sensitivity, layer_sensitivity
from quant.sensitivity.probes import (
    FinalSample,
    NoisePrediction,
    decibel,
    error_growth,
    noise_ratio,
    similarity,
)

NULL = torch.zeros(5, 24)
BITS = {"w8": {"weight_bits": 8}, "w4": {"weight_bits": 4}}
FEW = ["mid_block.resnets.0.*"]


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(6, 5, 24, generator=torch.Generator().manual_seed(0))
    return quant.record(
        tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), conditions,
        tmp_path_factory.mktemp("store"), n_steps=3, guidance=2.0, null_condition=NULL,
    )  # fmt: skip


def test_one_on_equals_a_model_with_one_layer_quantized(tiny, store) -> None:
    model = tiny.build("unet")
    name, probe = "mid_block.resnets.0.conv1", NoisePrediction(store, 2, 2)
    table = layer_sensitivity(model, "rtn-w8a8", store, settings=BITS, probes=[probe], include=iter(FEW))
    assert {row.setting for row in table.rows} == set(BITS) and len(table.rows) % len(BITS) == 0
    reference = probe.run(model)
    quant.quantize_(model, quant.get_method("rtn").config(weight_bits=4), include=[name])
    expected = noise_ratio(reference, probe.run(model))
    row = next(r for r in table.rows if (r.layer, r.setting) == (name, "w4"))
    assert row.metrics["nmse"] == pytest.approx(expected, rel=1e-6) and expected > 0
    assert list(row.by_timestep) == ["1000", f"{store.timesteps[-1]:g}"]
    assert row.kind == "Conv2d"


def test_rows_are_every_layer_setting_and_side_once(tiny, store) -> None:
    model = tiny.build("unet")
    before = tiny.run(model, "unet")
    table = layer_sensitivity(
        model, "rtn-w8a8", store, settings=BITS, sides=("both", "weight", "activation"), include=FEW
    )
    names = {line.name for line in quant.plan(model, "rtn-w8a8", include=FEW).quantized} | {ALL}
    keys = [(r.layer, r.setting, r.side) for r in table.rows]
    assert len(keys) == len(set(keys)) == len(names) * 2 * 3
    assert torch.equal(tiny.run(model, "unet"), before)
    conv = "mid_block.resnets.0.conv1"
    # inputs have 8 bits in both settings, weights do not
    assert table.of("w4", "activation")[conv] == table.of("w8", "activation")[conv]
    assert table.of("w4", "weight")[conv] < table.of("w8", "weight")[conv] - 10
    # a weight-only layer has no input error
    assert table.of("w4", "activation")["mid_block.resnets.0.time_emb_proj"] == decibel(0)


def test_one_off_gains_from_the_worst_layer(tiny, store) -> None:
    options = {"settings": {"w3": {"weight_bits": 3, "activation_bits": None}}, "include": FEW}
    off = layer_sensitivity(tiny.build("unet"), "rtn-w8a8", store, mode="one-off", **options)
    everything = next(r for r in off.rows if r.layer == ALL).metrics["nmse"]
    assert min(r.metrics["nmse"] for r in off.rows if r.layer != ALL) < everything


def test_sorted_worst_first(tiny, store) -> None:
    table = layer_sensitivity(tiny.build("unet"), "rtn-w8a8", store, settings=BITS, include=FEW)
    values = [row.metrics["sqnr_db"] for row in table.sorted("sqnr_db")]
    assert values == sorted(values) and len(set(values)) > 3
    errors = [row.metrics["nmse"] for row in table.sorted("nmse")]
    assert errors == sorted(errors, reverse=True)
    assert table.table(count=3).count("\n") == 3
    with pytest.raises(quant.InputError, match="no metric 'fid'"):
        table.sorted("fid")


def test_it_goes_on_where_it_stopped(tiny, store, tmp_path) -> None:
    path, whole = tmp_path / "s.json", tmp_path / "whole.json"
    options = {"settings": BITS, "include": FEW}
    model = tiny.build("unet")

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layer_sensitivity(model, "rtn-w8a8", store, path=path, progress=interrupt, **options)
    assert len(Sensitivity.load(path).rows) == 3
    assert not quant.layers.install.quant_layers(model)
    first_rows = json.loads(path.read_text())["rows"]
    calls = []
    layer_sensitivity(
        model, "rtn-w8a8", store, path=path, progress=lambda d, t, w: calls.append((d, t)), **options
    )
    layer_sensitivity(model, "rtn-w8a8", store, path=whole, **options)
    assert path.read_bytes() == whole.read_bytes()
    assert json.loads(path.read_text())["rows"][:3] == first_rows
    assert calls[0][0] == 4 and calls[-1][0] == calls[-1][1]
    again = []
    layer_sensitivity(model, "rtn-w8a8", store, path=path, progress=lambda *a: again.append(a), **options)
    assert again == []
    with pytest.raises(quant.InputError, match="another settings"):
        layer_sensitivity(
            model, "rtn-w8a8", store, path=path, settings={"w5": {"weight_bits": 5}}, include=FEW
        )
    path.write_text("{}")
    with pytest.raises(quant.InputError, match="not a sensitivity table"):
        layer_sensitivity(model, "rtn-w8a8", store, path=path, **options)


def test_error_growth_along_the_trajectory(tiny, store) -> None:
    model, sampler = tiny.build("unet"), Sampler(store, FlowMatchEulerDiscreteScheduler(), NULL)
    key = store.keys("evaluate")[0]
    inputs, final = sampler.run(model, [key])
    torch.testing.assert_close(torch.cat(inputs), store.sample(key)["x"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final[0], store.sample(key)["final"], rtol=1e-4, atol=1e-5)
    quant.quantize_(model, "rtn-w4a8")
    rows = error_growth(model, sampler, samples=1)
    assert [r["timestep"] for r in rows] == [*store.timesteps, 0.0]
    assert rows[0]["accumulated_nmse"] == 0 and "local_nmse" not in rows[-1]
    assert all(b["accumulated_nmse"] > a["accumulated_nmse"] for a, b in pairwise(rows))
    assert all(r["local_nmse"] > 0 for r in rows[:-1])
    with quant.enabled(model, False):
        assert error_growth(model, sampler, samples=1)[0]["local_nmse"] == 0


def test_sampler_insists_on_the_recordings_settings(store) -> None:
    with pytest.raises(quant.InputError, match="used FlowMatchEulerDiscreteScheduler, got DDIMScheduler"):
        Sampler(store, DDIMScheduler())
    with pytest.raises(quant.InputError, match=r"Scheduler with shift = 1\.0, got 3\.0: pass the scheduler"):
        Sampler(store, FlowMatchEulerDiscreteScheduler(shift=3.0), NULL)
    assert settings_of(DDIMScheduler(trained_betas=[0.1, 0.2]))["trained_betas"] == [0.1, 0.2]
    with pytest.raises(quant.InputError, match="null_condition"):
        Sampler(store, FlowMatchEulerDiscreteScheduler(), NULL + 1)


def test_final_sample_probe(tiny, store) -> None:
    model = tiny.build("unet")
    probe = FinalSample(Sampler(store, FlowMatchEulerDiscreteScheduler(), NULL), 2, 2)
    table = layer_sensitivity(
        model, "rtn-w8a8", store, settings=BITS, probes=[NoisePrediction(store), probe], include=FEW
    )
    everything = {r.setting: r.metrics for r in table.rows if r.layer == ALL}
    assert 1 >= everything["w8"]["ssim"] > everything["w4"]["ssim"]
    assert everything["w8"]["final_sqnr_db"] > everything["w4"]["final_sqnr_db"]


def test_predictions_are_at_their_own_points(tiny, store) -> None:
    model, probe = tiny.build("unet"), NoisePrediction(store, 2, 2)
    assert probe.steps == [0, 2]
    rows = [store.sample(key) for key in store.keys("calibrate")[:2]]
    conditions = torch.stack([r["condition"] for r in rows])
    for found, step in zip(probe.run(model), probe.steps, strict=True):
        x = torch.stack([r["x"][step] for r in rows])
        with torch.no_grad():
            expected = model(x, store.timesteps[step], encoder_hidden_states=conditions).sample
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_similarity_by_hand() -> None:
    a = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert similarity(a, a) == pytest.approx(1.0)
    b = 0.7 * a + 0.2 * a.flip(0) + 0.1
    size = float(a.max() - a.min())  # Wang et al.'s three factors, with C3 = C2 / 2
    c1, c2, parts = (0.01 * size) ** 2, (0.03 * size) ** 2, []
    for x, y in zip(a.double().reshape(6, 64).numpy(), b.double().reshape(6, 64).numpy(), strict=True):
        light = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        contrast = (2 * x.std() * y.std() + c2) / (x.std() ** 2 + y.std() ** 2 + c2)
        structure = (((x - x.mean()) * (y - y.mean())).mean() + c2 / 2) / (x.std() * y.std() + c2 / 2)
        parts.append(light * contrast * structure)
    assert similarity(a, b) == pytest.approx(sum(parts) / 6, rel=1e-9)
    a = a - a.mean((2, 3), keepdim=True)
    assert similarity(a, -a) < -0.9 and 0.9 < similarity(a, a + 0.05 * a.flip(0)) < 1
    assert (decibel(0.01), decibel(0), decibel(float("inf"))) == (20.0, 200.0, -200.0)
