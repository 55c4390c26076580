"""plan and quantize on a diffusers folder: rows, files, resume, bad input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

import quant
from lab.cli.main import run
from lab.errors import InputError
from lab.jobs.models import plan
from lab.models.opening import open_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "unet"
    UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).save_pretrained(path)
    return path


def test_plan_lists_every_layer_once_with_bytes(folder: Path, capsys: Capture) -> None:
    assert run(["plan", str(folder), "--recipe", "rtn-w4a8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    names = [row["layer"] for row in result["layers"]]
    expected = [
        n
        for n, m in open_model(str(folder)).named_modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    ]
    assert sorted(names) == sorted(expected)
    totals = {row["total"]: row["value"] for row in result["totals"]}
    assert totals["bytes_after"] < totals["bytes_before"] / 3
    assert run(["plan", str(folder)]) == 0
    table = capsys.readouterr().out
    assert all(row["layer"] in table for row in result["layers"] if not row["note"])


def test_the_next_step_does_what_was_planned(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Wildcards, overrides and a file of one's own were left out: it quantized something else."""
    mine = tmp_path / "my own.yaml"
    mine.write_text("title: t\npolicy: common\nmethod: rtn\nconfig: {weight_bits: 4}\n")
    chosen = ["--recipe", str(mine), "--exclude", "conv_*", "--override", "*to_q:weight_bits=8"]
    for command in (["plan", str(folder)], ["quantize", str(folder), "--out", str(tmp_path / "q")]):
        asked = [*command, *chosen, *(["--dry-run"] if command[0] == "quantize" else [])]
        assert run([*asked, "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert run(asked) == 0
        step = capsys.readouterr().out.splitlines()[-1].removeprefix("next: brainlab ")
        words = shlex.split(step)
        assert ("--out" in words) == (command[0] == "quantize")
        assert run([*words, "--dry-run", "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert planned["plan"] | {"seconds": 0} == again["plan"] | {"seconds": 0}


def test_shares_of_weights_are_not_called_shares_of_multiplications() -> None:
    def shown(rule: str) -> dict[str, Any]:
        totals = [{"total": "macs_share", "value": {"W8A8": 1.0}}, {"total": "mac_rule", "value": rule}]
        return {row["name"]: row["value"] for row in plan.totals_table(totals).rows}

    assert shown("counted over one forward")["share of multiplications"] == "W8A8 100.0 %"
    unknown = shown("not measured: pass example=((args...), {kwargs}) to count multiply-accumulates")
    assert unknown["share of weights"] == "W8A8 100.0 %" and "share of multiplications" not in unknown
    assert "example=" not in unknown["multiplications"]


def test_layers_that_are_left_alike_are_one_line() -> None:
    rows = [
        {"layer": name, "bits": "", "bytes before": 9, "bytes after": 9, "note": "because", "here": ""}
        for name in ("a.0.to_k", "a.1.to_k", "b.3.x")
    ]
    left = plan.Result(model="m", layers=rows, totals=[]).tables()[1].rows
    assert [(row["left as it is"], row["layers"]) for row in left] == [("a.*.to_k", 2), ("b.3.x", 1)]


def test_a_plan_says_how_long_training_takes(folder: Path, capsys: Capture) -> None:
    assert run(["plan", str(folder), "--recipe", "qvgen-w4a4+train_steps=100", "--json"]) == 0
    totals = {row["total"]: row["value"] for row in json.loads(capsys.readouterr().out)["totals"]}
    assert totals["training_steps"] == 100
    assert totals["training_time"].startswith("about 4 s on a GPU, ")
    assert run(["plan", str(folder), "--recipe", "rtn-w4a4"]) == 0
    table = capsys.readouterr().out
    assert "training" not in table and "about 1 s on one CPU core" in table


def test_a_plan_advises_nothing_that_would_be_refused(folder: Path, capsys: Capture) -> None:
    """Its next step ended with exit code 2 where nothing was left to quantize, with 4 without a recording."""
    assert run(["plan", str(folder), "--exclude", "*"]) == 0
    assert "next:" not in capsys.readouterr().out
    assert run(["quantize", str(folder), "--exclude", "*", "--dry-run"]) == 2
    assert "nothing to quantize" in capsys.readouterr().err
    assert run(["plan", str(folder), "--recipe", "svdquant-w4a4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" --recording FOLDER")


def test_quantize_writes_codes_plan_and_ledger_and_a_second_time_does_nothing(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "q"
    command = ["quantize", str(folder), "--recipe", "rtn-w8a8", "--out", str(out), "--json"]
    assert run(command) == 0
    first = json.loads(capsys.readouterr().out)
    files = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.suffix in {".json", ".safetensors"}}
    assert {"plan.json", "ledger.json", "model.safetensors"} <= set(files)
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("done_before") is True and first.pop("done_before") is False and again == first
    assert files == {
        p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.suffix in {".json", ".safetensors"}
    }
    assert run([*command[:3], "rtn-w4a4", *command[4:]]) == 2
    assert "recipe" in capsys.readouterr().err


def test_dry_run_writes_nothing(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["quantize", str(folder), "--out", str(tmp_path / "q"), "--dry-run"]) == 0
    assert "conv_in" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_bad_models_are_one_line(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"_class_name": "UNet2DModel"')
    for arguments, says in (
        ([str(tmp_path / "empty")], "no config.json"),
        ([str(tmp_path / "broken")], "config.json is not JSON"),
        ([str(folder), "--recipe", "rtn-w8a9"], "did you mean"),
        ([str(folder), "--part", "unet"], "not a pipeline"),
        (["unet-46"], "unknown zoo model"),
    ):
        assert run(["plan", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and says in captured.err


def test_a_pipeline_folder_gives_its_denoiser(folder: Path, tmp_path: Path) -> None:
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPM"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet").symlink_to(folder)
    assert type(open_model(str(tmp_path))).__name__ == "UNet2DModel"
    with pytest.raises(InputError, match="must be one of scheduler, unet"):
        open_model(str(tmp_path), "vae")
    # one of two denoisers is never taken for both
    index |= {"transformer": [None, None], "unet_2": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="has 2 denoisers; give --part, one of unet, unet_2"):
        open_model(str(tmp_path))
    assert type(open_model(str(tmp_path), "unet")).__name__ == "UNet2DModel"


def test_the_shipped_models_weights_are_a_twentieth() -> None:
    from lab import zoo

    planned = quant.plan(zoo.load("dit-64").to("meta"), "binarydm-w1a4-small")
    full, small = (
        4 * sum(line.n_weights for line in planned.layers),
        sum(x.bytes_after for x in planned.layers),
    )
    assert full > 20 * small and not any(line.skipped for line in planned.layers)


def test_a_result_that_is_gone_is_made_again(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["quantize", str(folder), "--recipe", "rtn-w8a8", "--out", str(tmp_path / "q")]
    assert run(command) == 0
    before = (codes := tmp_path / "q" / "model.safetensors").read_bytes()
    codes.unlink()
    capsys.readouterr()
    assert run(command) == 0
    assert codes.read_bytes() == before and "done before" not in capsys.readouterr().out
