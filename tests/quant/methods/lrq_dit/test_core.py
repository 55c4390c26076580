"""LRQ-DiT from end to end: plan, ledger, files, and what a layer is given."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.layers.rotations import Rotate
from quant.methods.lrq_dit import LrqDitConfig
from quant.recordings.rows import watch

PRESETS = ["lrq-dit-w3a4", "vidit-q-w4a4", "lrq-dit-w3a4-as-released"]


def record(name: str, tiny, folder):
    conditions = torch.randn(8, 7, 24, generator=torch.Generator().manual_seed(2))
    model, scheduler = tiny.build(name), FlowMatchEulerDiscreteScheduler()
    return name, quant.record(model, scheduler, conditions, folder, n_steps=3, batch_size=4)


@pytest.fixture(scope="module")
def dit(tiny, tmp_path_factory):
    return record("pixart", tiny, tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="module")
def unet(tiny, tmp_path_factory):
    return record("level", tiny, tmp_path_factory.mktemp("unet"))


@pytest.fixture(params=["unet", "dit"])
def recorded(request):
    """A tiny model's name and its recorded trajectories."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip(preset: str, dit, tiny, tmp_path) -> None:
    """Of a transformer; of the U-Net: methods/contract/test_calibrated.py."""
    name, store = dit
    files = []
    for index in range(2):
        model = tiny.build(name)
        before = tiny.run(model, name)
        plan = quant.plan(model, preset)
        ledger = quant.quantize_(model, preset, trajectories=store, seed=3)
        assert [record.as_plan() for record in ledger.layers] == plan.layers
        assert ledger.trajectories == store.hash
        files.append(quant.export(model, tmp_path / f"{index}.safetensors"))
    after = tiny.run(model, name)
    assert after.shape == before.shape and not torch.equal(after, before)
    assert files[0].read_bytes() == files[1].read_bytes()
    bare = tiny.build(name, seed=99)
    quant.load(files[0], bare)
    assert torch.equal(tiny.run(bare, name), after)
    size = files[0].stat().st_size
    assert abs(size - ledger.bytes_file) <= 0.01 * size
    quant.restore_(model)
    assert torch.equal(tiny.run(model, name), before)


@pytest.mark.parametrize("changes", [{}, {"rotation": "outlier", "block": 8}, {"rotation": "none"}])
def test_transforms_are_exact_without_quantization(changes: dict, recorded, tiny) -> None:
    """With exact weights behind the transforms the model gives the original output in float64."""
    name, store = recorded
    model = tiny.build(name).double()
    before = tiny.run(model, name)
    quant.quantize_(model, LrqDitConfig(activation_bits=None, **changes), trajectories=store)
    for layer in quant.layers.install.quant_layers(model).values():
        weight = layer.original.weight.detach()
        # what the codes stand for, in place of it the weight itself
        layer.decoded = weight if layer.transform is None else layer.transform.to_weight(weight)
    torch.testing.assert_close(tiny.run(model, name), before, rtol=1e-10, atol=1e-11)


def test_kernels_equal_simulation(dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name).double()
    quant.quantize_(model, "lrq-dit-w3a4", trajectories=store)
    simulated = tiny.run(model, name)
    with quant.use_backend(model, "kernels"):
        torch.testing.assert_close(tiny.run(model, name), simulated, rtol=1e-4, atol=1e-5)


