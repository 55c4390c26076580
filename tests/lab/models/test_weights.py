"""Weight files: their dtype is kept, codes and pickles are refused, paths that are not there are said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

import quant
from lab.cli.main import run
from lab.models import opening as models
from lab.models.opening import open_model
from tests.lab.jobs.test_quantize_again import build

Capture = pytest.CaptureFixture[str]
NAME = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def cast(folder: Path, dtype: torch.dtype, which: Callable[[torch.Tensor], bool] = lambda _: True) -> Path:
    tensors = load_file(folder / NAME)
    save_file({k: v.to(dtype) if which(v) else v for k, v in tensors.items()}, folder / NAME)
    return folder / NAME


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_folder_and_its_file_open_in_the_stored_dtype(dtype: torch.dtype, folder: Path) -> None:
    file = cast(folder, dtype)
    whole, single = open_model(str(folder)), open_model(str(file), config=folder)
    assert {p.dtype for p in whole.parameters()} == {p.dtype for p in single.parameters()} == {dtype}
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, single.state_dict()[name])


def test_a_hub_model_opens_in_the_stored_dtype(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cast(folder, torch.bfloat16)
    read = models._read
    monkeypatch.setattr(models, "_read", lambda name, part, local: read(str(folder), None, True))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(folder / "config.json"))
    assert {p.dtype for p in open_model("somebody/model").parameters()} == {torch.bfloat16}


def refused(arguments: list[str], says: str, capsys: Capture, code: int = 2) -> None:
    capsys.readouterr()
    assert run(["plan", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and says in captured.err, captured.err


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, torch.int32])
def test_what_is_no_plain_floating_point_is_refused(
    dtype: torch.dtype, folder: Path, capsys: Capture
) -> None:
    file = cast(folder, dtype, lambda t: t.ndim > 1)
    says = "not float16, bfloat16 or float32"
    refused([str(file), "--architecture", str(folder)], says, capsys)
    refused([str(folder)], says, capsys)


def test_variants_pickles_and_missing_weights_are_one_line(folder: Path, capsys: Capture) -> None:
    variant = folder / "diffusion_pytorch_model.fp16.safetensors"
    (folder / NAME).rename(variant)
    refused(
        [str(folder)],
        f"only {variant.name}: give one of these files as the model, with --architecture",
        capsys,
    )
    assert run(["plan", str(variant), "--architecture", str(folder)]) == 0
    variant.rename(folder / "diffusion_pytorch_model.bin")
    refused([str(folder)], "only pickled weights (diffusion_pytorch_model.bin)", capsys)
    (folder / "diffusion_pytorch_model.bin").unlink()
    refused([str(folder)], "has a config and no weights", capsys)


def test_shards_that_are_missing_or_torn(tmp_path: Path, capsys: Capture) -> None:
    build().save_pretrained(tmp_path / "s", max_shard_size="40KB")
    open_model(str(tmp_path / "s"))
    shard = sorted((tmp_path / "s").glob("*-0000*"))[0]
    data = shard.read_bytes()
    shard.write_bytes(data[:-50])
    refused([str(tmp_path / "s")], "truncated or not a safetensors file", capsys)
    shard.unlink()
    refused([str(tmp_path / "s")], f"lacks {shard.name} (1 of", capsys)


def test_quantized_models_are_said_to_be(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["quantize", str(folder), "--out", str(tmp_path / "q")]) == 0
    refused([str(tmp_path / "q")], "holds a quantized model already", capsys)
    model = build()
    quant.quantize_(model, "rtn-w4a8")
    model.save_pretrained(tmp_path / "saved")
    refused([str(tmp_path / "saved")], "holds a quantized model already", capsys)


@pytest.mark.parametrize("metadata", [None, {"quantization_config": "{}", "model_class": "UNet2DModel"}])
def test_a_nunchaku_file_is_said_to_be(
    metadata: dict[str, str] | None, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    name = "to_q.weight" if metadata else "to_q.qweight"
    save_file({name: torch.zeros(2, 2, dtype=torch.int8)}, tmp_path / "n.safetensors", metadata=metadata)
    refused(
        [str(tmp_path / "n.safetensors"), "--architecture", str(folder)], "quantized model already", capsys
    )


def test_paths_that_are_not_there_never_ask_the_hub(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers.UNet2DModel.load_config", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("./none", "models/none", "a/b/c", "../x/none", str(tmp_path / "none")):
        refused([name], f"no model folder or file at {name}", capsys, 4)
    refused([""], "the model's name is empty", capsys)


def test_an_autoencoder_needs_a_recipe_that_does_not_calibrate(tmp_path: Path, capsys: Capture) -> None:
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "vae")
    model = build()
    quant.record(model, FlowMatchEulerDiscreteScheduler(), None, tmp_path / "r", n_steps=1, n_samples=4)
    command = ["--recipe", "svdquant-w4a4", "--recording", str(tmp_path / "r"), "--out", str(tmp_path / "q")]
    capsys.readouterr()
    assert run(["quantize", str(tmp_path / "vae"), *command]) == 2
    assert "is an autoencoder, not a denoiser" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_impossible_sample_sizes_are_one_line(folder: Path, capsys: Capture) -> None:
    config = json.loads((folder / "config.json").read_text())
    for size in ("big", -8, 10**9):
        (folder / "config.json").write_text(json.dumps({**config, "sample_size": size}))
        refused([str(folder)], "sample_size", capsys)
