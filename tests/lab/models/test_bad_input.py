"""The table of models that cannot be opened or quantized: one line, the exit code, nothing half-written."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from lab.cli.main import run

Capture = pytest.CaptureFixture[str]
Row = tuple[Callable[[Path], list[str]], str, int]
WEIGHTS = "diffusion_pytorch_model.safetensors"
LORA = {"lora_unet_down_blocks_0_x.lora_down.weight": torch.zeros(2, 4)}


def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )  # fmt: skip


def saved(tmp: Path, change: Callable[[Any], object] = lambda _: None) -> Path:
    """A tiny model's folder, after a change to the model."""
    model = unet()
    change(model)
    model.save_pretrained(tmp / "unet")
    return tmp / "unet"


def not_finite(tmp: Path) -> list[str]:
    return [str(saved(tmp, lambda m: m.conv_in.weight.data.view(-1)[:1].fill_(torch.nan)))]


def quantized_already(tmp: Path) -> list[str]:
    folder = saved(tmp)
    assert run(["quantize", str(folder), "--out", str(tmp / "first")]) == 0
    return [str(tmp / "first" / "model.safetensors"), "--architecture", str(folder)]


def options(*words: str) -> Callable[[Path], list[str]]:
    return lambda tmp: [str(saved(tmp)), *(word.replace("TMP", str(tmp)) for word in words)]


def recipe_file_that_is_no_preset(tmp: Path) -> list[str]:
    (tmp / "bad.yaml").write_text("title: x\n")
    return [str(saved(tmp)), "--recipe", str(tmp / "bad.yaml")]


def truncated(tmp: Path) -> list[str]:
    file = saved(tmp) / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    return [str(file.parent)]


def configured(**changes: object) -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        file = saved(tmp) / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return [str(file.parent)]

    return make


def config_text(text: str) -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        (saved(tmp) / "config.json").write_text(text)
        return [str(tmp / "unet")]

    return make


def name(word: str) -> Callable[[Path], list[str]]:
    return lambda tmp: [word.replace("TMP", str(tmp))]


def inside(file: str) -> Callable[[Path], list[str]]:
    return lambda tmp: [str(saved(tmp) / file)]


def file_of(name: str, data: bytes = b"\0" * 99) -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        (tmp / name).write_bytes(data)
        return [str(tmp / name), "--architecture", str(saved(tmp))]

    return make


def tensors_of(state: dict[str, torch.Tensor], **metadata: str) -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        save_file(state, tmp / "m.safetensors", metadata=metadata or None)
        return [str(tmp / "m.safetensors"), "--architecture", str(saved(tmp))]

    return make


def only(other: str) -> Callable[[Path], list[str]]:
    """A folder whose one weight file has another name."""

    def make(tmp: Path) -> list[str]:
        (saved(tmp) / WEIGHTS).rename(tmp / "unet" / other)
        return [str(tmp / "unet")]

    return make


