"""Headers that were edited, with and without a right digest, and files for other settings of one class."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import quant
from quant.checkpoint.header import KEY, Header, digest
from quant.denoisers.inventory import find_layers
from quant.formats.quantizer import int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.attachments import LowRank, Smooth
from quant.layers.attention import AttentionFormat
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers, state_of
from quant.layers.rotations import Rotate
from quant.layers.sinks import SinkDrop, SinkRow
from quant.plans.ledger import LayerRecord


class Small(nn.Module):
    """One layer for each kind of part, a norm that is not quantized, and a config."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = {"act_fn": "silu", "flip": True, "heads": (2, 4), "_name_or_path": "x", **config}
        self.norm = nn.LayerNorm(16)
        for name in ("smooth", "turned", "blocks", "sink", "timed"):
            setattr(self, name, nn.Linear(16, 8))
        self.conv = nn.Conv2d(4, 6, 3)

    def forward(self, x: torch.Tensor, timestep: float = 1.0) -> torch.Tensor:
        x = self.norm(x)
        names = ("smooth", "turned", "blocks", "sink", "timed")
        return sum(getattr(self, name)(x) for name in names)  # type: ignore[return-value]


def results(model: Small) -> dict[str, LayerResult]:
    """A part of every kind, with values that have no other meaning."""
    found = {}
    for layer in find_layers(model):
        layout = "conv_weight" if layer.kind == "Conv2d" else "linear_weight"
        weight = model.get_submodule(layer.name).weight
        found[layer.name] = LayerResult(
            EncodedWeight.from_weight(weight, int_quantizer(4, "group", 8), layout),  # type: ignore[arg-type]
            int_quantizer(8, "token"),
        )
    found["smooth"].transform = Smooth(torch.rand(16) + 0.5)
    found["smooth"].branch = LowRank(torch.randn(2, 16), torch.randn(8, 2))
    found["turned"].transform = Rotate(16, signed=True, seed=3)
    order = torch.randperm(16).to(torch.int16)
    found["blocks"].transform = Rotate(16, order=order, block=8, moves=([1, 2], [3]), seed=4)
    token, position = torch.randn(16), torch.zeros(1, dtype=torch.int64)
    found["sink"].transform = SinkDrop(token, position)
    found["sink"].branch = SinkRow(token.clone(), position.clone(), torch.randn(8), torch.randn(8))
    found["timed"].activation = int_quantizer(8, "tensor", schedule=Schedule(kind="timestep"))
    found["timed"].activation_params = {"scale": torch.rand(2, 1, 1, 1) + 0.1}
    found["timed"].timesteps = torch.tensor([1.0, 9.0])
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Small()
    planned, made = quant.plan(model, "rtn-w4a8"), results(model)
    records = []
    for line in planned.layers:
        formats = {"weight": made[line.name].weight.quantizer, "activation": made[line.name].activation}
        records.append(LayerRecord(**{**line.model_dump(), **formats}))
    ledger = quant.Ledger(**{**planned.model_dump(exclude={"layers"}), "layers": records})
    install_(model, made).ledger = ledger
    return quant.export(model, tmp_path_factory.mktemp("whole") / "m.safetensors")


def edited(file: Path, target: Path, change: Callable[[dict[str, Any]], object], sign: bool) -> Path:
    """A copy with another header, whose digest is made right if `sign`."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size])
    body = json.loads(head["__metadata__"][KEY])
    change(body)
    if sign:
        body["digest"] = digest(Header.model_validate(body), load_file(file))
    head["__metadata__"][KEY] = json.dumps(body)
    text = json.dumps(head).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return target


def refused(file: Path, model: nn.Module, says: str) -> None:
    """One line, exit code 2, and not one tensor or module of the model another."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules, attributes = list(model.named_modules()), set(model.__dict__)
    with pytest.raises(quant.InputError, match=says) as caught:
        quant.load(file, model)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(after) == list(tensors) and all(after[name] is tensors[name] for name in tensors)
    assert list(model.named_modules()) == modules and set(model.__dict__) == attributes


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for key in path[:-1]:
            body = body[key]
        del body[path[-1]]

    return change


