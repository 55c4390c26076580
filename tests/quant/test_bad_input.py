"""The table of bad input: one clear line, the right exit code, the model as it was, bit for bit.

What is unusual and not wrong (sizes that no group divides, zero and constant weights) stands beside it: it
works, and the plan says what was done. Rows that concern methods are tried with a preset of every one.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from quant.denoisers.inventory import find_layers
from quant.methods.mixdq.allocate import allocate
from quant.methods.mixdq.search import decoupled
from quant.registry import get_method, get_preset

METHODS = quant.list_methods()
PLAIN = [p for p in quant.list_presets() if not p.endswith("-branch")]  # those need more sampler steps
PRESET = {m: next(p for p in PLAIN if get_preset(p).method == m) for m in METHODS}
CALIBRATED = [m for m in METHODS if get_method(m).info.needs_calibration]
SHORT = {
    "iterations": 2, "samples": 2, "points": 6, "calibration_points": 6, "batch_size": 2, "steps": 2,
    "rows": 32, "smooth_points": 3, "feature_samples": 2, "clips": 8, "values": 512,
    "train_steps": 2, "train_rows": 2, "calibration_rows": 4, "held_out_rows": 0, "probe_rows": 1,
}  # fmt: skip


def recipe(method: str):
    """Return the method's first preset, with little work."""
    _, chosen, config = quant.recipes.resolve(PRESET[method])
    return config.model_copy(update={k: v for k, v in SHORT.items() if k in chosen.config.model_fields})


@torch.no_grad()
def predicted(model: nn.Module, recording: quant.Trajectories) -> torch.Tensor:
    sample = recording.sample(0)
    time = torch.tensor([recording.timesteps[0]])
    return quant.recordings.sampling.predict(model, sample["x"][:1], time, sample["condition"][None])


def refused(model: nn.Module, act: Callable[[], object], says: str, code: int = 2) -> None:
    """`act` fails with one line and an exit code; the model is bitwise the same, with no hook left."""
    before = copy.deepcopy(model.state_dict())
    kinds = [type(module) for module in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises((quant.InputError, quant.MissingDataError), match=says) as caught:
        act()
    assert "\n" not in str(caught.value) and caught.value.exit_code == code
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8)), name
    assert [type(module) for module in model.modules()] == kinds
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_weight_that_is_not_finite(method: str, value: float, family, store) -> None:
    model = family.build("unet")
    model.mid_block.resnets[0].conv1.weight.data[3, 4, 1, 1] = value
    says = r"'mid_block\.resnets\.0\.conv1\.weight' has 1 of 9216 values that are NaN or infinite: repair"
    refused(model, lambda: quant.quantize_(model, recipe(method), trajectories=store("unet")), says)


@pytest.mark.parametrize("method", CALIBRATED)
def test_no_recording(method: str, family) -> None:
    model = family.build("unet")
    refused(model, lambda: quant.quantize_(model, PRESET[method]), r"make them with quant\.record", 4)


@pytest.mark.parametrize("method", CALIBRATED)
def test_a_recording_of_another_model(method: str, family, store) -> None:
    from diffusers import UNet2DConditionModel

    model = family.build("unet")
    config = {k: v for k, v in model.config.items() if not k.startswith("_")}
    for change, says in (
        ({"in_channels": 3}, "its samples have 4 channels, UNet2DConditionModel takes 3"),
        ({"cross_attention_dim": 16}, "it has conditions of width 24, .* takes tokens of width 16"),
    ):
        other = UNet2DConditionModel(**{**config, **change})
        refused(other, lambda m=other: quant.quantize_(m, recipe(method), trajectories=store("unet")), says)
    path = str(store("unet").path)
    refused(model, lambda: quant.quantize_(model, recipe(method), trajectories=path), "must be quant.Traj", 4)


