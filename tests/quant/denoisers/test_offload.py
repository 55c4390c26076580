"""A model lent to a device layer by layer: only the layer at work is there, and everything comes back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quant
from quant.denoisers.offload import streamed, to_device
from quant.layers.encoded import LayerResult
from quant.methods.svdquant import SvdQuantConfig


def test_only_the_layer_at_work_is_on_the_device(tiny) -> None:
    model = tiny.build("pixart")
    before = {name: t for name, t in model.state_dict().items()}
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    there: list[int] = []
    # "meta" stands for another device: arithmetic between it and the CPU is an error
    with streamed(model, "meta"):
        for layer in layers:
            layer.register_forward_pre_hook(lambda m, a: there.append(sum(x.weight.is_meta for x in layers)))
        args, kwargs = tiny.inputs("pixart")
        moved = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
        out = model(args[0].to("meta"), **moved)
    assert out.sample.is_meta and len(there) > 20
    assert max(there) <= 2  # the first layer stays, so that callers know where inputs go
    assert all(torch.equal(t, before[name]) and not t.is_meta for name, t in model.state_dict().items())


def test_an_error_brings_everything_back(tiny) -> None:
    model = tiny.build("pixart")
    with pytest.raises(RuntimeError), streamed(model, "meta"):
        tiny.run(model, "pixart")  # inputs on the CPU
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.isfinite(tiny.run(model, "pixart")).all()


def test_streamed_quantizing_gives_the_same_model(tiny, recorded) -> None:
    recipe = SvdQuantConfig(rank=8, smooth_points=4, iterations=3, rows=64)
    plain, lent = tiny.build("unet"), tiny.build("unet")
    store = recorded("unet")
    quant.quantize_(plain, recipe, trajectories=store)
    with streamed(lent, "cpu"):
        quant.quantize_(lent, recipe, trajectories=store)
    assert torch.equal(tiny.run(plain, "unet"), tiny.run(lent, "unet"))


def test_results_are_moved_whole(tiny, recorded) -> None:
    model, seen = tiny.build("unet"), []
    quant.quantize_(model, SvdQuantConfig(rank=8, smooth="none", iterations=1), trajectories=recorded("unet"))
    for layer in model.modules():
        if hasattr(layer, "encoded"):
            result = LayerResult(layer.encoded(), transform=layer.transform, branch=layer.branch)
            seen.append(to_device(result, "meta"))
    assert seen and all(r.weight.packed.is_meta for r in seen)
    assert all(p.is_meta for r in seen if r.branch is not None for p in r.branch.buffers())