def first_layer_twice(body: dict[str, Any]) -> None:
    body["ledger"]["layers"].append(body["ledger"]["layers"][0])


def test_a_file_of_every_part_loads_and_is_written_again(whole: Path, tmp_path: Path) -> None:
    model = Small()
    model.norm.weight.requires_grad_(False)
    quant.load(whole, model)
    assert quant.export(model, tmp_path / "model.safetensors").read_bytes() == whole.read_bytes()
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())
    assert not model.norm.weight.requires_grad and model.norm.bias.requires_grad
    with pytest.raises(quant.InputError, match="already quantized"):
        quant.load(whole, model)
    assert quant.load(tmp_path, Small()).recipe == "rtn-w4a8"  # a folder of the command
    untouched = edited(whole, tmp_path / "m.safetensors", lambda body: None, sign=False)
    quant.load(untouched, Small())  # other spacing of the same JSON


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "recipe": put("ledger", "recipe", value="fp8-fp8"),
    "seed": put("ledger", "seed", value=77),
    "trajectories": put("ledger", "trajectories", value="0" * 64),
    "versions": put("ledger", "versions", value={"torch": "9"}),
    "mode of a format": put("ledger", "formats", 0, "grid", "mode", value="unsigned"),
    "note": put("ledger", "layers", 0, "notes", value={"alpha": 1}),
    "seed of a rotation": put("parts", "turned", "transform", "seed", value=5),
    "shift": put("parts", "smooth", "transform", "shift", value=0.5),
    "dtype": put("parts", "smooth", "dtype", value="float16"),
    "a setting": put("architecture", "config", "unknown", value=1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_digest_covers_the_header(edit: str, whole: Path, tmp_path: Path) -> None:
    file = edited(whole, tmp_path / "m.safetensors", EDITS[edit], sign=False)
    refused(file, Small(), "header and tensors do not match the digest: damaged or edited")


SIGNED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (put("format", value=1), "has format 1, this version reads 2: quantize the model and"),
    "stranger": (put("surprise", value=1), "damaged header .surprise: extra"),
    "list": (put("ledger", value=[]), "damaged header .ledger"),
    "no layers": (drop("ledger", "layers"), "damaged ledger"),
    "layers": (put("ledger", "layers", value=[5]), "damaged ledger"),
    "twice": (first_layer_twice, "damaged ledger, a layer is listed twice"),
    "no parts": (drop("parts", "smooth"), "layer 'smooth' has no parts"),
    "other parts": (put("parts", "norm", value={"dtype": "float32", "weight_params": []}), "not quantized"),
    "layer's type": (put("parts", "timed", "dtype", value="int8"), "unknown dtype 'int8'"),
    "missing": (put("parts", "smooth", "timesteps", value=True), "'smooth.input_quantizer.timesteps' is"),
    "no table": (put("parts", "timed", "timesteps", value=False), "needs a table of timesteps"),
    "no scale": (put("parts", "smooth", "weight_params", value=[]), "'scale' is nothing, expected"),
    "zero point": (
        put("parts", "timed", "activation_params", value=["scale", "timesteps"]),
        r"input ranges are \['scale', 'timesteps'\], its format has",
    ),
    "group": (put("ledger", "formats", 0, "granularity", "group_size", value=10**12), "at most 4096"),
    "input by channel": (put("ledger", "formats", 1, "granularity", value={"kind": "channel"}), "its input"),
    "no input": (put("ledger", "layers", 4, "activation", value=None), "ranges but no input format"),
    "static": (put("ledger", "formats", 1, "schedule", "kind", value="static"), r"are \[\], its format"),
    "by token": (put("ledger", "formats", 0, "granularity", value={"kind": "token"}), "scales by token"),
    "attention": (put("ledger", "attention", value={"norm": AttentionFormat().model_dump()}), "no attention"),
    "kind": (put("parts", "smooth", "transform", "kind", value="twirl"), "transform 'twirl' in the"),
    "kind's type": (put("parts", "smooth", "transform", "kind", value=[]), "unknown transform"),
    "role": (put("parts", "smooth", "branch", "kind", value="smooth"), "unknown branch 'smooth'"),
    "empty": (put("parts", "smooth", "transform", value={}), "unknown transform None"),
    "axis": (put("parts", "smooth", "transform", "channel_axis", value=7), "damaged: channel_axis"),
    "other axis": (put("parts", "smooth", "transform", "channel_axis", value=1), "channel_axis is 1, not -1"),
    "turned": (put("parts", "turned", "transform", "channel_axis", value=1), "channel_axis is 1, not -1"),
    "no axis": (drop("parts", "smooth", "transform", "channel_axis"), "channel_axis: field required"),
    "shift": (put("parts", "smooth", "transform", "shift", value="x"), "damaged: shift"),
    "no shapes": (drop("parts", "smooth", "transform", "shapes"), "shapes: field required"),
    "huge": (put("parts", "smooth", "transform", "shapes", "factor", value=[10**12]), "expected .16,"),
    "huge rank": (put("parts", "smooth", "branch", "shapes", "down", value=[10**12, 16]), "is damaged"),
    "other rank": (
        put("parts", "smooth", "branch", "shapes", value={"down": [3, 16], "up": [8, 3]}),
        r"is \(2, 16\) in the file, \(3, 16\) in the header",
    ),
    "rank 0": (
        put("parts", "smooth", "branch", "shapes", value={"down": [0, 16], "up": [8, 0]}), "is damaged"
    ),
    "no block": (put("parts", "blocks", "transform", "block", value=0), "block is 0, not a power of two"),
    "no rank": (put("parts", "smooth", "branch", "shapes", "down", value=[]), "is damaged"),
    "no tensor": (drop("parts", "smooth", "branch", "shapes", "up"), "'up' is None, expected"),
    "one more": (put("parts", "sink", "branch", "shapes", "factor", value=[8]), "'factor' is .8,."),
    "count": (put("parts", "turned", "transform", "count", value=10**12), "of 16"),
    "seed": (put("parts", "turned", "transform", "seed", value=2**80), "damaged: seed"),
    "block": (put("parts", "blocks", "transform", "block", value=12), "block is 12, not a power of two"),
    "chains": (put("parts", "blocks", "transform", "moves", value=[[1]]), "damaged: moves"),
    "moves": (put("parts", "blocks", "transform", "moves", value=[[1], [8]]), "outside of its block of 8"),
    "row": (put("parts", "sink", "branch", "shapes", "row", value=[1]), r"'row' is \(1,\), expected \(8,\)"),
}  # fmt: skip


