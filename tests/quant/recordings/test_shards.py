"""Recordings that were damaged or edited, and calls of `record` that cannot work: one line each."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

import quant

CONDITIONS = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
SHARD = "shard-000000.safetensors"


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "r"
    record(tiny, path)
    return path


def record(tiny, path: Path, conditions: Any = CONDITIONS, **changes: Any) -> quant.Trajectories:
    options = {"n_steps": 2, "batch_size": 4, **changes}
    return quant.record(tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), conditions, path, **options)


def signed(folder: Path, change: Callable[[dict], dict | None]) -> None:
    """Edit the first shard and make the manifest agree."""
    tensors = load_file(folder / SHARD)
    tensors = change(tensors) or tensors
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / SHARD)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0] = hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
    manifest["hash"] = hashlib.sha256("".join(manifest["shards"]).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: signed(folder, lambda t: {k: v for k, v in t.items() if k != name})


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(content)


def setting(name: str, value: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["settings"][name] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def wrong_hash(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "hash": "f" * 64}))


def scaled(folder: Path) -> None:
    tensors = load_file(folder / SHARD)
    save_file({**tensors, "x": tensors["x"] * 3}, folder / SHARD)


def nan(tensors: dict) -> None:
    tensors["x"][1, 1, 0, 0, 0] = torch.nan


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (text("{"), "is not JSON"), "empty": (text(""), "is not JSON"),
    "null": (text("null"), "has no settings"), "list": (text("[]"), "has no settings"),
    "no settings": (text('{"hash": "x"}'), "has no settings"),
    "count": (setting("n_samples", "x"), "n_samples = 'x', not a whole number above 0"),
    "batch": (setting("batch_size", 0), "batch_size = 0, not a whole number above 0"),
    "more samples": (setting("n_samples", 10**6), "lists 2 shards, its samples need 250000"),
    "fewer samples": (setting("n_samples", 5), "'x' of shard-000004.safetensors has shape"),
    "shape": (setting("shape", [4]), "'x' of shard-000000.safetensors has shape"),
    "no shape": (setting("shape", None), "shape = None, not a list of sizes"),
    "guidance": (setting("guidance", None), "guidance = None, not a number"),
    "seed": (setting("seed", "x"), "seed = 'x', not a whole number"),
    "hash": (wrong_hash, "its hash is not that of its shards"),
    "edited": (scaled, "was changed after it was recorded"),
    "no x": (without("x"), "has no 'x'"), "no timestep": (without("timestep"), "has no 'timestep'"),
    "no condition": (without("condition"), "has no 'condition'"),
    "fewer rows": (lambda f: signed(f, lambda t: {**t, "x": t["x"][:3]}), "the manifest says"),
    "fewer steps": (lambda f: signed(f, lambda t: {**t, "x": t["x"][:, :1]}), "the manifest says"),
    "NaN": (lambda f: signed(f, nan), "sample 1 in .* is NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_before_any_work(case: str, tiny, made: Path, tmp_path: Path) -> None:
    change, says = DAMAGE[case]
    folder = tmp_path / "r"
    shutil.copytree(made, folder)
    change(folder)
    with pytest.raises(quant.InputError, match=says) as caught:
        quant.quantize_(tiny.build("unet"), "mixdq-w8a8", trajectories=quant.Trajectories.open(folder))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_shard_that_was_edited_is_recorded_again(tiny, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(made, folder)
    scaled(folder)
    assert record(tiny, folder).hash == quant.Trajectories.open(made).hash


def test_manifests_without_the_models_class_go_on(tiny, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(made, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"].pop("model") == "UNet2DConditionModel"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store = quant.Trajectories.open(folder)
    assert quant.quantize_(tiny.build("unet"), "rtn-w8a8", trajectories=store).trajectories == store.hash
    assert record(tiny, folder).settings["model"] == "UNet2DConditionModel"


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"n_steps": 0}, "n_steps = 0: give a whole number from 1 on"),
    "batch": ({"batch_size": 0}, "batch_size = 0: give a whole number"),
    "seed": ({"seed": "x"}, "seed = 'x': give a whole number from 0 to 4294967295"),
    "big seed": ({"seed": 2**70}, "from 0 to 4294967295"),
    "width": ({"conditions": torch.zeros(2, 7, 99)}, "conditions of width 99, .* tokens of width 24"),
    "none": ({"conditions": None, "n_samples": 2}, "no condition, .* tokens of width 24"),
    "nothing": ({"conditions": None}, "nothing to record"),
    "fewer": ({"n_samples": 2}, "n_samples = 2, and one sample is recorded for each of 6 conditions"),
    "channels": ({"shape": (3, 8, 8)}, "samples have 3 channels, .* takes 4"),
    "sizes": ({"shape": (4, 0, 8)}, "a size in shape = 0"),
    "NaN": ({"conditions": torch.full((2, 7, 24), torch.nan)}, "conditions hold NaN"),
    "null": ({"guidance": 2.0, "null_condition": torch.zeros(7, 3)}, "null_condition has shape"),
    "guidance": ({"guidance": "x"}, "guidance = 'x'"),
}


@pytest.mark.parametrize("case", CALLS)
def test_record_refuses_before_it_writes(case: str, tiny, tmp_path: Path) -> None:
    changes, says = CALLS[case]
    with pytest.raises(quant.InputError, match=says) as caught:
        record(tiny, tmp_path / "r", **changes)
    assert "\n" not in str(caught.value) and not (tmp_path / "r").exists()


def test_record_onto_a_file_and_of_what_does_not_denoise(tiny, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(quant.InputError, match="is a file; a recording is a folder"):
        record(tiny, tmp_path / "f")
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(quant.InputError, match="AutoencoderKL is an autoencoder, not a denoiser"):
        quant.record(vae, FlowMatchEulerDiscreteScheduler(), CONDITIONS, tmp_path / "r", n_steps=2)
    broken = tiny.build("unet")
    broken.conv_in.bias.data[0] = torch.nan
    with pytest.raises(quant.InputError, match="sampling gives NaN"):
        quant.record(broken, FlowMatchEulerDiscreteScheduler(), CONDITIONS, tmp_path / "r", n_steps=2)
