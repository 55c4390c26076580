"""brainlab record: a model of one's own becomes a recording that other commands take as it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiTTransformer2DModel, UNet2DModel
from safetensors.torch import save_file

import quant
from lab.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
    )  # fmt: skip
    scheduler = DDIMScheduler(prediction_type="v_prediction")
    DDPMPipeline(unet, scheduler).save_pretrained(home / "pipe")
    unet.save_pretrained(home / "unet")
    scheduler.save_pretrained(home / "scheduler-of-its-own")
    DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=2, out_channels=2, num_layers=1,
        sample_size=4, patch_size=2, num_embeds_ada_norm=3,
    ).save_pretrained(home / "dit")  # fmt: skip
    return home


def record(home: Path, model: str, out: Path, *more: str) -> int:
    few = ["--samples", "5", "--steps", "2", "--device", "cpu"]
    return run(["record", str(home / model), "--out", str(out), *few, *more])


def test_a_pipelines_own_scheduler_is_taken_and_the_next_step_is_a_command(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert record(home, "pipe", tmp_path / "r") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: brainlab "))
    assert run([*words, "--dry-run"]) == 0
    made = quant.Trajectories.open(tmp_path / "r").settings
    assert made["scheduler"] == "DDIMScheduler"
    assert made["scheduler_config"]["prediction_type"] == "v_prediction"
    assert record(home, "pipe/unet", tmp_path / "r") == 0  # the same model: nothing is made again
    assert record(home, "unet", tmp_path / "s", "--scheduler", str(home / "scheduler-of-its-own")) == 0
    assert quant.Trajectories.open(tmp_path / "s").settings["scheduler"] == "DDIMScheduler"


def test_a_folder_of_something_else_is_left_alone(home: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "results.json").write_text("{}")
    for more in ((), ("--dry-run",)):
        assert record(home, "pipe", tmp_path, *more) == 2
        assert "holds other files (results.json) and no recording" in capsys.readouterr().err
        assert run(["figures", str(tmp_path / "nowhere"), *more]) == 4
        assert "no run folder at" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_comparison_samples_as_the_recording_did(home: Path, tmp_path: Path, capsys: Capture) -> None:
    assert record(home, "dit", tmp_path / "r", "--scheduler", "DDIMScheduler", "--guidance", "2.5") == 0
    store = quant.Trajectories.open(tmp_path / "r")
    assert store.null_condition == torch.tensor(3.0)  # the class that stands for none
    assert store.class_labels().tolist() == [0, 1, 2, 0, 1]
    capsys.readouterr()
    asked = [
        "compare",
        str(home / "dit"),
        "--recording",
        str(tmp_path / "r"),
        "--recipes",
        "rtn-w8a8",
        "--n",
        "4",
    ]
    assert run([*asked, "--dry-run"]) == 2  # 5 samples leave one for measuring, and that is the only fault
    assert "steps" not in capsys.readouterr().err
    assert run([*asked, "--guidance", "1", "--dry-run"]) == 2
    assert "guidance 2.5" in capsys.readouterr().err


def test_conditions_of_a_file(home: Path, tmp_path: Path, capsys: Capture) -> None:
    save_file({"conditions": torch.tensor([2, 0, 1, 1])}, tmp_path / "labels.safetensors")
    given = ["--scheduler", "DDIMScheduler", "--conditions", str(tmp_path / "labels.safetensors"), "--json"]
    assert record(home, "dit", tmp_path / "r", *given) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 4


@pytest.mark.parametrize(
    ("model", "more", "code", "words"),
    [
        ("unet", (), 4, ("--scheduler", "DDIMScheduler")),
        ("unet", ("--scheduler", "DDIM"), 2, ("--scheduler DDIM", "DDIMScheduler")),
        ("unet", ("--scheduler", "DDIMScheduler", "--guidance", "2"), 2, ("guidance 2", "conditions")),
        ("dit", ("--scheduler", "DDIMScheduler", "--conditions", "none.st"), 4, ("none.st",)),
        ("none", (), 4, ("none",)),
    ],
)  # fmt: skip
def test_refused_before_anything_is_written(
    home: Path,
    tmp_path: Path,
    capsys: Capture,
    model: str,
    more: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    assert record(home, model, tmp_path / "r", *more) == code
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in said for word in words), said
    assert not (tmp_path / "r").exists()
