"""The contract test's checks for presets that calibrate, which it cannot run without a recording."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.denoisers.inventory import find_layers
from quant.layers.install import quant_layers
from quant.layers.native.ways import survey
from quant.registry import get_method, get_preset

CALIBRATED = [p for p in quant.list_presets() if get_method(get_preset(p).method).info.needs_calibration]
TRAINED = {"efficientdm-w4a4", "quest-w4a4", "binarydm-w1a4", "qvgen-w3a3"}


def stands_alone(preset: str) -> bool:
    """Whether a preset runs code of its own.

    An ablation changes one setting of a recipe that is here, the common policy chooses other layers, and a
    method that trains does the same at every number of bits: for those plan and config are enough.
    """
    if preset.endswith(("-common", "-nearest")) or get_preset(preset).title.startswith("ablation:"):
        return False
    return preset in TRAINED or get_preset(preset).method not in {get_preset(p).method for p in TRAINED}


PRESETS = [p for p in CALIBRATED if stands_alone(p)]
FIRST = [p for p in PRESETS if p == next(q for q in PRESETS if get_preset(q).method == get_preset(p).method)]
"""One preset of each method, for what does not depend on formats."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCK = ["mid_block.*", "up_blocks.0.resnets.0.*"]
"""A layer of each kind: whole models of every family are in tests/quant/denoisers/test_families.py."""


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
    return quant.record(
        tiny.build("level"),
        FlowMatchEulerDiscreteScheduler(),
        conditions,
        tmp_path_factory.mktemp("s"),
        n_steps=3,
    )


def recipe(preset: str):
    """Return the preset's config, with little work where it trains."""
    _, method, config = quant.recipes.resolve(preset)
    short = {
        "iterations": 2,
        "samples": 4,
        "points": 12,
        "calibration_points": 12,
        "batch_size": 2,
        "rows": 64,
        "clips": 8,
        "values": 512,
        "feature_samples": 4,
        "smooth_points": 4,
        "train_steps": 3,
        "train_rows": 2,
        "calibration_rows": 6,
        "held_out_rows": 2,
        "look_every": 2,
        "probe_rows": 1,
    }
    return config.model_copy(update={k: v for k, v in short.items() if k in method.config.model_fields})


@pytest.fixture(scope="module", params=PRESETS)
def done(request: pytest.FixtureRequest, tiny, store):
    """A model, its plan, its ledger and its outputs before and after, made once a preset."""
    model = tiny.build("level")
    before, weights = tiny.run(model, "level"), copy.deepcopy(model.state_dict())
    plan = quant.plan(model, recipe(request.param), trajectories=store, include=BLOCK)
    ledger = quant.quantize_(model, recipe(request.param), trajectories=store, seed=3, include=BLOCK)
    return model, plan, ledger, before, weights


def test_plan_is_what_is_done(done) -> None:
    model, plan, ledger, _, _ = done
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    assert ledger.bytes_after == plan.bytes_after
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    assert ledger.trajectories
    names = [record.name for record in ledger.layers]
    assert len(set(names)) == len(names) > 20
    for record in ledger.layers:
        assert record.skipped == (type(model.get_submodule(record.name)) in (nn.Linear, nn.Conv2d))
        assert record.reason if record.skipped else record.bytes_by["codes"] > 0


@pytest.mark.gpu
def test_what_has_a_kernel_gives_what_is_simulated(done) -> None:
    model = copy.deepcopy(done[0]).to(DEVICE)
    layers, ways = quant_layers(model), survey(model)
    for name in (name for name, way in ways.items() if way.native):
        layer = layers[name]
        linear = isinstance(layer, nn.Linear)
        shape = (2, 9, layer.in_features) if linear else (2, layer.in_channels, 8, 8)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        with torch.no_grad():
            exact = layer(x)
            layer.backend = "kernels"
            apart = (layer(x) - exact).norm() / exact.norm()
        assert ": triton" in layer.last_path and apart < 0.03, (name, layer.last_path, apart)


def test_all_of_it_moves_with_the_model(done) -> None:
    moved = copy.deepcopy(done[0]).to("meta")
    stayed, seen, todo = [], set(), [("model", moved)]
    while todo:
        path, thing = todo.pop()
        if id(thing) in seen or isinstance(thing, str | bytes | type | torch.dtype | torch.device):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            stayed += [path] if thing.device.type != "meta" else []
        elif isinstance(thing, dict):
            todo += [(f"{path}[{k}]", v) for k, v in thing.items()]
        elif isinstance(thing, list | tuple | set):
            todo += [(f"{path}[]", v) for v in thing]
        elif hasattr(thing, "__dict__"):
            todo += [(f"{path}.{k}", v) for k, v in vars(thing).items()]
    # the floating point originals, kept for restore_, are no part of the model
    assert [path for path in stayed if "originals" not in path] == []


