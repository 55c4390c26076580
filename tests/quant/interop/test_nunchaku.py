"""The engine's file layout: orders against their definition, codes and bytes both ways, whole models."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import nn

import quant
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.interop import fragments as order
from quant.interop.nunchaku import (
    SHIFT,
    from_nunchaku,
    to_nunchaku,
    why_not,
)
from quant.interop.nunchaku_files import export_nunchaku, read_nunchaku
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers

GROUP = Granularity(kind="group", group_size=64)


def codes(n: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-7, 8, (n, k), generator=generator, dtype=torch.int8)


def wrapped(n: int, k: int, rank: int = 20, shift: float = 0.0, bias: bool = True) -> nn.Module:
    """A Sequential with one SVDQuant linear of random parts, everything in bfloat16 values."""
    torch.manual_seed(n + k)
    model = nn.Sequential(nn.Linear(k, n, bias=bias)).to(torch.bfloat16)
    weight = Quantizer(grid=IntGrid(bits=4), granularity=GROUP, scale_dtype="bfloat16")
    mode = "unsigned" if shift else "symmetric"
    scale = (torch.rand(n, -(-k // 64), 1) * 0.1 + 0.01).to(torch.bfloat16)
    result = LayerResult(
        EncodedWeight.from_codes(codes(n, k), weight, "linear_weight", {"scale": scale}),
        activation=Quantizer(grid=IntGrid(bits=4, mode=mode), granularity=GROUP, scale_dtype="bfloat16"),
        transform=Smooth((torch.rand(k) + 0.5).to(torch.bfloat16), shift=shift),
        branch=LowRank(torch.randn(rank, k).to(torch.bfloat16), torch.randn(n, rank).to(torch.bfloat16))
        if rank
        else None,
    )
    install_(model, {"0": result})
    return model


def test_codes_lie_where_the_fragment_says() -> None:
    """By the definition, element by element, with plain integer arithmetic on the stored words."""
    table = codes(256, 128)
    words = order.pack_codes(table).view(torch.int32).flatten()
    for row, column in (
        (0, 0),
        (1, 0),
        (8, 0),
        (16, 8),
        (0, 32),
        (127, 63),
        (128, 64),
        (255, 127),
        (77, 101),
    ):
        tile = (row // 128) * 2 + column // 64
        r, c = row % 128, column % 64
        pack, half, lane = r // 16, r // 8 % 2, r % 8
        k_half, k_lane, register = c // 32, c // 8 % 4, c % 8
        word = (((((tile * 8 + pack) * 8 + lane) * 4 + k_lane) * 2 + half) * 2) + k_half
        nibble = (int(words[word]) >> (4 * register)) & 15
        assert nibble == int(table[row, column]) % 16, (row, column)


def test_scales_lie_where_the_lanes_want_them() -> None:
    scales = torch.arange(2 * 256).reshape(2, 256).T.contiguous()  # (N, G): scale of group g is 256 g + row
    packed = order.pack_scales(scales)
    assert packed.shape == (2, 256)
    flat = packed.flatten().tolist()
    assert flat[:8] == [0, 1, 8, 9, 2, 3, 10, 11]
    assert flat[16:20] == [16, 17, 24, 25]  # lane 4
    assert flat[128:132] == [256, 257, 264, 265]  # the next group of the same 128 rows
    assert flat[256:260] == [128, 129, 136, 137]  # then the next 128 rows
    assert order.pack_vector(torch.arange(128))[:5].tolist() == [0, 1, 8, 9, 2]


def test_low_rank_tiles_are_product_fragments() -> None:
    table = torch.arange(16 * 16).reshape(16, 16)
    up = order.pack_branch(table, down=False).flatten().tolist()
    # lane 0: (row 0, columns 0 1), (row 0, columns 8 9), (row 8, columns 0 1), (row 8, columns 8 9)
    assert up[:8] == [0, 1, 8, 9, 128, 129, 136, 137]
    assert order.pack_branch(table.T.contiguous(), down=True).flatten().tolist() == up


@pytest.mark.parametrize(("n", "k"), [(128, 128), (256, 384), (384, 256)])
def test_every_order_is_undone_bit_for_bit(n: int, k: int) -> None:
    table = codes(n, k)
    packed = order.pack_codes(table)
    assert packed.dtype == torch.int8 and packed.shape == (n, k // 2)
    assert torch.equal(order.unpack_codes(packed), table)
    assert torch.equal(order.unpack_codes(packed, signed=False), table % 16)
    assert torch.equal(order.pack_codes(order.unpack_codes(packed)), packed)
    scales, vector, branch = torch.randn(n, k // 64), torch.randn(k), torch.randn(n, 48)
    assert torch.equal(order.unpack_scales(order.pack_scales(scales)), scales)
    assert torch.equal(order.unpack_vector(order.pack_vector(vector)), vector)
    for down in (False, True):
        there = order.pack_branch(branch, down)
        assert torch.equal(order.unpack_branch(there, down), branch) and not torch.equal(there, branch)


@pytest.mark.parametrize(("n", "k"), [(128, 128), (131, 200), (96, 192)])
@pytest.mark.parametrize("shift", [0.0, SHIFT])
def test_codes_and_outputs_come_back_and_bytes_too(n: int, k: int, shift: float) -> None:
    model = wrapped(n, k, shift=shift)
    layer = quant_layers(model)["0"]
    tensors = to_nunchaku(layer)
    result = from_nunchaku(tensors, (n, k), unsigned=bool(shift), rank=20)
    assert torch.equal(result.weight.codes(), layer.encoded().codes())
    assert torch.equal(result.weight.packed, layer.encoded().packed)
    assert torch.equal(result.transform.factor, layer.transform.factor) and result.transform.shift == shift
    other = nn.Sequential(nn.Linear(k, n)).to(torch.bfloat16)
    install_(other, {"0": result}, keep_originals=False)
    x = torch.randn(5, k).to(torch.bfloat16).abs()
    for backend in ("simulated", "kernels"):
        with torch.no_grad(), quant.use_backend(model, backend), quant.use_backend(other, backend):
            assert torch.equal(other(x), model(x)), backend
    again = to_nunchaku(quant_layers(other)["0"])
    assert all(
        torch.equal(again[name].view(torch.uint8), tensors[name].view(torch.uint8)) for name in tensors
    )
    old = {{"smooth_factor": "smooth", "proj_down": "lora_down", "proj_up": "lora_up"}.get(k, k): v
           for k, v in tensors.items()}  # fmt: skip
    padded = from_nunchaku({**old, "smooth_orig": tensors["smooth_factor"]}, (n, k), unsigned=bool(shift))
    assert padded.branch.down.shape[0] == 32 and torch.equal(padded.branch.down[:20], result.branch.down)


def test_layers_without_a_branch_or_bias() -> None:
    model = wrapped(64, 64, rank=0, bias=False)
    tensors = to_nunchaku(quant_layers(model)["0"])
    assert not tensors["proj_down"].any() and not tensors["bias"].any()
    assert from_nunchaku(tensors, (64, 64), rank=0).branch is None


def test_a_model_goes_through_a_file(tiny, tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, 130), nn.SiLU(), nn.Linear(130, 3))
    model = model.to(torch.bfloat16)
    parts = {"0": wrapped(256, 128), "2": wrapped(130, 256)}
    results = {}
    for name, source in parts.items():
        layer = quant_layers(source)["0"]
        results[name] = LayerResult(
            layer.encoded(), layer.input_quantizer.quantizer, transform=layer.transform, branch=layer.branch
        )
    results["4"] = LayerResult(
        EncodedWeight.from_weight(model[4].weight, int_quantizer(8, "channel"), "linear_weight"),
        int_quantizer(8, "token"),
    )
    install_(model, results)
    left = export_nunchaku(model, tmp_path / "m.safetensors")
    assert list(left) == ["4"] and "not signed 4-bit integers" in left["4"]
    tensors = load_file(tmp_path / "m.safetensors")
    assert tensors["4.weight"].shape == (3, 130) and "4.qweight" not in tensors
    back = read_nunchaku(tmp_path / "m.safetensors", {"0": (256, 128), "2": (130, 256)})
    other = nn.Sequential(nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, 130), nn.SiLU(), nn.Linear(130, 3))
    other = other.to(torch.bfloat16)
    install_(other, back, keep_originals=False)
    x = torch.randn(4, 128).to(torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(other[:3](x), model[:3](x))
    with pytest.raises(quant.InputError, match="there is no linear '2'"):
        read_nunchaku(tmp_path / "m.safetensors", {"0": (256, 128)})
    with pytest.raises(quant.InputError, match="0: qweight is"):
        read_nunchaku(tmp_path / "m.safetensors", {"0": (256, 300), "2": (130, 256)})
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(data[:-9])
    with pytest.raises(quant.InputError, match="truncated or not a safetensors file"):
        read_nunchaku(tmp_path / "m.safetensors", {})
    with pytest.raises(quant.MissingDataError, match="no file"):
        read_nunchaku(tmp_path / "none.safetensors", {})
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(quant.InputError, match=r"no name ends in \.qweight"):
        read_nunchaku(tmp_path / "x.safetensors", {})


def test_what_the_method_makes_goes_through_a_file(tiny, tmp_path) -> None:
    model = tiny.build("pixart")
    rows = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
    store = quant.record(model, FlowMatchEulerDiscreteScheduler(), rows, tmp_path / "s", n_steps=2)
    config = quant.recipes.resolve("svdquant-w4a4")[2].model_copy(
        update={"smooth_points": 3, "iterations": 2, "rows": 32, "samples": 2, "steps": 2}
    )
    shapes = {
        layer.name: layer.shape
        for layer in quant.denoisers.inventory.find_layers(model)
        if layer.kind == "Linear"
    }
    quant.quantize_(model, config, trajectories=store)
    left = export_nunchaku(model, tmp_path / "m.safetensors")
    layers = quant_layers(model)
    back = read_nunchaku(tmp_path / "m.safetensors", shapes)
    assert len(back) > 10 and set(back) | set(left) == set(layers)
    for name, result in back.items():
        layer = layers[name]
        assert torch.equal(result.weight.packed, layer.encoded().packed), name
        assert torch.equal(result.weight.params["scale"], layer.encoded().params["scale"]), name
        assert torch.equal(result.transform.factor, layer.transform.factor), name
        assert result.transform.shift == layer.transform.shift and result.activation.grid == (
            layer.input_quantizer.quantizer.grid
        )
    assert any(result.transform.shift for result in back.values())
    other = tiny.build("pixart")
    install_(other, back, keep_originals=False)
    with torch.no_grad():  # biases were rounded to 16 bit on the way
        torch.testing.assert_close(tiny.run(other, "pixart"), tiny.run(model, "pixart"), rtol=0.05, atol=0.02)


def test_what_has_no_place_says_why(tiny, tmp_path) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, "rtn-w8a8")
    layers = quant_layers(model)
    assert "not signed 4-bit" in why_not(layers["linear"]) and "only quantized linears" in why_not(model.wide)
    with pytest.raises(quant.InputError, match="no place in Nunchaku's layout"):
        to_nunchaku(layers["linear"])
    with pytest.raises(quant.InputError, match="no layer has a place"):
        export_nunchaku(model, tmp_path / "m.safetensors")
    tensors = to_nunchaku(quant_layers(wrapped(128, 128))["0"])
    with pytest.raises(quant.InputError, match="the linear has no 'proj_up'"):
        from_nunchaku({k: v for k, v in tensors.items() if k != "proj_up"}, (128, 128))
    with pytest.raises(quant.InputError, match="values beyond 100 x 128"):
        from_nunchaku(tensors, (100, 128))
    with pytest.raises(quant.InputError, match="NVFP4 is not"):
        from_nunchaku({**tensors, "wscales": tensors["wscales"].float()}, (128, 128))
