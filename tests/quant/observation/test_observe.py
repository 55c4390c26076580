"""The pass itself: memory, batches, transforms, what is refused, and the files."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import HeunDiscreteScheduler

import quant
from quant.errors import InputError, MissingDataError
from quant.observation import hadamard, smooth
from tests.quant.recordings.affine import Affine


def live_bytes() -> int:
    seen = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def peak(observe: Callable[[Callable[[int, int, str], None]], object]) -> int:
    """Most bytes of live tensors at any batch, above what was there before."""
    gc.collect()
    base, most = live_bytes(), [0]

    def progress(done: int, total: int, what: str) -> None:
        most[0] = max(most[0], live_bytes() - base)

    observe(progress)
    return most[0]


def test_memory_does_not_grow_with_samples(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    model = planted.build()
    kept: list[torch.Tensor] = []

    def run(samples: int) -> int:
        return peak(
            lambda progress: quant.observe(
                model, store, subset=None, samples=samples, batch_size=4, timesteps=store.timesteps[:2],
                progress=progress,
            )
        )  # fmt: skip

    few, many = run(4), run(12)
    assert 0 < many <= few * 1.02
    # the meter sees somebody who keeps activations
    handle = model.salient.register_forward_pre_hook(lambda m, args: kept.append(args[0].clone()))
    hoarded = run(12)
    handle.remove()
    assert hoarded >= many + 8 * 2 * 16 * 64 * 4


def test_batches_do_not_matter(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    one, all_ = (quant.observe(planted.build(), store, samples=6, batch_size=size) for size in (1, 6))
    for key, stats in one.inputs.items():
        other = all_.inputs[key]
        np.testing.assert_array_equal(stats.histogram, other.histogram)
        for field in ("min", "max", "count", "outliers", "p50"):
            np.testing.assert_array_equal(stats.channel[field], other.channel[field])
        for field in ("mean", "var", "kurtosis"):
            np.testing.assert_allclose(stats.channel[field], other.channel[field], rtol=1e-4, atol=1e-6)


def test_layers_timesteps_and_samples_are_chosen(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    said: list[tuple[int, int]] = []
    found = quant.observe(
        planted.build(), store, layers=("sal*", "by_*"), samples=3, timesteps=store.timesteps[1:3],
        progress=lambda done, total, what: said.append((done, total)),
    )  # fmt: skip
    assert set(found.inputs) == set(found.weights) == {"salient", "by_channel", "by_pixel"}
    assert not found.attention and said[-1] == (6, 6)
    assert found.inputs["salient"].timesteps.tolist() == list(store.timesteps[1:3])
    assert found.inputs["salient"].channel["count"].tolist() == [[48] * 64] * 2
    assert found.settings["trajectories"] == store.hash


def test_layers_that_never_run_are_named(seen: quant.Observation) -> None:
    assert seen.settings["never_ran"] == ["unused"] and "unused" not in seen.inputs


def test_before_and_after_a_transform(
    store: quant.Trajectories, seen: quant.Observation, planted: SimpleNamespace
) -> None:
    model, stats = planted.build(), seen.inputs["salient"]
    transforms = [seen.smoothing("salient"), hadamard(stats), hadamard(stats, seen.weights["salient"])]
    found = quant.observe(model, store, layers="salient", transforms={"sal*": transforms}, samples=4)
    before, smoothed, rotated, both = found.inputs.values()
    assert [s.tensor for s in found.inputs.values()] == [
        "input", "input after smoothing", "input after rotation", "input after smoothing and rotation",
    ]  # fmt: skip
    rows = {row["tensor"]: row for row in found.layer_table()}
    relative = {tensor: row["absmax"] / row["rms"] for tensor, row in rows.items()}
    # a rotation keeps the energy and spreads the two channels over all
    assert rows["input after rotation"]["rms"] == pytest.approx(rows["input"]["rms"], rel=1e-4)
    assert rotated.absmax.max() < 0.5 * before.absmax.max() and len(rotated.salient()) == 0
    assert relative["input after smoothing and rotation"] < relative["input"] / 2
    assert rows["input after smoothing"]["channel_ratio"] < rows["input"]["channel_ratio"] / 5
    assert before.surface.shape == smoothed.surface.shape == both.surface.shape
    # input and weight are changed together: the layer's output stays
    x, weight = torch.randn(5, 64), model.salient.weight.detach()
    for transform in transforms:
        after = transform(x).double() @ transform.to_weight(weight).double().T
        assert torch.allclose(after, x.double() @ weight.double().T, rtol=1e-3, atol=1e-3)
    assert "salient [input after smoothing]" in found.weights


def test_smoothing_needs_a_layer_that_was_seen(seen: quant.Observation) -> None:
    with pytest.raises(InputError, match="nearest name: 'salient'"):
        seen.smoothing("saliant")
    dead = seen.inputs["plain"]
    zero = {**dead.channel, "min": dead.channel["min"] * 0, "max": dead.channel["max"] * 0}
    factors = smooth(type(dead)(**{**vars(dead), "channel": zero}), seen.weights["plain"]).transform.factor
    assert torch.equal(factors, torch.ones(64))


def test_files_say_what_was_seen(seen: quant.Observation, tmp_path: Path) -> None:
    seen.save(tmp_path / "o")
    again = quant.Observation.load(tmp_path / "o")
    assert again.layer_table("kurtosis") == seen.layer_table("kurtosis")
    assert again.step_table() == seen.step_table() and again.attention_table() == seen.attention_table()
    assert again.settings == json.loads(json.dumps(seen.settings))
    for key, stats in seen.inputs.items():
        for name, value in vars(stats).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(again.inputs[key], name))
        np.testing.assert_array_equal(stats.channel["p99"], again.inputs[key].channel["p99"])
    channels = pq.read_table(tmp_path / "o" / "channels.parquet").to_pandas()
    hot = channels[(channels.layer == "salient") & (channels.channel == 5)]
    assert (
        len(hot) == 4
        and hot["max"].min() > 100
        and set(hot.timestep) == set(seen.inputs["salient"].timesteps)
    )
    layers = pq.read_table(tmp_path / "o" / "layers.parquet").to_pandas()
    assert layers.layer.tolist() == list(seen.inputs)
    assert not list((tmp_path / "o").glob(".*.part*"))


def test_a_folder_that_was_written_halfway_holds_no_observation(
    seen: quant.Observation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of the second one lay beside the histograms and the description of the first."""
    seen.save(tmp_path)

    def full(*args: object, **options: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("quant.observation.store.np.savez_compressed", full)
        seen.save(tmp_path)
    with pytest.raises(MissingDataError, match="no observation"):
        quant.Observation.load(tmp_path)
    without = quant.Observation(seen.settings, seen.inputs, seen.weights)
    without.save(tmp_path)
    assert not (tmp_path / "attention.parquet").exists() and not quant.Observation.load(tmp_path).attention


@pytest.mark.parametrize("file", ["histograms.npz", "channels.parquet", "observation.json"])
def test_damaged_files_are_refused(seen: quant.Observation, tmp_path: Path, file: str) -> None:
    seen.save(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:100])
    with pytest.raises(MissingDataError, match="observe again"):
        quant.Observation.load(tmp_path)
    (tmp_path / "observation.json").unlink()
    with pytest.raises(MissingDataError, match="no observation"):
        quant.Observation.load(tmp_path)