def test_loaded_and_kernels_equal_simulated(done, tiny, tmp_path) -> None:
    model = done[0]
    simulated = tiny.run(model, "level")
    file = quant.export(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        bare = tiny.build("level")
    ledger = quant.load(file, bare)
    assert torch.equal(tiny.run(bare, "level"), simulated)
    assert file.stat().st_size == ledger.bytes_file and ledger.bytes_other_before is None
    assert quant.export(bare, tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    # Layer by layer, on the same input: through the whole model a difference in the last bit would make a
    # code flip wherever an input lies on a tie, as the calibrated extremes do.
    exact, inputs = bare.double(), {}
    layers = quant.layers.install.quant_layers(exact)
    handles = [
        layer.register_forward_pre_hook(lambda m, args, name=name: inputs.update({name: args[0].clone()}))
        for name, layer in layers.items()
    ]
    reference = tiny.run(exact, "level")
    for handle in handles:
        handle.remove()
    assert set(inputs) == set(layers)
    with torch.no_grad():
        for name, layer in layers.items():
            expected = layer(inputs[name])
            with quant.use_backend(exact, "kernels"):
                found = layer(inputs[name])
            near = 1e-6 * float(expected.abs().max())
            torch.testing.assert_close(
                found, expected, rtol=1e-6, atol=near, msg=lambda m, n=name: f"{n}: {m}"
            )
    with quant.use_backend(exact, "kernels"):  # put together, ties flip and the difference grows
        whole = tiny.run(exact, "level")
    assert (whole - reference).norm() < 0.2 * reference.norm()


def test_undo_and_switch(done, tiny) -> None:
    model, _, _, before, weights = done
    after = tiny.run(model, "level")
    assert after.shape == before.shape and not torch.equal(after, before)
    with quant.enabled(model, False):
        assert torch.equal(tiny.run(model, "level"), before)
    twin = quant.restore_(copy.deepcopy(model))
    assert torch.equal(tiny.run(twin, "level"), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in twin.state_dict().items())
    assert torch.equal(tiny.run(model, "level"), after)


@pytest.mark.parametrize("done", FIRST, indirect=True)
def test_same_seed_same_bytes(done, tiny, store, tmp_path, request) -> None:
    preset = request.node.callspec.params["done"]
    model = tiny.build("level")
    torch.manual_seed(99)  # the caller's random state has no say
    quant.quantize_(model, recipe(preset), trajectories=store, seed=3, include=BLOCK)
    first = quant.export(done[0], tmp_path / "0.safetensors").read_bytes()
    assert first == quant.export(model, tmp_path / "1.safetensors").read_bytes()


@pytest.mark.parametrize("preset", FIRST)
def test_missing_trajectories_nan_and_interrupts_leave_the_model_unharmed(preset: str, tiny, store) -> None:
    model = tiny.build("level")
    with pytest.raises(quant.MissingDataError, match=r"make them with quant\.record") as caught:
        quant.quantize_(model, preset)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    before = tiny.run(model, "level")
    with pytest.raises(KeyboardInterrupt):
        quant.quantize_(model, recipe(preset), trajectories=store, progress=interrupt)
    assert all(type(model.get_submodule(x.name)) in (nn.Linear, nn.Conv2d) for x in find_layers(model))
    assert torch.equal(tiny.run(model, "level"), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.conv_in.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(quant.InputError, match=r"'conv_in\.weight' has 1 of"):
        quant.quantize_(model, recipe(preset), trajectories=store)


@pytest.fixture(scope="module")
def bare(tiny):
    """The tiny models without values."""
    with torch.device("meta"):
        return {name: tiny.build(name) for name in tiny.names}


@pytest.mark.parametrize("preset", CALIBRATED)
def test_plans_need_neither_values_nor_a_denoiser(preset: str, bare, tiny) -> None:
    """Pairwise cover: each preset meets one model, and each model every method that has three presets."""
    name = tiny.names[CALIBRATED.index(preset) % len(tiny.names)]
    assert quant.plan(bare[name], preset).quantized
