"""Bad input of ``brainlab quantize``: one line on stderr, the exit code, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from lab.cli.main import run

Capture = pytest.CaptureFixture[str]
Row = tuple[Callable[[Path], list[str]], str, int]


def saved(tmp: Path, value: float | None = None) -> Path:
    """A tiny model's folder; with a value that its first weight gets."""
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )  # fmt: skip
    if value is not None:
        model.conv_in.weight.data[0, 0, 0, 0] = value
    model.save_pretrained(tmp / "unet")
    return tmp / "unet"


def not_finite(tmp: Path) -> list[str]:
    return [str(saved(tmp, torch.nan))]


def quantized_already(tmp: Path) -> list[str]:
    folder = saved(tmp)
    assert run(["quantize", str(folder), "--out", str(tmp / "first")]) == 0
    return [str(tmp / "first" / "model.safetensors"), "--architecture", str(folder)]


def no_recording(tmp: Path) -> list[str]:
    return [str(saved(tmp)), "--recipe", "mixdq-w8a8"]


def recording_that_is_not_there(tmp: Path) -> list[str]:
    return [str(saved(tmp)), "--recipe", "mixdq-w8a8", "--recording", str(tmp / "none")]


def recipe_file_that_is_not_there(tmp: Path) -> list[str]:
    return [str(saved(tmp)), "--recipe", str(tmp / "none.yaml")]


def recipe_file_that_is_no_preset(tmp: Path) -> list[str]:
    (tmp / "bad.yaml").write_text("title: x\n")
    return [str(saved(tmp)), "--recipe", str(tmp / "bad.yaml")]


def truncated(tmp: Path) -> list[str]:
    folder = saved(tmp)
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return [str(folder)]


def another_architecture(tmp: Path) -> list[str]:
    folder = saved(tmp)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "block_out_channels": [16, 32]}))
    return [str(folder)]


TABLE: dict[str, Row] = {
    "NaN in a weight": (not_finite, "'conv_in.weight' has 1 of", 2),
    "quantized already": (quantized_already, "holds a quantized model already", 2),
    "no recording": (no_recording, "make a recording", 4),
    "recording not there": (recording_that_is_not_there, "no trajectories at", 4),
    "recipe not there": (recipe_file_that_is_not_there, "no preset file", 4),
    "recipe is no preset": (recipe_file_that_is_no_preset, "is not a preset", 2),
    "truncated": (truncated, "cannot be read as a diffusers model", 2),
    "another architecture": (another_architecture, "expected shape", 2),
}


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
