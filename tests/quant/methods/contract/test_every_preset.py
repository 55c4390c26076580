"""What every registered method must do, for every preset. A new method is tested by being registered."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import quant
from quant.denoisers.inventory import find_layers
from quant.recipes import resolve
from quant.registry import get_method, get_preset, validate

# Presets that calibrate go through the same checks, on a recording, in methods/test_calibrated_contract.py.
PRESETS = [p for p in quant.list_presets() if not get_method(get_preset(p).method).info.needs_calibration]


MODELS = ("odd", "level", "pixart")
# pairwise cover: the first preset meets every model, the others one each in turn
PAIRS = [(PRESETS[0], name) for name in MODELS] + [
    (preset, MODELS[place % len(MODELS)]) for place, preset in enumerate(PRESETS[1:])
]
BOTH = pytest.mark.parametrize(("preset", "model_name"), PAIRS, ids=["-".join(pair) for pair in PAIRS])


@pytest.mark.parametrize("method", quant.list_methods())
def test_native_is_promised_where_a_kernel_fits_and_nowhere_else(method: str, tiny) -> None:
    """By the plan's own rule, of most layers of any of the method's presets."""
    from quant.layers.native.ways import way

    model, fitting = tiny.build("pixart"), False
    for preset in (p for p in quant.list_presets() if get_preset(p).method == method):
        lines = quant.plan(model, preset).quantized
        ways = [way(x.kind, x.weight, x.activation, torch.device("cpu")) for x in lines]
        fitting |= 2 * sum(one.op != "decode" for one in ways) > len(ways)
    promised = not get_method(method).info.native[0].startswith("none")
    assert promised == fitting


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


def test_config_survives_json(preset: str) -> None:
    _, method, config = resolve(preset)
    again = validate(method, json.loads(config.model_dump_json()))
    assert again == config
    for name, field in method.config.model_fields.items():
        assert field.description, f"{name} has no help text"
    with pytest.raises(quant.InputError, match="nonsense"):
        validate(method, {"nonsense": 1})


@BOTH
def test_plan_is_what_is_done(preset: str, model_name: str, tiny) -> None:
    model = tiny.build(model_name)
    plan = quant.plan(model, preset)
    ledger = quant.quantize_(model, preset)
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    assert ledger.bytes_after == plan.bytes_after
    assert type(plan).from_json(plan.to_json()) == plan
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    assert "<table>" in ledger._repr_html_() and plan.layers[0].name in str(plan)


@BOTH
def test_every_layer_is_listed_once(preset: str, model_name: str, tiny) -> None:
    model = tiny.build(model_name)
    names = [layer.name for layer in find_layers(model)]
    ledger = quant.quantize_(model, preset)
    assert [record.name for record in ledger.layers] == names
    assert len(set(names)) == len(names)
    for record in ledger.layers:
        assert record.skipped == (type(model.get_submodule(record.name)) in (nn.Linear, nn.Conv2d))
        assert record.reason if record.skipped else record.bytes_by["codes"] > 0


@BOTH
def test_output_shape_dtype_and_undo(preset: str, model_name: str, tiny) -> None:
    model = tiny.build(model_name)
    before = tiny.run(model, model_name)
    quant.quantize_(model, preset)
    after = tiny.run(model, model_name)
    assert after.shape == before.shape and after.dtype == before.dtype
    assert not torch.equal(after, before)
    with quant.enabled(model, False):
        assert torch.equal(tiny.run(model, model_name), before)
    assert torch.equal(tiny.run(model, model_name), after)
    quant.restore_(model)
    assert torch.equal(tiny.run(model, model_name), before)
    assert not any("Quant" in type(m).__name__ for m in model.modules())


def test_second_application_is_refused(preset: str, tiny) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, preset)
    with pytest.raises(quant.InputError, match="already quantized"):
        quant.quantize_(model, preset)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_zero_and_constant_weights(preset: str, value: float, tiny) -> None:
    model = tiny.build("odd")
    for layer in find_layers(model):
        nn.init.constant_(model.get_submodule(layer.name).weight, value)
    before = tiny.run(model, "odd")
    ledger = quant.quantize_(model, preset, overrides={"*": {"activation_bits": None}})
    torch.testing.assert_close(tiny.run(model, "odd"), before, rtol=2e-2, atol=1e-6)
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 40 for record in ledger.layers)


def test_nan_weight_leaves_the_model_unharmed(preset: str, tiny) -> None:
    model = tiny.build("odd")
    model.linear.weight.data[3, 4] = torch.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(quant.InputError, match=r"'linear\.weight' has 1 of"):
        quant.quantize_(model, preset)
    assert type(model.out) is nn.Linear
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num()), name


def test_failure_halfway_leaves_the_model_unharmed(preset: str, tiny) -> None:
    model = tiny.build("odd")

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quant.quantize_(model, preset, progress=interrupt)
    assert all(
        type(model.get_submodule(layer.name)) in (nn.Linear, nn.Conv2d) for layer in find_layers(model)
    )


def test_same_seed_same_bytes(preset: str, tmp_path, tiny) -> None:
    for index in range(2):
        model = tiny.build("level")
        quant.quantize_(model, preset, seed=3)
        quant.export(model, tmp_path / f"{index}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


@BOTH
def test_loaded_equals_simulated(preset: str, model_name: str, tmp_path, tiny) -> None:
    model = tiny.build(model_name)
    quant.quantize_(model, preset)
    simulated = tiny.run(model, model_name)
    file = quant.export(model, tmp_path / "m.safetensors")
    bare = tiny.build(model_name, seed=99)
    ledger = quant.load(file, bare)
    assert torch.equal(tiny.run(bare, model_name), simulated)
    assert file.stat().st_size == ledger.bytes_file
    assert ledger.bytes_other_before is None  # export found what the plan had counted
    with pytest.raises(quant.InputError, match="loaded from codes"):
        quant.restore_(bare)
    second = quant.export(bare, tmp_path / "again.safetensors")
    assert second.read_bytes() == file.read_bytes()
    with torch.device("meta"):
        empty = tiny.build(model_name)
    quant.load(file, empty)
    assert torch.equal(tiny.run(empty, model_name), simulated)


@BOTH
def test_kernels_equal_simulation(preset: str, model_name: str, tmp_path, tiny) -> None:
    """Layer by layer on the inputs that the simulated model sees: codes exactly, outputs to rounding."""
    model = tiny.build(model_name).double()
    quant.quantize_(model, preset)
    file = quant.export(model, tmp_path / "m.safetensors")
    exported = tiny.build(model_name, seed=99).double()
    quant.load(file, exported)
    layers = quant.layers.install.quant_layers(exported)
    seen: dict[str, tuple] = {}
    for name, layer in quant.layers.install.quant_layers(model).items():
        layer.register_forward_hook(lambda m, args, out, name=name: seen.__setitem__(name, (args[0], out, m)))
    simulated = tiny.run(model, model_name)
    for name, (x, out, layer) in seen.items():
        other = layers[name]
        assert torch.equal(other.encoded().codes(), layer.encoded().codes()), name
        if layer.input_quantizer is not None:
            assert torch.equal(other.input_quantizer.encode(x)[0], layer.input_quantizer.encode(x)[0]), name
        other.backend = "kernels"
        with torch.no_grad():
            torch.testing.assert_close(
                other(x), out, rtol=1e-6, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}"
            )
        assert other.last_path.endswith("reference")
    # and the whole model: in float64 no code sits close enough to a tie to flip
    with quant.use_backend(exported, "kernels"):
        torch.testing.assert_close(tiny.run(exported, model_name), simulated, rtol=1e-4, atol=1e-5)


def test_meta_model_is_refused_clearly(preset: str, tiny) -> None:
    with torch.device("meta"):
        model = tiny.build("odd")
    assert quant.plan(model, preset).quantized  # planning needs no values
    with pytest.raises(quant.InputError, match="meta device"):
        quant.quantize_(model, preset)


def test_memory_is_bounded(preset: str, peak_bytes) -> None:
    """Working memory stays near one layer: results are packed codes, not copies of the model."""
    model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(24)])
    peak = peak_bytes(lambda: quant.quantize_(model, preset))
    layer = 256 * 256 * 4
    # model and decoded weights (2 x 24 layers) stay, then the codes; the rest is temporaries of one layer
    assert peak < 2 * 24 * layer + 24 * layer / 4 + 6 * layer


def test_more_bits_are_never_worse(tiny) -> None:
    """Weight error falls with the bits, in every layer; methods that calibrate: test_calibrated_bounds."""
    plain = [name for name in quant.list_methods() if not get_method(name).info.needs_calibration]
    assert plain
    for name in plain:
        config = get_method(name).config
        assert "weight_bits" in config.model_fields, name
        previous: dict[str, float] = {}
        for bits in range(2, 9):
            ledger = quant.quantize_(tiny.build("level"), config(weight_bits=bits))
            for record in ledger.layers:
                if not record.skipped and record.activation is not None:
                    now = record.weight_sqnr_db or 0.0
                    assert now >= previous.get(record.name, -99.0), (name, bits, record.name)
                    previous[record.name] = now
        assert len(previous) > 12, name