@pytest.mark.parametrize("edit", SIGNED)
def test_headers_with_a_right_digest_are_checked_too(edit: str, whole: Path, tmp_path: Path) -> None:
    change, says = SIGNED[edit]
    sign = edit not in ("stranger", "list")  # no header at all: nothing to sign
    refused(edited(whole, tmp_path / "m.safetensors", change, sign), Small(), says)


def test_values_that_no_part_can_use(whole: Path, tmp_path: Path) -> None:
    model = Small()
    quant.load(whole, model)
    layers = quant_layers(model)
    for damage, says in (
        (lambda: layers["smooth"].transform.factor.__setitem__(0, 0.0), "'factor' .* must be positive"),
        (lambda: layers["smooth"].branch.up[0].fill_(float("nan")), "'smooth.branch.up' holds NaN or inf"),
        (lambda: layers["sink"].transform.position.fill_(-2), "'position' .* must be one int64 of at least"),
        (lambda: layers["blocks"].transform.order.fill_(3), "'order' .* permutation"),
        (lambda: layers["timed"].input_quantizer.scale.fill_(float("inf")), "scale' holds NaN or infinite"),
        (lambda: layers["turned"].weight_scale.fill_(float("nan")), "'turned.weight_scale' holds NaN or inf"),
        (lambda: model.norm.weight.data.fill_(float("inf")), "'norm.weight' holds NaN or infinite values"),
    ):
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        damage()
        refused(quant.export(model, tmp_path / "m.safetensors"), Small(), says)
        for name, tensor in model.state_dict().items():
            tensor.copy_(kept[name])