def adapted(model: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q"]), model)


def adapter_file(tmp: Path) -> list[str]:
    folder = saved(tmp, adapted)
    return [str(folder / WEIGHTS), "--architecture", str(folder)]


def adapter_folder(tmp: Path) -> list[str]:
    (tmp / "adapter").mkdir()
    (tmp / "adapter" / "adapter_config.json").write_text("{}")
    save_file(LORA, tmp / "adapter" / "adapter_model.safetensors")
    return [str(tmp / "adapter")]


def lora_folder(tmp: Path) -> list[str]:
    (tmp / "lora").mkdir()
    save_file(LORA, tmp / "lora" / "pytorch_lora_weights.safetensors")
    return [str(tmp / "lora")]


def index_file(tmp: Path) -> list[str]:
    unet().save_pretrained(tmp / "s", max_shard_size="40KB")
    return [str(tmp / "s" / f"{WEIGHTS}.index.json")]


def notes(tmp: Path) -> list[str]:
    (tmp / "notes").mkdir()
    (tmp / "notes" / "notes.txt").write_text("no model")
    return [str(tmp / "notes")]


def prefixed(tmp: Path) -> list[str]:
    folder = saved(tmp)
    tensors = {f"model.diffusion_model.{k}": v for k, v in load_file(folder / WEIGHTS).items()}
    save_file(tensors, tmp / "orig.safetensors")
    return [str(tmp / "orig.safetensors"), "--architecture", str(folder)]


GGUF = b"GGUF" + struct.pack("<I", 3) + bytes(60)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
INT8 = {"conv_in.weight": torch.zeros(16, 2, 3, 3, dtype=torch.int8)}

TABLE: dict[str, Row] = {
    # what is inside does not fit
    "NaN in a weight": (not_finite, "'conv_in.weight' has 1 of", 2),
    "quantized already": (quantized_already, "holds a quantized model already", 2),
    "truncated": (truncated, "cannot be read as a diffusers model", 2),
    "another architecture": (configured(block_out_channels=[16, 32]), "expected shape", 2),
    "an unknown class": (configured(_class_name="UNet9DModel"), "'UNet9DModel' is no model class", 2),
    "a class that is no model": (configured(_class_name="DDIMScheduler"), "is no model class", 2),
    "config of another kind": (config_text("[1, 2]"), "holds a list, not the settings of a model", 2),
    "config cut short": (config_text("{"), "config.json is not JSON", 2),
    "whole numbers": (tensors_of(INT8), "not float16, bfloat16 or float32", 2),
    "codes of another tool": (tensors_of({"a.qweight": torch.zeros(2, 2)}), "quantized model already", 2),
    "names of an original repository": (prefixed, "must be converted to diffusers' names", 2),
    # adapters
    "saved with an adapter": (
        lambda tmp: [str(saved(tmp, adapted))], "was saved with an adapter in it (", 2,
    ),
    "a file with an adapter": (adapter_file, "model.unload_lora(), and save the model again", 2),
    "a folder that peft wrote": (adapter_folder, "is a LoRA that peft wrote, not a model", 2),
    "a folder with a LoRA": (lora_folder, "is a LoRA, not a model", 2),
    "a LoRA": (tensors_of(LORA), "is a LoRA, not a model: give the model that it is for", 2),
    "a LoRA of diffusers": (tensors_of({"unet.a.lora.down.weight": torch.zeros(1)}), "is a LoRA", 2),
    "a LyCORIS": (tensors_of({"lora_unet_a.hada_w1_a": torch.zeros(1)}), "is a LoRA, not a model", 2),
    # files of other kinds
    "GGUF": (file_of("m.gguf", GGUF), "m.gguf is a GGUF file, whose weights are quantized already", 2),
    "GGUF by another name": (file_of("m.safetensors", GGUF), "is a GGUF file", 2),
    "GGUF in capitals": (file_of("m.GGUF", GGUF), "is a GGUF file", 2),
    "a config": (inside("config.json"), "has settings, not weights: give its folder", 2),
    "a list of shards": (index_file, "lists a model's shards: give its folder", 2),
    "a table of numbers": (file_of("m.json", b"[1]"), "has settings, not weights", 2),
    "ONNX": (file_of("m.onnx"), "is an ONNX graph, which is not read", 2),
    "TensorRT": (file_of("m.engine"), "is an engine that TensorRT built", 2),
    "Flax": (file_of("m.msgpack"), "is a file of Flax: convert it", 2),
    "Keras": (file_of("m.h5"), "is a file of HDF5", 2),
    "an archive": (file_of("m.zip", b"PK\3\4"), "is an archive: unpack it", 2),
    "a recipe": (file_of("m.yaml", b"a: 1"), "settings, not weights", 2),
    "a pointer of git LFS": (file_of("m.safetensors", POINTER), "fetch it with git lfs pull", 2),
    "a pickle": (file_of("m.ckpt", pickle.dumps({"a": 1})), "pickled weights are never opened", 2),
    "a pickle in capitals": (file_of("m.PT", pickle.dumps({"a": 1})), "pickled weights are never opened", 2),
    "another suffix": (file_of("m.weights"), "is not a .safetensors file: give one", 2),
    "an empty file": (file_of("m.safetensors", b""), "truncated or not a safetensors file", 2),
    "a folder of GGUF": (only("m.gguf"), "has no safetensors, and m.gguf is a GGUF file", 2),
    "a folder of pickles": (only("m.bin"), "has only pickled weights (m.bin)", 2),
    "a folder of ONNX": (only("m.onnx"), "has no safetensors, and m.onnx is an ONNX graph", 2),
    # names
    "GGUF not there": (name("TMP/none.gguf"), "no such model file", 4),
    "a config not there": (name("none.json"), "no such model file", 4),
    "an unknown model": (name("unet-46"), "'unet-46'", 2),
    "a folder without a model": (notes, "no config.json; give the folder that save_pretrained wrote", 2),
    "a part of a model without parts": (lambda tmp: ["unet-64", "--part", "vae"], "has no parts", 2),
    # recipes and recordings
    "no recording": (options("--recipe", "mixdq-w8a8"), "makes that, then give it as --recording FOLDER", 4),
    "recording not there": (
        options("--recipe", "mixdq-w8a8", "--recording", "TMP/none"), "no trajectories at", 4,
    ),
    "recipe not there": (options("--recipe", "TMP/none.yaml"), "no preset file", 4),
    "recipe is no preset": (recipe_file_that_is_no_preset, "is not a preset", 2),
    "unknown recipe": (options("--recipe", "rtn-w3"), "'rtn-w3'", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_quantize_refuses_in_one_line(case: str, tmp_path: Path, capsys: Capture) -> None:
    make, says, code = TABLE[case]
    arguments = make(tmp_path)
    capsys.readouterr()
    out = tmp_path / "out"
    assert run(["quantize", *arguments, "--out", str(out)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("brainlab:")]
    assert len(lines) == 1 and says in lines[0], captured.err
    assert not list(out.rglob("*.part")) and not (out / "model.safetensors").exists()