def test_rotations_flip_signs(recorded, tiny) -> None:
    """What all channels share must not add up in one of them; every layer has signs of its own."""
    name, store = recorded
    model = tiny.build(name)
    quant.quantize_(model, LrqDitConfig(rotation="hadamard", smoothing=None), trajectories=store)
    layers = [
        q.transform
        for q in quant.layers.install.quant_layers(model).values()
        if isinstance(q.transform, Rotate)
    ]
    wide = [part for part in layers if part.count >= 32]
    assert len(wide) > 5 and len({part.seed for part in layers}) == len(layers)
    for part in wide:
        collected = part.rotate(torch.ones(1, part.count)).abs().max()
        assert collected < 0.8 * part.count**0.5


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(recorded, tiny) -> None:
    """Scales of inputs are by token or image, never by batch."""
    name, store = recorded
    model = tiny.build(name).double()
    quant.quantize_(model, "lrq-dit-w4a4", trajectories=store)
    (x,), kwargs = tiny.inputs(name)
    x, kwargs["encoder_hidden_states"] = x.double(), kwargs["encoder_hidden_states"].double()
    x[1] *= 10  # a batch's second picture would set a common scale
    both = model(x, **kwargs).sample
    kwargs = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
    torch.testing.assert_close(model(x[:1], **kwargs).sample, both[:1], rtol=1e-9, atol=1e-11)


def test_ledger_of_a_float16_model_with_an_outlier(dit, tiny) -> None:
    """The square of 300 is infinite in float16, and JSON has no infinity."""
    name, store = dit
    model = tiny.build(name)
    outlier = model.transformer_blocks[0].ff.net[0].proj
    with torch.no_grad():
        outlier.bias[5] = 300.0
    ledger = quant.quantize_(model.half(), "lrq-dit-w4a4", trajectories=store)
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    known = {record.name: record.notes.get("j") for record in ledger.quantized}
    after = known["transformer_blocks.0.ff.net.2"]
    assert after == pytest.approx(300 / outlier.out_features**0.5, rel=0.05)


def test_j_is_measured_and_rules(dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name)
    names = [line.name for line in quant.plan(model, "lrq-dit-w4a4").quantized]
    stats = {n: [0.0, 0] for n in names}

    def see(layer: str, x: torch.Tensor, timestep: float) -> None:
        stats[layer][0] += float(x.double().square().sum())
        stats[layer][1] += x.numel()

    watch(model, store, names, see, samples=8)
    ledger = quant.quantize_(model, LrqDitConfig(threshold=0.5, modulation="skip"), trajectories=store)
    kinds = set()
    for record in ledger.quantized:
        j = (stats[record.name][0] / stats[record.name][1]) ** 0.5
        assert record.notes["j"] == pytest.approx(j, rel=1e-4)
        if record.shape[1] % 8 == 0:
            assert record.notes["rotation"] == ("outlier" if j >= 0.5 else "hadamard")
            kinds.add(record.notes["rotation"])
    assert kinds == {"outlier", "hadamard"}


def test_needs_trajectories(tiny) -> None:
    model = tiny.build("unet")
    with pytest.raises(quant.MissingDataError, match="recorded trajectories"):
        quant.quantize_(model, "lrq-dit-w4a4")
    assert not quant.layers.install.quant_layers(model)


def test_more_weight_bits_are_never_worse(dit, tiny) -> None:
    name, store = dit
    before: dict[str, float] = {}
    for bits in (2, 3, 4, 8):
        ledger = quant.quantize_(tiny.build(name), LrqDitConfig(weight_bits=bits), trajectories=store)
        for record in ledger.quantized:
            assert record.weight_sqnr_db >= before.get(record.name, -99.0)
            before[record.name] = record.weight_sqnr_db


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_zero_and_constant_weights(value: float, dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name)
    for layer in quant.denoisers.inventory.find_layers(model):
        nn.init.constant_(model.get_submodule(layer.name).weight, value)
    before = tiny.run(model, name)
    config = LrqDitConfig(weight_bits=3, activation_bits=None, smoothing=None, rotation="none")
    ledger = quant.quantize_(model, config, trajectories=store)
    torch.testing.assert_close(tiny.run(model, name), before, rtol=2e-2, atol=1e-6)
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 30 for record in ledger.quantized)
    # signs and a Hadamard matrix make any row bell-shaped: 3 bits then cost what they cost on Gaussian rows
    quant.restore_(model)
    turned = quant.quantize_(
        model, config.model_copy(update={"rotation": "hadamard"}), trajectories=store
    ).quantized
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 8 for record in turned)