def rewritten(file: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy with other tensors, whose digest is right."""
    tensors, header = load_file(file), quant.read_header(file)
    change(tensors)
    header.digest = digest(header, tensors)
    save_file(tensors, target, metadata={KEY: header.to_text()})
    return target


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "one less": (lambda t: t.pop("norm.bias"), "for another architecture: it lacks 'norm.bias'"),
    "one more": (lambda t: t.update(more=torch.zeros(2)), "it has 'more' that the model lacks"),
    "shape": (lambda t: t.update({"norm.bias": torch.zeros(8)}), r"'norm.bias' is \(8,\) in the file"),
    "type": (lambda t: t.update({"norm.bias": torch.zeros(16).int()}), "int32 in the file, torch.float32 in"),
    "no bias": (lambda t: t.pop("smooth.bias"), "only one of them has a bias in 'smooth'"),
    "bias": (lambda t: t.update({"smooth.bias": torch.zeros(16)}), r"its bias is torch.float32 \(16,\), exp"),
    "no codes": (lambda t: t.pop("conv.codes"), "'conv': tensor 'conv.codes' is missing"),
    "codes": (lambda t: t.update({"conv.codes": t["conv.codes"][1:]}), "its codes are torch.uint8"),
    "table": (
        lambda t: t.update({"timed.input_quantizer.timesteps": torch.tensor([1, 9])}), "int64 .2,., not num"
    ),
    "longer table": (
        lambda t: t.update({"timed.input_quantizer.timesteps": torch.arange(3.0)}), "for each of 3 timesteps"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_do_not_belong_together(change: str, whole: Path, tmp_path: Path) -> None:
    """Each with a right digest, as a file of a later version or another tool may have."""
    refused(rewritten(whole, tmp_path / "m.safetensors", TENSORS[change][0]), Small(), TENSORS[change][1])


def test_a_failure_after_the_checks_is_undone(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(model: nn.Module, formats: object) -> None:
        assert quant_layers(model) and state_of(model) is not None
        raise quant.InputError("too late")

    monkeypatch.setattr("quant.checkpoint.reading.install_attention_", late)
    model = Small()
    refused(whole, model, "too late")
    assert not model._forward_pre_hooks


def test_other_settings_of_the_same_shapes(whole: Path, tiny: Any, tmp_path: Path) -> None:
    says = r"architecture \(Small\): act_fn is 'silu' in the file, 'gelu' in this model, heads is \[2, 4\]"
    refused(whole, Small(act_fn="gelu", heads=(4, 2)), says)
    quant.load(whole, Small(_name_or_path="elsewhere", of_a_later_version=1))
    bare = Small()
    del bare.config
    quant.load(whole, bare)

    class Other(Small):
        pass

    refused(whole, Other(), "this model is a Other; build a Small")
    model = tiny.build("unet")
    quant.quantize_(model, "rtn-w8a8")
    file = quant.export(model, tmp_path / "u.safetensors")
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    assert set(config) <= set(quant.read_header(file).architecture.config or {})
    for change in ({"act_fn": "relu"}, {"flip_sin_to_cos": False}, {"attention_head_dim": 4}):
        says = f"is for another architecture .UNet2DConditionModel.: {next(iter(change))} is"
        refused(file, type(model)(**{**config, **change}), says)


def test_models_without_a_ledger_say_so(whole: Path, tmp_path: Path) -> None:
    model = Small()
    install_(model, results(model))
    with pytest.raises(quant.InputError, match=r"has no ledger .*: quant\.export writes what"):
        quant.export(model, tmp_path / "m.safetensors")


def test_other_peoples_files_are_named(tmp_path: Path) -> None:
    """Weights of a plain model, in the same format of file."""
    for metadata in (None, {"format": "pt"}):
        save_file({"norm.weight": torch.zeros(16)}, tmp_path / "m.safetensors", metadata=metadata)
        refused(tmp_path / "m.safetensors", Small(), "is not a quantized checkpoint of this project")
