"""Rows of layer inputs: what a layer really saw, siblings alike, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.denoisers.inventory import find_layers
from quant.recordings.rows import (
    calibration_keys,
    im2col,
    layer_rows,
    row_length,
    run_batch,
    sample_batches,
    spread_batches,
    watch,
)
from tests.quant.recordings.affine import Affine


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(6, 5, 24, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("rows")
    return quant.record(
        tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), conditions, path, n_steps=4, batch_size=3
    )


def test_rows_are_inputs_and_siblings_agree(store, tiny) -> None:
    model = tiny.build("unet")
    batches = spread_batches(store, samples=2, steps=2)
    assert [float(b.timestep[0]) for b in batches] == [store.timesteps[0], store.timesteps[-1]]
    block = "mid_block.attentions.0.transformer_blocks.0"
    names = [f"{block}.attn1.to_q", f"{block}.attn1.to_k", f"{block}.attn2.to_k", "mid_block.resnets.0.conv1"]
    seen = {}
    handles = [
        model.get_submodule(n).register_forward_pre_hook(
            lambda m, a, n=n: seen.setdefault(n, []).append(a[0])
        )
        for n in names
    ]
    for batch in batches:
        run_batch(model, batch)
    for handle in handles:
        handle.remove()
    found = dict(layer_rows(model, names, batches, lambda name, width: 12, budget=1))
    assert list(found) == names
    assert torch.equal(found[names[0]].rows, found[names[1]].rows)
    for name in names[:3]:
        everything = torch.cat([x.flatten(0, -2) for x in seen[name]])
        rows = found[name].rows
        assert rows.shape == (12, everything.shape[1])
        assert bool((rows[:, None] == everything[None]).all(-1).any(1).all())
        assert torch.equal(found[name].high, everything.amax(0))
    conv = model.get_submodule(names[3])
    assert found[names[3]].rows.shape[1] == conv.weight[0].numel()
    assert torch.equal(found[names[3]].low, torch.cat(seen[names[3]]).amin((0, 2, 3)))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_calibration_sees_each_timestep_apart_under_both_conditions(tmp_path) -> None:
    """In sampling order, the null condition's twin right behind; a layer's inputs with their timesteps."""
    conditions = torch.randn(8, 5, 24, generator=torch.Generator().manual_seed(0))
    null, model = torch.full((5, 24), 0.25), Affine()
    options = {"n_steps": 5, "shape": (4, 3, 3), "guidance": 3.0, "null_condition": null}
    store = quant.record(model, FlowMatchEulerDiscreteScheduler(), conditions, tmp_path / "a", **options)
    keys = store.keys("calibrate")
    assert len(keys) == 4 and keys == calibration_keys(store) and calibration_keys(store, 3) == keys[:3]
    wanted = [
        (some, step, half) for some in (keys[:3], keys[3:]) for step in (1, 4) for half in ("held", "free")
    ]
    found = list(sample_batches(store, keys, [1, 4], size=3))
    for batch, (some, step, half) in zip(found, wanted, strict=True):
        assert batch.key.tolist() == some and batch.timestep.tolist() == [store.timesteps[step]] * len(some)
        assert torch.equal(batch.x, torch.stack([store.sample(key)["x"][step] for key in some]))
        other = null.expand(len(some), 5, 24)
        assert torch.equal(batch.condition, conditions[some] if half == "held" else other)
    for count, steps in ((1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])):
        times = [float(batch.timestep[0]) for batch in spread_batches(store, 2, count)]
        assert times == [store.timesteps[step] for step in steps for _ in range(2)]
    seen, told = [], []
    watch(
        model,
        store,
        ["layer"],
        lambda name, x, t: seen.append((name, x, t)),
        samples=3,
        batch_size=2,
        done=2,
        progress=lambda *where: told.append(where),
    )
    assert told == [(3, 3, "calibrating")] and not model.layer._forward_pre_hooks
    times = [t for t in store.timesteps for _ in range(2)]
    assert [(name, t) for name, _, t in seen] == [("layer", t) for t in times]
    assert torch.equal(seen[0][1][0], conditions[keys[2]]) and torch.equal(seen[1][1][0], null)
    assert (row_length(model.layer), row_length(model.pooled)) == (24, 12)
    few = quant.record(model, FlowMatchEulerDiscreteScheduler(), conditions[:1], tmp_path / "b", **options)
    empty = next(name for name in ("calibrate", "distill", "evaluate") if not few.keys(name))
    with pytest.raises(quant.MissingDataError, match=f"has 1 samples and none in '{empty}': record more"):
        calibration_keys(few, subset=empty)


def test_im2col_is_the_convolution() -> None:
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=1)
    x = torch.randn(2, 3, 9, 9)
    out = conv.weight.flatten(1) @ im2col(conv, x)
    torch.testing.assert_close(out.unflatten(2, (5, 5)) + conv.bias[:, None, None], conv(x))


def test_missing_data_is_said_clearly(store, tiny) -> None:
    with pytest.raises(quant.MissingDataError, match="got str"):
        spread_batches("folder", 1, 1)
    model = tiny.build("unet")
    model.unused = nn.Linear(4, 4)
    with pytest.raises(quant.MissingDataError, match="'unused' never ran"):
        list(layer_rows(model, ["unused"], spread_batches(store, 1, 1), lambda name, width: 4))


def test_layers_after_gelu_are_known(tiny) -> None:
    after = {layer.name for layer in find_layers(tiny.build("pixart")) if layer.after_gelu}
    assert after == {f"transformer_blocks.{i}.ff.net.2" for i in (0, 1)}
    assert not any(layer.after_gelu for layer in find_layers(tiny.build("unet")))  # GEGLU is signed
    plain = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 4))
    assert [layer.after_gelu for layer in find_layers(plain)] == [False, True]


@pytest.mark.parametrize("recipe", ["svdquant-nvfp4-naive", "lrq-dit-w4a4", "mixdq-w8a8"])
def test_a_model_that_overflows_is_not_calibrated(recipe: str, store, tiny) -> None:
    """Scales of infinity were stored without a word, and the quantized model gave no number."""
    model = tiny.build("unet")
    with torch.no_grad():
        for name in ("conv1", "conv2"):  # finite weights, and infinity in float16
            model.get_submodule(f"mid_block.resnets.0.{name}").weight.mul_(3e5)
    with pytest.raises(quant.InputError, match=r"timestep .* infinite in float16: .*in bfloat16 or float32"):
        quant.quantize_(model.half(), recipe, trajectories=store, include=["mid_block.*"])