def test_bad_input(store: quant.Trajectories, planted: SimpleNamespace, tiny: SimpleNamespace) -> None:
    model = planted.build()
    with pytest.raises(InputError, match=r"'saliant\*' matches none of the .* nearest names: .*salient"):
        quant.observe(model, store, layers="saliant*")
    with pytest.raises(InputError, match="timestep 3 was not recorded; recorded: 1000"):
        quant.observe(model, store, timesteps=[3.0])
    with pytest.raises(InputError, match="no null condition"):
        quant.observe(model, store, null_half=True)
    with pytest.raises(InputError, match=r"recording is of another model"):
        quant.observe(tiny.build("unet"), store, samples=1)
    with pytest.raises(
        InputError, match=r"unknown statistic 'kurtosys' .did you mean 'kurtosis'.*allowed: absmax"
    ):
        quant.observe(model, store, layers="plain", samples=1).layer_table("kurtosys")
    with pytest.raises(MissingDataError, match="none of the 1 layers"):
        quant.observe(model, store, layers="unused", samples=1)
    with torch.no_grad():
        model.plain.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="weight of 'plain' holds NaN"):
        quant.observe(model, store, layers="plain", samples=1)
    broken = planted.build()
    broken.plain.register_forward_pre_hook(lambda m, args: (args[0] / 0,), prepend=True)
    with pytest.raises(InputError, match="input of 'plain' holds NaN or infinity at timestep 1000"):
        quant.observe(broken, store, layers="plain", samples=1)
    assert len(broken.plain._forward_pre_hooks) == 1  # ours are gone after the failure
    quantized = planted.build()
    quant.quantize_(quantized, "rtn-w8a8")
    with pytest.raises(InputError, match="already quantized"):
        quant.observe(quantized, store)


@pytest.mark.gpu
def test_a_gpu_sees_what_the_cpu_sees(tmp_path: Path, tiny: SimpleNamespace) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    model, name = tiny.build("unet"), "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"
    tokens = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
    store = quant.record(model, FlowMatchEulerDiscreteScheduler(), tokens, tmp_path / "r", n_steps=2)
    first = quant.observe(model, store)
    transforms = {name: [first.smoothing(name), hadamard(first.inputs[name], first.weights[name])]}
    here, there = (quant.observe(model, store, transforms=transforms, device=d) for d in ("cpu", "cuda"))
    assert next(model.parameters()).device.type == "cpu" and list(here.inputs) == list(there.inputs)
    for ours, theirs in zip(here.layer_table(), there.layer_table(), strict=True):
        for field in ("absmax", "rms", "weight_absmax"):
            assert ours[field] == pytest.approx(theirs[field], rel=1e-2), (ours["layer"], field)


def test_a_timestep_that_is_sampled_twice_is_seen_twice(tmp_path: Path) -> None:
    """Heun's sampler comes back to each: half of the samples were looked at, and those two times."""
    model, options = Affine(), {"n_steps": 3, "shape": (4, 3, 3)}
    conditions = torch.randn(8, 5, 24, generator=torch.Generator().manual_seed(0))
    store = quant.record(model, HeunDiscreteScheduler(), conditions, tmp_path / "heun", **options)
    found = quant.observe(model, store, layers=("layer", "pooled"), batch_size=3)
    steps, keys = store.timesteps, store.keys("calibrate")
    assert len(keys) == 4 and len(steps) == 5 and len(set(steps)) == 3
    assert found.settings["timesteps"] == found.inputs["layer"].timesteps.tolist() == list(steps)
    assert found.inputs["layer"].channel["max"].max() == float(conditions[keys].max())
    inputs = torch.stack([store.sample(key)["x"] for key in keys], 1).transpose(1, 2)
    np.testing.assert_array_equal(found.inputs["pooled"].channel["max"], inputs.amax((2, 3, 4)).numpy())
