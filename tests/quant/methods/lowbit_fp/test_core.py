"""Low-bit floats: grids against torch's own, and the way through the library."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import quant
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.layers.encoded import EncodedWeight, planned_bytes
from quant.layers.install import quant_layers
from quant.methods.lowbit_fp import LowbitFpConfig
from quant.methods.lowbit_fp.core import EIGHT, FOUR, _quantizer

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
    ("fp4-fp8", "level")
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
    paper = {line.name: line for line in quant.plan(tiny.build("level"), "fp4-fp8").layers}
    assert not any(line.skipped for line in paper.values())
    assert paper["conv_in"].bits == "W8A8" and paper["mid_block.resnets.0.conv1"].bits == "W4A8"
    common = {line.name: line for line in quant.plan(tiny.build("level"), "fp4-fp8-e4m3").layers}
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
        quant.quantize_(tiny.build("level"), "fp4-fp8")
    assert not quant_layers(tiny.build("level"))
