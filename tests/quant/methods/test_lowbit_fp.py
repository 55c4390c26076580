"""Low-bit floats: grids against torch's own, searches, learned rounding, and the way through the library."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import quant
from quant.encoded import EncodedWeight, planned_bytes
from quant.granularity import Granularity
from quant.grid import FloatGrid, IntGrid
from quant.install import quant_layers
from quant.methods.lowbit_fp import LowbitFpConfig
from quant.methods.lowbit_fp.core import EIGHT, FOUR, _quantizer
from quant.methods.lowbit_fp.rounding import learn, soft, start, step_of
from quant.methods.lowbit_fp.search import sample, search
from quant.quantizer import Quantizer
from quant.searched import SearchedFloatGrid

ONE = {"scale": torch.ones(1)}
FAST = {"clips": 12, "iterations": 20, "samples": 3, "steps": 2, "rows": 64, "values": 512}


@pytest.mark.parametrize(("exponent", "mantissa"), EIGHT + FOUR)
def test_grid_is_symmetric_and_quantizer_finds_the_nearest(exponent: int, mantissa: int) -> None:
    grid = FloatGrid(exponent=exponent, mantissa=mantissa)
    table = torch.tensor(grid.table(), dtype=torch.float64)
    values = table.unique()
    assert len(values) == 2**grid.code_bits - 1 and torch.equal(values, -values.flip(0))
    middles = (values[1:] + values[:-1]) / 2
    x = torch.cat([middles, values, grid.largest * (2 * torch.rand(20000, dtype=torch.float64) - 1)])
    out = grid.fake(x, ONE)
    assert torch.equal((out - x).abs(), (x[:, None] - values).abs().amin(1))
    codes = grid.encode(middles, ONE)
    if mantissa:  # powers of two alone have no even mantissa that a tie could go to
        assert bool((codes % 2 == 0).all())
    assert torch.equal(grid.fake(out, ONE), out)
    assert torch.equal(grid.fake(2 * x, {"scale": torch.full((1,), 2.0)}), 2 * out)


@pytest.mark.parametrize(("name", "dtype"), [("e4m3fn", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_hardware_formats_are_torchs(name: str, dtype: torch.dtype) -> None:
    exponent, mantissa = {"e4m3fn": (4, 3), "e5m2": (5, 2)}[name]
    grid = FloatGrid(exponent=exponent, mantissa=mantissa, hardware=name)
    assert grid.largest == torch.finfo(dtype).max
    x = torch.randn(50000, generator=torch.Generator().manual_seed(0)) * grid.largest / 2
    x = torch.cat([x, x * 1e-4, x * 1e-6])
    expected = x.clamp(-grid.largest, grid.largest).to(dtype)
    assert torch.equal(grid.encode(x, ONE), expected.view(torch.uint8))
    assert torch.equal(grid.fake(x, ONE), expected.float())


def test_every_four_bit_float_is_an_e4m3_number() -> None:
    for exponent, mantissa in FOUR:
        values = torch.tensor(FloatGrid(exponent=exponent, mantissa=mantissa).table())
        assert torch.equal(values.to(torch.float8_e4m3fn).float(), values)


def test_search_picks_the_format_for_the_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40000, generator=generator)
    heavy = normal / (torch.randn(40000, 3, generator=generator).square().mean(1)).sqrt()  # Student t(3)
    eight = _quantizer(8, LowbitFpConfig())

    def found(x: torch.Tensor, quantizer: Quantizer) -> tuple[str, float]:
        params, notes = search(x, quantizer, 111)
        noise = (x - quantizer.fake(x, "linear_input", params)).square().sum() / x.square().sum()
        return notes["format"], -10 * float(torch.log10(noise))

    label, decibel = found(normal, eight)
    assert label == "fp8-e2m5" and decibel == pytest.approx(42.7, abs=0.5)
    label, decibel = found(heavy, eight)
    assert label == "fp8-e3m4" and decibel == pytest.approx(37.3, abs=0.7)
    hardware = _quantizer(8, LowbitFpConfig(formats="hardware"))
    for x in (normal, heavy):
        assert found(x, hardware)[1] == pytest.approx(31.6, abs=0.3)  # floats are flat in the data
    four = _quantizer(4, LowbitFpConfig())
    assert found(normal, four)[1] == pytest.approx(19.0, abs=0.3)
    assert found(heavy, four)[0] == "fp4-e3m0"
    assert found(torch.zeros(10), four)[1] != found(normal, four)[1]


def test_search_sees_the_largest_value() -> None:
    x = torch.zeros(100000)
    x[77] = -9.0
    picked = sample(x, 1000, torch.Generator().manual_seed(0))
    assert len(picked) == 1000 and float(picked.min()) == -9.0


@pytest.mark.parametrize("shape", [(8, 12), (4, 3, 3, 3)])
def test_searched_grid_stores_its_format(shape) -> None:
    layout = "linear_weight" if len(shape) == 2 else "conv_weight"
    quantizer = _quantizer(8, LowbitFpConfig())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    outputs = []
    for index in range(4):
        scale = x.abs().max() / quantizer.grid.format(index).largest
        params = {"scale": scale.reshape([1] * x.ndim)}
        params["format"] = torch.full_like(params["scale"], index, dtype=torch.uint8)
        encoded = EncodedWeight.from_weight(x, quantizer, layout, params)
        plain = quantizer.grid.format(index)
        assert torch.equal(encoded.decode(), plain.fake(x, params))
        assert sum(encoded.bytes().values()) == sum(planned_bytes(quantizer, shape, layout).values())
        outputs.append(encoded.decode())
    assert not torch.equal(outputs[0], outputs[3])
    mixed = {"scale": torch.ones(2, 1), "format": torch.tensor([[0], [3]], dtype=torch.uint8)}
    grid, y = quantizer.grid, torch.tensor([[3.1], [3.1]])
    expected = [grid.format(i).fake(y[:1], ONE) for i in (0, 3)]
    assert torch.equal(grid.fake(y, mixed), torch.cat(expected))
    with pytest.raises(ValidationError, match="of one size"):
        SearchedFloatGrid(formats=((2, 5), (2, 1)))


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Heavy-tailed weight and correlated inputs, as in the card's ordering."""
    generator = torch.Generator().manual_seed(seed)
    chi = torch.randn(64, 128, 6, generator=generator).square().mean(-1).sqrt()
    weight = torch.randn(64, 128, generator=generator) / chi
    mix = torch.randn(128, 128, generator=generator) / 128**0.5 + 0.5 * torch.eye(128)
    return weight, torch.randn(512, 128, generator=generator) @ mix