def test_recordings_that_cannot_be_read(family, store, tmp_path: Path) -> None:
    model = family.build("unet")
    refused(model, lambda: quant.Trajectories.open(tmp_path), "no trajectories at .*: make them", 4)
    for name in ("manifest.json", "shard-000000.safetensors"):
        (tmp_path / name).write_bytes((store("unet").path / name).read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": manifest["settings"]}))
    refused(model, lambda: quant.Trajectories.open(tmp_path), "is not finished: run quant.record again", 4)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shard = tmp_path / "shard-000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(model, lambda: quant.Trajectories.open(tmp_path), "missing or damaged .*: record", 4)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_quantized_already(method: str, family, store, tmp_path: Path) -> None:
    model = family.build("unet")
    quant.quantize_(model, "rtn-w8a8")
    file = quant.export(model, tmp_path / "m.safetensors")
    says = r"already quantized \(\d+ layers, the first is .*quant\.restore_"
    refused(model, lambda: quant.quantize_(model, recipe(method), trajectories=store("unet")), says)
    refused(model, lambda: quant.plan(model, recipe(method)), says)
    refused(model, lambda: quant.load(file, model), says)


def edited(file: Path, change: Callable[[dict], None]) -> None:
    """Change the header of a quantized file."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size])
    body = json.loads(head["__metadata__"]["brainit_lab_quant"])
    change(body)
    head["__metadata__"]["brainit_lab_quant"] = json.dumps(body)
    text = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 64
    file.write_bytes(data)


def one_layer_less(body: dict) -> None:
    body["ledger"]["layers"].pop()


def another_shape(body: dict) -> None:
    body["ledger"]["layers"][3]["shape"][0] += 1


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]), "truncated or not"),
    "empty": (lambda f: f.write_bytes(b""), "truncated or not a safetensors file"),
    "a picture": (lambda f: f.write_bytes(b"\x89PNG\r\n\x1a\n" * 9), "truncated or not a safetensors file"),
    "a tensor's bit": (flipped, "do not match the digest"),
    "a layer less": (lambda f: edited(f, one_layer_less), "it has no layer|has .* that the model lacks"),
    "a layer's shape": (lambda f: edited(f, another_shape), "is for another architecture"),
    "the digest": (lambda f: edited(f, lambda b: b.update(digest="0" * 64)), "do not match the digest"),
    "the format": (lambda f: edited(f, lambda b: b.update(format=99)), "has format 99, this version reads"),
}


@pytest.fixture(scope="module")
def whole(family, tmp_path_factory) -> bytes:
    """A quantized file without damage."""
    model = family.build("unet")
    quant.quantize_(model, "rtn-w4a8")
    return quant.export(model, tmp_path_factory.mktemp("whole") / "m.safetensors").read_bytes()


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_are_damaged_or_edited(damage: str, family, whole: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(whole)
    change, says = DAMAGE[damage]
    change(file)
    bare = family.build("unet", seed=5)
    refused(bare, lambda: quant.load(file, bare), says)


def test_a_budget_that_no_allocation_meets(family) -> None:
    model = family.build("unet")
    layers = [layer.name for layer in find_layers(model)]
    scores = {name: {2: 1.0, 4: 2.0, 8: 3.0} for name in layers}
    costs = {name: {2: 100.0, 4: 200.0, 8: 400.0} for name in layers}
    least = 100 * len(layers)
    says = rf"no allocation meets the budget of .* bytes: the cheapest takes {least:,}; raise the budget"
    refused(model, lambda: allocate(scores, costs, least - 1), says)
    content = {name: scores[name] for name in layers[:4]}
    quality = {name: scores[name] for name in layers[4:]}
    refused(
        model, lambda: decoupled(content, quality, costs, least - 1), "no split of .* bytes|no allocation"
    )


BAD_CALLS: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "preset": (lambda m: quant.quantize_(m, "rtn-w8a9"), "did you mean 'rtn-w8a8'"),
    "setting": (lambda m: quant.quantize_(m, "rtn-w8a8", overrides={"*": {"bits": 3}}), "bits = 3.*fields: "),
    "value": (
        lambda m: quant.quantize_(m, "rtn-w8a8", overrides={"*": {"weight_bits": 99}}),
        "weight_bits = 99",
    ),
    "pattern": (lambda m: quant.quantize_(m, "rtn-w8a8", exclude=["mid*conv9"]), "matches none of"),
    "recipe": (lambda m: quant.quantize_(m, 8), "a recipe is a preset name or a method's config, got int"),
    "file": (lambda m: quant.quantize_(m, "no.yaml"), "no preset file"),
    "export": (lambda m: quant.export(m, "m.safetensors"), "not quantized: call quant.quantize_"),
    "pipeline": (
        lambda m: quant.quantize_(object(), "rtn-w8a8"),
        "got object: of a pipeline give its denoiser",
    ),
    "load, the other way round": (
        lambda m: quant.load(m, "m.safetensors"),
        "the file comes first, then the model",
    ),
    "scheduler": (
        lambda m: quant.record(m, None, None, "r", n_steps=1),
        "scheduler must be an object of diffusers.*NoneType",
    ),
    "restore": (lambda m: quant.restore_(m), "not quantized: there is nothing to restore"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_calls_that_ask_for_what_is_not_there(case: str, family) -> None:
    act, says = BAD_CALLS[case]
    model = family.build("unet")
    refused(model, lambda: act(model), says, 4 if case == "file" else 2)


@pytest.mark.parametrize("method", METHODS)
def test_sizes_that_no_group_divides_work_and_are_named(method: str, family, store) -> None:
    """PixArt of width 36 with 144 hidden: less than a group of 64, and two groups and a rest."""
    model = family.build("pixart")
    planned = quant.plan(model, recipe(method), trajectories=store("pixart"))
    for line in planned.quantized:
        size = line.weight.granularity.group_size
        if size and line.shape[1] % size:
            assert f"last group has {line.shape[1] % size} of {size}" in (line.reason or ""), line.name
    quant.quantize_(model, recipe(method), trajectories=store("pixart"))
    assert bool(torch.isfinite(predicted(model, store("pixart"))).all())


CONSTANT = {
    "mid_block.resnets.0.conv1": 0.0, "mid_block.resnets.0.conv2": 0.25,
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 0.0,
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_k": -0.03,
}  # fmt: skip
AROUND = ["mid_block.*", "conv_in", "up_blocks.0.resnets.0.*"]
"""These layers, their block, and one of each other kind."""


@pytest.mark.parametrize("method", METHODS)
def test_zero_and_constant_weights_the_files_size_and_other_architectures(
    method: str, family, store, tmp_path: Path
) -> None:
    model, recording = family.build("unet"), store("unet")
    for name, value in CONSTANT.items():
        nn.init.constant_(model.get_parameter(f"{name}.weight"), value)
    planned = quant.plan(model, recipe(method), trajectories=recording, include=AROUND)
    ledger = quant.quantize_(model, recipe(method), trajectories=recording, include=AROUND)
    records = {record.name: record for record in ledger.layers}
    assert all(math.isfinite(records[name].weight_sqnr_db or 0.0) for name in CONSTANT)
    assert bool(torch.isfinite(predicted(model, recording)).all())

    file = quant.export(model, tmp_path / "m.safetensors")
    size = struct.unpack("<Q", file.read_bytes()[:8])[0]
    assert ledger.bytes_header == 8 + size and ledger.bytes_file == file.stat().st_size
    tensors = file.stat().st_size - 8 - size
    assert tensors == ledger.bytes_after == planned.bytes_after == sum(ledger.by_category().values())

    with torch.device("meta"):
        bare = family.build("unet")
    quant.load(file, bare)
    assert torch.equal(predicted(bare, recording), predicted(model, recording))
    other = family.build("pixart")
    says = r"is for another architecture \(UNet2DConditionModel\): .*PixArtTransformer2DModel"
    refused(other, lambda: quant.load(file, other), says)
    refused(
        model, lambda: quant.load(tmp_path / "none.safetensors", family.build("unet")), "no checkpoint", 4
    )
