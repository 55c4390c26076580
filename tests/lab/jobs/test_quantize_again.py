"""A second call of ``brainlab quantize``: what changed by content is refused, a refusal leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

import quant
from lab.cli.main import run

Capture = pytest.CaptureFixture[str]
PRESET = "title: t\npolicy: common\nmethod: rtn\nconfig: {weight_bits: %d, activation_bits: 8}\n"


def build(seed: int = 0) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()  # fmt: skip


def recorded(path: Path, model: UNet2DModel, **changes: object) -> Path:
    options = {"n_steps": 1, "n_samples": 4, **changes}
    quant.record(model, FlowMatchEulerDiscreteScheduler(), None, path, **options)
    return path


def refused(arguments: list[str], says: str, capsys: Capture, code: int = 2) -> None:
    capsys.readouterr()
    assert run(["quantize", *arguments]) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("brainlab:")]
    assert captured.out == "" and len(lines) == 1 and says in lines[0], captured.err


def test_an_edited_preset_and_changed_weights_are_no_stale_result(tmp_path: Path, capsys: Capture) -> None:
    build().save_pretrained(tmp_path / "m")
    preset, out = tmp_path / "p.yaml", tmp_path / "q"
    preset.write_text(PRESET % 8)
    command = [str(tmp_path / "m"), "--recipe", str(preset), "--out", str(out)]
    assert run(["quantize", *command]) == 0
    first = (out / "model.safetensors").read_bytes()
    preset.write_text("# a comment changes nothing\n" + PRESET % 8)
    assert run(["quantize", *command]) == 0
    preset.write_text(PRESET % 4)
    refused(command, "recipe_hash", capsys)
    preset.write_text(PRESET % 8)
    build(seed=1).save_pretrained(tmp_path / "m")
    refused(command, "model_hash", capsys)
    assert (out / "model.safetensors").read_bytes() == first


def test_another_device_in_the_same_folder_is_refused(tmp_path: Path, capsys: Capture) -> None:
    build().save_pretrained(tmp_path / "m")
    out = tmp_path / "q"
    command = [str(tmp_path / "m"), "--recipe", "rtn-w8a8", "--out", str(out), "--device", "cpu"]
    assert run(["quantize", *command]) == 0
    config = out / "config.yaml"
    text = config.read_text()
    assert "device: cpu\n" in text
    config.write_text(text.replace("device: cpu\n", "device: cuda\n"))
    refused(command, 'device: "cuda" -> "cpu"', capsys)
    config.write_text(text.replace("device: cpu\n", ""))  # of an earlier version
    assert run(["quantize", *command]) == 0


def test_another_recording_in_the_same_folder_is_no_stale_result(tmp_path: Path, capsys: Capture) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m")
    recording, out = recorded(tmp_path / "r", model), tmp_path / "q"
    command = [
        str(tmp_path / "m"),
        "--recipe",
        "mixdq-w8a8",
        "--recording",
        str(recording),
        "--out",
        str(out),
    ]
    assert run(["quantize", *command]) == 0
    assert run(["quantize", *command]) == 0
    shutil.rmtree(recording)
    recorded(recording, model, seed=3)
    refused(command, "recording_hash", capsys)


def test_a_refusal_leaves_nothing_and_the_right_call_works(tmp_path: Path, capsys: Capture) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m")
    out = tmp_path / "deep" / "q"
    other = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(16,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=8,
    )  # fmt: skip
    wrong, empty = recorded(tmp_path / "w", other), recorded(tmp_path / "e", model, n_samples=1)
    right = recorded(tmp_path / "r", model)
    start = [str(tmp_path / "m"), "--out", str(out), "--recipe", "mixdq-w8a8", "--recording"]
    for arguments, says, code in (
        ([str(tmp_path / "n"), *start[1:3]], "no model folder or file", 4),
        ([*start, str(wrong)], "is of another model", 2),
        ([*start, str(empty)], "none in 'calibrate'", 4),
        ([*start, str(tmp_path / "none")], "no trajectories at", 4),
    ):
        refused(arguments, says, capsys, code)
        assert not (tmp_path / "deep").exists()
    assert run(["quantize", *start, str(right)]) == 0


def test_what_a_method_refuses_takes_the_folder_back(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build().save_pretrained(tmp_path / "m")

    def refuse(*_: object, **__: object) -> None:
        raise quant.MissingDataError("layer 'x' never ran")

    command = [str(tmp_path / "m"), "--out", str(tmp_path / "deep" / "q")]
    with monkeypatch.context() as patch:
        patch.setattr("quant.quantize_", refuse, raising=False)
        refused(command, "never ran", capsys, 4)
    assert not (tmp_path / "deep").exists()
    assert run(["quantize", *command]) == 0
    (tmp_path / "deep" / "q" / "done.json").unlink()  # as a kill would leave it
    with monkeypatch.context() as patch:
        patch.setattr("quant.quantize_", refuse, raising=False)
        refused(command, "never ran", capsys, 4)
    assert (tmp_path / "deep" / "q" / "config.yaml").is_file()


def test_what_a_method_refuses_while_it_works_leaves_no_state(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    model.save_pretrained(tmp_path / "m")
    right = recorded(tmp_path / "r", model)

    def refuse(*_: object) -> None:
        raise quant.InputError("layer 'x' is odd")

    monkeypatch.setattr("quant.methods.mixdq.core.core", refuse)
    start = [str(tmp_path / "m"), "--recipe", "mixdq-w8a8", "--recording", str(right), "--out"]
    refused([*start, str(tmp_path / "deep" / "q")], "is odd", capsys)
    assert not (tmp_path / "deep").exists()