def test_learned_rounding_stays_on_the_grid_within_a_step() -> None:
    weight, rows = case()
    config = LowbitFpConfig(weight_bits=4, rounding="learned", iterations=30)
    params, _ = search(weight.flatten(), _quantizer(4, config), 111)
    grid = _quantizer(4, config).grid.format(int(params["format"]))
    learned = learn(weight, rows, grid, params["scale"], config, 0)
    torch.testing.assert_close(grid.fake(learned, params), learned, rtol=1e-6, atol=0)
    edge = grid.largest * params["scale"]
    clipped = weight.clamp(-edge, edge)
    step = step_of(clipped, grid, params["scale"])
    assert bool(((learned - clipped).abs() <= step * (1 + 1e-5)).all())
    fraction = clipped / step - torch.floor(clipped / step)
    torch.testing.assert_close(soft(start(fraction)), fraction, rtol=1e-4, atol=1e-5)
    untouched = learn(
        weight, rows, grid, params["scale"], config.model_copy(update={"learning_rate": 1e-12}), 0
    )
    tie = (fraction - 0.5).abs() < 1e-4
    torch.testing.assert_close(untouched[~tie], grid.fake(weight, params)[~tie], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_errors_of_weights_come_in_order(seed: int) -> None:
    """INT4 > FP4 > FP4 with learned rounding, in the layer's output on inputs that were not learned from."""
    weight, rows = case(seed)
    learned_from, fresh = rows.chunk(2)
    config = LowbitFpConfig(weight_bits=4, rounding="learned")
    four = _quantizer(4, config)
    params, _ = search(weight.flatten(), four, 111)
    absmax = Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="tensor"))
    grid = four.grid.format(int(params["format"]))

    def error(value: torch.Tensor) -> float:
        return float((fresh @ (value - weight).T).square().mean() / (fresh @ weight.T).square().mean())

    nearest = error(four.fake(weight, "linear_weight", params))
    learned = error(learn(weight, learned_from, grid, params["scale"], config, 0))
    assert error(absmax.fake(weight, "linear_weight")) > nearest > learned


