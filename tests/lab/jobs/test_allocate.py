"""brainlab allocate: presets within their budgets, better than uniform by the sum, usable at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel, UNet2DModel

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
    again = command(folder, tmp_path, "--bits", "3,4", "--choices", "2,3,4,8")
    assert run(again) == 0  # from the table
    step = capsys.readouterr().out.splitlines()[-1].removeprefix("next: brainlab ")
    assert run([*step.split(), "--dry-run"]) == 0  # with the recording, which such a model needs
    assert run([*again, "--seed", "1"]) == 2
    assert "sensitivity.json was made with another seed" in capsys.readouterr().err


def test_a_budget_is_split_between_content_and_quality(tmp_path: Path, capsys: Capture) -> None:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(16,), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None, norm_num_groups=8, cross_attention_dim=8, attention_head_dim=2,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "unet")
    quant.record(
        model,
        FlowMatchEulerDiscreteScheduler(),
        torch.randn(4, 3, 8),
        tmp_path / "rec",
        n_steps=2,
        shape=(2, 8, 8),
    )
    more = ["--bits", "4", "--choices", "2,4,8", "--split", "--json"]
    assert run(command(tmp_path, tmp_path / "out", *more)) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["bytes"] <= row["budget_bytes"] and 0.4 < row["content_over_quality"] < 1.4
    plan = quant.plan(model, str(tmp_path / "out" / "mixdq-w4-budget.yaml"))
    assert sum(row["layers_by_bits"].values()) == len(plan.quantized)


def test_a_model_without_content_layers_has_nothing_to_split(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert run(command(folder, tmp_path, "--bits", "4", "--choices", "4,8", "--split")) == 2
    assert "no layer has a name of content (*attn2*, *.ff.*)" in capsys.readouterr().err


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
