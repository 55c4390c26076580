"""Files in the engine's layout that are damaged or of another format, and what an import may be used for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import quant
from quant.formats.quantizer import int_quantizer
from quant.interop import export_nunchaku, read_nunchaku
from quant.interop import fragments as order
from quant.interop.nunchaku import SHIFT, from_nunchaku, to_nunchaku
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers
from quant.layers.sinks import SinkDrop

N, K = 40, 64
SHAPES = {"0": (N, K), "2": (K, N)}
Tensors = dict[str, Tensor]


def bare(bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(K, N, bias=bias), nn.GELU(), nn.Linear(N, K, bias=bias))


def quantized(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = bare(bias)
    results = {}
    for name, (n, k) in SHAPES.items():
        weight = model.get_parameter(f"{name}.weight")
        results[name] = LayerResult(
            EncodedWeight.from_weight(weight, int_quantizer(4, "group", 64), "linear_weight"),
            int_quantizer(4, "group", 64),
            transform=Smooth(torch.rand(k).to(torch.bfloat16) + 0.5, shift=SHIFT if name == "2" else 0.0),
            branch=LowRank(torch.randn(3, k), torch.randn(n, 3)),
        )
    install_(model, results)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("whole") / "m.safetensors"
    assert export_nunchaku(quantized(), file) == {}
    return file


def changed(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def act(tensors: Tensors) -> None:
        tensors[f"0.{key}"] = change(tensors[f"0.{key}"]).contiguous()

    return act


def low_rank(columns: int) -> Callable[[Tensors], None]:
    def act(tensors: Tensors) -> None:
        for key in ("0.proj_down", "0.proj_up"):
            tensors[key] = tensors[key][:, :columns].repeat(1, 1).contiguous()

    return act


def added(key: str, value: Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({f"0.{key}": value})


FLOATS = ("wscales", "bias", "smooth_factor", "proj_down", "proj_up")
DAMAGE: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "codes of four bytes": (changed("qweight", Tensor.int), "qweight is torch.int32, allowed: torch.int8"),
    "codes as floats": (changed("qweight", Tensor.float), "qweight is torch.float32, allowed: torch.int8"),
    "wide scales": (changed("wscales", Tensor.float), "wscales are torch.float32: only INT4"),
    "half": (lambda t: t.pop("0.qweight"), "0 has 'wscales' but no 'qweight': half a linear|0 has '"),
    "four axes": (changed("wscales", lambda t: t[None, None]), r"wscales is \(1, 1, 1, 128\)|wscales is"),
    "no branch": (lambda t: t.pop("0.proj_up"), "the linear has no 'proj_up'"),
    "both names": (added("lora_up", torch.zeros(128, 16)), "has 'proj_up' twice"),
    "NVFP4": (added("wtscale", torch.ones(1)), "has 'wtscale', which INT4 SVDQuant has not"),
    "AWQ": (added("wzeros", torch.ones(1)), "has 'wzeros', which INT4 SVDQuant has not"),
    "8 ranks": (low_rank(8), r"proj_down is \(128, 8\), its ranks are no multiple of 16"),
    "scales twice": (added("wcscales", torch.ones(128)), "has 'wcscales', which INT4 SVDQuant has not"),
    "no scales": (lambda t: t.pop("0.wscales"), "the linear has no 'wscales'"),
    "no smoothing": (lambda t: t.pop("0.smooth_factor"), "the linear has no 'smooth_factor'"),
    "negative": (changed("wscales", Tensor.neg), "wscales has negative values"),
    "zero smoothing": (changed("smooth_factor", torch.zeros_like), "values that are not positive"),
    **{f"scalar {k}": (changed(k, lambda t: t.flatten()[0]), f"{k}|proj") for k in ("qweight", *FLOATS)},
    **{f"NaN {k}": (changed(k, lambda t: t * torch.nan), f"0: {k} has values that are NaN") for k in FLOATS},
    **{f"int {k}": (changed(k, Tensor.int), "torch.int32") for k in FLOATS},
    **{f"float {k}": (changed(k, Tensor.float), f"{k} .*torch.float32") for k in FLOATS},
}


def saved(tensors: Tensors, file: Path, config: str | None = None) -> Path:
    save_file(tensors, file, metadata=None if config is None else {"quantization_config": config})
    return file


def refused(act: Callable[[], Any], says: str) -> None:
    with pytest.raises(quant.InputError, match=says) as caught:
        act()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_linears_are_refused_in_one_line(damage: str, whole: Path, tmp_path: Path) -> None:
    tensors = load_file(whole)
    change, says = DAMAGE[damage]
    change(tensors)
    file = saved(tensors, tmp_path / "m.safetensors")
    refused(lambda: read_nunchaku(file, SHAPES), says)
    refused(lambda: read_nunchaku(file, bare()), says)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "quantization_config in the header is not a JSON object"),
        ("[]", "quantization_config in the header is not a JSON object"),
        ({"unsigned_layers": 5}, "unsigned_layers in the header is 5, not a list"),
        ({"unsigned_layers": None}, "unsigned_layers in the header is None, not a list"),
        ({"unsigned_layers": [["0"]]}, "not a list of linears"),
        ({"unsigned_layers": ["1"]}, "names '1', which the file lacks"),
        ({"weight": {"dtype": "fp4_e2m1_all", "group_size": 16}}, "weight dtype is 'fp4_e2m1_all'"),
        ({"activation": {"dtype": "int4", "group_size": 128}}, "group_size is 128 in the header, only 64"),
        ({"weight": 4}, "weight dtype is 4"),
    ],
)
def test_headers_of_other_formats_are_refused(config: Any, says: str, whole: Path, tmp_path: Path) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    file = saved(load_file(whole), tmp_path / "m.safetensors", text)
    refused(lambda: read_nunchaku(file, SHAPES), says)


def test_shapes_ranks_and_types_that_the_layout_has_not(whole: Path, tmp_path: Path) -> None:
    refused(lambda: read_nunchaku(whole, {"0": (N, K, 1, 1), "2": (K, N)}), "only .N, K. is read")
    model = quantized()
    tensors = to_nunchaku(quant_layers(model)["0"])
    refused(lambda: from_nunchaku(tensors, (N, K), rank=17), "rank is 17, the linear's branch has 0 to 16")
    for act in (
        lambda: export_nunchaku(model, tmp_path / "m.safetensors", torch.float32),
        lambda: to_nunchaku(quant_layers(model)["0"], torch.float32),
    ):
        refused(act, r"dtype torch\.float32 has no place .* allowed: torch\.bfloat16, torch\.float16")
    quant_layers(model)["0"].branch.up.fill_(1e6)
    says = "0: proj_up of this layer is not finite in float16"
    refused(lambda: export_nunchaku(model, tmp_path / "m.safetensors", torch.float16), says)
    assert not list(tmp_path.iterdir())


def test_equal_models_give_equal_bytes(whole: Path, tmp_path: Path) -> None:
    for index in range(8):  # safetensors shuffles two keys anew in each call
        export_nunchaku(quantized(), tmp_path / f"{index}.safetensors")
        assert (tmp_path / f"{index}.safetensors").read_bytes() == whole.read_bytes()
    with safe_open(whole, "pt") as file:
        assert list(file.metadata()) and json.loads(file.metadata()["quantization_config"])["rank"] == 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_imports_run_in_the_type_of_the_bare_model(dtype: torch.dtype, whole: Path) -> None:
    model = bare().to(dtype)
    install_(model, read_nunchaku(whole, model), keep_originals=False)
    x = torch.randn(3, K)
    with torch.no_grad():
        out, expected = model(x.to(dtype)), quantized()(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))


def test_a_linear_without_a_bias_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    export_nunchaku(quantized(bias=False), file)
    model = bare(bias=False)
    install_(model, read_nunchaku(file, model))
    assert all(layer.bias is None for layer in quant_layers(model).values())
    export_nunchaku(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    export_nunchaku(quantized(), file)
    refused(lambda: read_nunchaku(file, model), "0: it has a bias and the model's linear has none")


def test_a_bias_that_the_file_lacks_is_zero(whole: Path, tmp_path: Path) -> None:
    tensors = load_file(whole)
    del tensors["0.bias"]
    results = read_nunchaku(saved(tensors, tmp_path / "m.safetensors"), bare())
    assert results["0"].bias is not None and not results["0"].bias.any()


def test_an_import_has_no_ledger_and_says_so(whole: Path, tmp_path: Path) -> None:
    model = bare()
    install_(model, read_nunchaku(whole, model))
    refused(lambda: quant.export(model, tmp_path / "m.safetensors"), "use quant.interop.export_nunchaku")
    assert export_nunchaku(model, tmp_path / "n.safetensors") == {}


class EngineLinear(nn.Module):
    """Names, shapes and types of the parameters of the engine's Python class for INT4; nothing else of it."""

    def __init__(self, k: int, n: int, rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        shapes = {
            "wscales": (k // 64, n), "bias": (n,), "smooth_factor": (k,), "smooth_factor_orig": (k,),
            "proj_down": (k, rank), "proj_up": (n, rank),
        }  # fmt: skip
        self.qweight = nn.Parameter(torch.empty(n, k // 2, dtype=torch.int8), requires_grad=False)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=dtype)))


@pytest.mark.parametrize("ranks", [(3, 20), (0, 0), (0, 16)])
def test_the_engines_class_loads_what_is_written(ranks: tuple[int, int], tmp_path: Path) -> None:
    """All linears have one rank, as its class; the header has the config that it builds the model from."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(**SMALL)
    names = ("to_q", "to_k")
    path = "mid_block.attentions.0.transformer_blocks.0.attn1"
    results = {}
    for leaf, rank in zip(names, ranks, strict=True):
        weight = model.get_parameter(f"{path}.{leaf}.weight")
        results[f"{path}.{leaf}"] = LayerResult(
            EncodedWeight.from_weight(weight, int_quantizer(4, "group", 64), "linear_weight"),
            int_quantizer(4, "group", 64),
            branch=LowRank(torch.randn(rank, 128), torch.randn(128, rank)) if rank else None,
        )
    install_(model, results)
    export_nunchaku(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    again = UNet2DConditionModel.from_config(config)
    assert config["_class_name"] == metadata["model_class"] == "UNet2DConditionModel"
    assert dict(again.config)["block_out_channels"] == [128, 128]
    rank = json.loads(metadata["quantization_config"])["rank"]
    assert rank == -(-max(ranks) // 16) * 16
    for leaf in names:
        setattr(again.get_submodule(path), leaf, EngineLinear(128, 128, rank, torch.bfloat16))
    again.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    linear = again.get_submodule(f"{path}.to_q")
    assert torch.equal(linear.smooth_factor_orig, linear.smooth_factor)
    back = read_nunchaku(tmp_path / "m.safetensors", UNet2DConditionModel(**SMALL))
    assert set(back) == set(results)
    assert [getattr(r.branch, "down", torch.empty(0, 1)).shape[0] for r in back.values()] == [rank, rank]


SMALL: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (128, 128),
    "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8, "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


def written_by_the_packer(ones: bool, branch: bool, one_group: bool) -> tuple[Tensors, LayerResult]:
    """One linear as the engine's packer writes it: biases filled with 1, channel scales, no branch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(K, N))
    quantizer = int_quantizer(4, "group", 64)
    encoded = EncodedWeight.from_weight(model[0].weight, quantizer, "linear_weight")
    side = LowRank(torch.randn(16, K).bfloat16(), torch.randn(N, 16).bfloat16()) if branch else None
    install_(model, {"0": LayerResult(encoded, quantizer, branch=side)})
    tensors = to_nunchaku(quant_layers(model)["0"])
    if ones:
        bias = order.unpack_vector(tensors["bias"])
        bias[N:] = 1
        tensors["bias"] = order.pack_vector(bias)
    if not branch:
        del tensors["proj_down"], tensors["proj_up"]
    if one_group:
        del tensors["wscales"]
        scale = torch.nn.functional.pad(encoded.params["scale"].flatten(), (0, 128 - N), value=1)
        tensors["wcscales"] = order.pack_vector(scale)
    return tensors, LayerResult(encoded, branch=side, bias=model[0].bias)


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("one_group", [False, True])
def test_what_the_packer_writes_is_read(ones: bool, branch: bool, one_group: bool) -> None:
    tensors, wanted = written_by_the_packer(ones, branch, one_group)
    found = from_nunchaku(tensors, (N, K))
    assert torch.equal(found.weight.packed, wanted.weight.packed)
    assert torch.equal(found.weight.params["scale"], wanted.weight.params["scale"])
    assert torch.equal(found.bias, wanted.bias.detach().bfloat16())
    assert (found.branch is None) == (not branch)
    if branch:
        assert torch.equal(found.branch.down, wanted.branch.down)


def test_channel_scales_hold_for_every_group() -> None:
    model = nn.Sequential(nn.Linear(200, N))
    encoded = EncodedWeight.from_weight(model[0].weight, int_quantizer(4, "group", 256), "linear_weight")
    parts = {"scale": encoded.params["scale"].repeat(1, 4, 1)}
    grouped = EncodedWeight.from_codes(encoded.codes(), int_quantizer(4, "group", 64), "linear_weight", parts)
    install_(model, {"0": LayerResult(grouped, int_quantizer(4, "group", 64))})
    tensors = to_nunchaku(quant_layers(model)["0"])
    del tensors["wscales"]
    scale = torch.nn.functional.pad(encoded.params["scale"].flatten(), (0, 128 - N), value=1)
    found = from_nunchaku({**tensors, "wcscales": order.pack_vector(scale)}, (N, 200))
    assert torch.equal(found.weight.decode(), encoded.decode())


def test_layers_without_a_place_keep_what_they_compute(tmp_path: Path) -> None:
    """A shifted input whose weight has another format: the float layer gets the bias that belongs to it."""
    torch.manual_seed(0)
    model = bare()
    eight = EncodedWeight.from_weight(model[2].weight, int_quantizer(8, "channel"), "linear_weight")
    four = EncodedWeight.from_weight(model[0].weight, int_quantizer(4, "group", 64), "linear_weight")
    install_(model, {
        "0": LayerResult(four, int_quantizer(4, "group", 64)),
        "2": LayerResult(eight, transform=Smooth(torch.rand(N) + 0.5, shift=SHIFT)),
    })  # fmt: skip
    assert list(export_nunchaku(model, tmp_path / "m.safetensors")) == ["2"]
    tensors, x = load_file(tmp_path / "m.safetensors"), torch.randn(5, N)
    out = nn.functional.linear(x, tensors["2.weight"].float(), tensors["2.bias"].float())
    torch.testing.assert_close(out, model[2](x).detach(), rtol=0.02, atol=0.02)
    bare_model = bare()
    drop = SinkDrop(torch.ones(N), torch.tensor([0]))
    install_(
        bare_model,
        {"0": LayerResult(four, int_quantizer(4, "group", 64)), "2": LayerResult(eight, transform=drop)},
    )
    with pytest.raises(quant.InputError, match=r"2: this layer has no weight of one piece.*exclude it"):
        export_nunchaku(bare_model, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()