@pytest.fixture(scope="module")
def made(tiny, recorded):
    known = {}

    def get(preset: str, name: str):
        if (preset, name) not in known:
            model = tiny.build(name)
            config = LowbitFpConfig(**{**quant.get_preset(preset).config, **FAST})
            ledger = quant.quantize_(model, config, trajectories=recorded(name), seed=3)
            known[preset, name] = (config, ledger, model)
        return known[preset, name]

    return get


CASES = [(p, "pixart") for p in [*quant.list_presets("fp[48]-fp8*"), "int4-int8-tensor"]] + [
    ("fp4-fp8", "unet")
]


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_through_the_library(preset, name, made, tiny, tmp_path) -> None:
    config, ledger, model = made(preset, name)
    plan = quant.plan(tiny.build(name), config)
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    assert ledger.bytes_after == plan.bytes_after
    simulated = tiny.run(model, name)
    assert torch.isfinite(simulated).all()
    file = quant.export(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        bare = tiny.build(name)
    quant.load(file, bare)
    assert torch.equal(tiny.run(bare, name), simulated)
    with quant.use_backend(bare, "kernels"):
        torch.testing.assert_close(tiny.run(bare, name), simulated, rtol=1e-4, atol=1e-5)
    assert quant.export(bare, tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    learned = {r.notes.get("rounding") for r in ledger.quantized if r.weight.bits == 4}
    assert learned == ({None} if "nearest" in preset else {"learned"}) or "fp8-fp8" in preset


def test_policies(tiny) -> None:
    paper = {line.name: line for line in quant.plan(tiny.build("unet"), "fp4-fp8").layers}
    assert not any(line.skipped for line in paper.values())
    assert paper["conv_in"].bits == "W8A8" and paper["mid_block.resnets.0.conv1"].bits == "W4A8"
    common = {line.name: line for line in quant.plan(tiny.build("unet"), "fp4-fp8-e4m3").layers}
    assert common["conv_in"].skipped and common["time_embedding.linear_1"].skipped
    assert common["mid_block.resnets.0.time_emb_proj"].bits == "W8A32"
    assert all(line.cost == "" for line in [*paper.values(), *common.values()])  # every scale is free


def test_same_seed_same_bytes(made, tiny, recorded, tmp_path) -> None:
    config, _, model = made("fp4-fp8", "pixart")
    other = tiny.build("pixart")
    quant.quantize_(other, config, trajectories=recorded("pixart"), seed=3)
    one, two = (quant.export(m, tmp_path / f"{i}.safetensors") for i, m in enumerate((model, other)))
    assert one.read_bytes() == two.read_bytes()


def test_missing_trajectories(tiny) -> None:
    with pytest.raises(quant.MissingDataError, match="got none"):
        quant.quantize_(tiny.build("unet"), "fp4-fp8")
    assert not quant_layers(tiny.build("unet"))


def test_integers_in_place_of_floats_are_the_same_method_on_another_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(24, 32, generator=generator), torch.randn(128, 32, generator=generator)
    config = LowbitFpConfig(weight_bits=4, formats="integer", rounding="learned", iterations=60)
    quantizer = _quantizer(4, config)
    assert quantizer.grid == IntGrid(bits=4) and _quantizer(8, config).grid == IntGrid(bits=8)
    params, notes = search(weight.flatten(), quantizer, 40)
    assert notes["format"] == "int4" and 0.1 <= notes["clip"] <= 1.2
    learned = learn(weight, rows, quantizer.grid, params["scale"], config, 0)
    steps = learned / params["scale"]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert float(steps.abs().max()) <= 7.001
    nearest = quantizer.fake(weight, "linear_weight", {"scale": params["scale"].reshape(1, 1)})
    assert ((learned - weight) @ rows.T).norm() < ((nearest - weight) @ rows.T).norm()
