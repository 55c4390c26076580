"""brainlab allocate: presets within their budgets, better than uniform by the sum, usable at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

import quant
from lab.cli.main import run
from lab.models.opening import open_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    model = UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )  # fmt: skip
    model.save_pretrained(path / "unet")
    quant.record(
        model, FlowMatchEulerDiscreteScheduler(), None, path / "rec", n_steps=2, n_samples=8, shape=(2, 8, 8)
    )
    return path


def command(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["--recording", str(folder / "rec"), "--samples", "1", "--timesteps", "1", "--device", "cpu"]
    return ["allocate", str(folder / "unet"), "--out", str(out), *given, *more]


def test_budgets_are_kept_and_the_sum_is_never_worse_than_uniform(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert run(command(folder, tmp_path, "--bits", "3,4", "--choices", "2,3,4,8", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["preset"] for row in rows] == ["mixdq-w3-budget", "mixdq-w4-budget"]
    for row in rows:
        assert row["bytes"] <= row["budget_bytes"] and row["gap"] < 1e-6
        assert row["nmse_allocated"] <= row["nmse_uniform"]
    model = open_model(str(folder / "unet"))
    plan = quant.plan(model, str(tmp_path / "mixdq-w3-budget.yaml"))
    assert len({line.weight.bits for line in plan.quantized}) > 1
    uniform = quant.plan(model, quant.get_method("mixdq").config(**{
        **quant.get_preset("mixdq-w4a8-common").config, "weight_bits": 3
    }))  # fmt: skip
    assert plan.bytes_after <= uniform.bytes_after


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--recipe", "rtn-w4a8"], 2, "cannot be allocated: give a recipe of mixdq"),
        (["--bits", "7"], 2, "--bits 7: a budget is that of uniform bits among --choices"),
        (["--choices", "1,4", "--bits", "4"], 2, "numbers from 2 to 8, got 1"),
        (["--metric", "ssim"], 2, "--metric: 'ssim' is not allowed; must be one of nmse, sqnr_db"),
    ],
)
def test_bad_input_is_one_line(
    folder, tmp_path, capsys: Capture, more: list[str], code: int, said: str
) -> None:
    assert run(command(folder, tmp_path, *more)) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0]
