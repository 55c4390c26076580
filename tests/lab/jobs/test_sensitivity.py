"""brainlab sensitivity: sorted table, figures, resume, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel
from PIL import Image

import quant
from lab.cli.main import run
from lab.errors import InputError
from lab.figures.plate import Provenance
from lab.figures.sensitivity import error_along_steps, error_by_bits, worst_layers
from lab.jobs.models import sensitivity
from lab.jobs.models.sensitivity import _known_growth
from quant.sensitivity.by_layer import Sensitivity

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
        model, FlowMatchEulerDiscreteScheduler(), None, path / "rec", n_steps=3, n_samples=8, shape=(2, 8, 8)
    )
    return path


def command(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["--recording", str(folder / "rec"), "--recipe", "rtn-w4a8", "--samples", "2", "--timesteps", "2"]
    return ["sensitivity", str(folder / "unet"), "--out", str(out), "--device", "cpu", *given, *more]


def test_table_is_sorted_and_continued(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "s.json"
    wanted = command(folder, out, "--bits", "3,8", "--layers", "mid_block.*", "--json")
    assert run(wanted) == 0
    result = json.loads(capsys.readouterr().out)
    values = [row["sqnr_db"] for row in result["rows"]]
    assert values == sorted(values) and {row["setting"] for row in result["rows"]} == {"3", "8"}
    assert all(row["layer"].startswith("mid_block.") for row in result["rows"])
    assert [row["layer"] for row in result["all"]] == ["*", "*"]
    # fewer bits never hurt less
    by = {(row["layer"], row["setting"]): row["sqnr_db"] for row in result["rows"]}
    assert all(by[layer, "3"] <= by[layer, "8"] for layer, _ in by)
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in result["figures"])
    assert {Path(p).name for p in result["figures"]} == {"s-layers.png", "s-bits.png", "s-steps.png"}
    # a model of one's own, by the scheduler that it was recorded with
    assert [row["timestep"] for row in result["growth"]][-1] == 0 and len(result["growth"]) == 4
    said = Image.open(result["figures"][0]).info["Description"]
    for word in (
        str(folder / "unet"),
        "rtn-w4a8",
        "2 recorded samples at 2 timesteps",
        "seed 0",
        "brainit-lab",
    ):
        assert word in said
    assert len(Sensitivity.load(out).rows) == len(values) + 2

    whole = out.read_bytes()
    stored = json.loads(whole)
    stored["rows"] = stored["rows"][:3]  # as after a kill
    out.write_text(json.dumps(stored))
    assert run(wanted) == 0
    assert out.read_bytes() == whole
    capsys.readouterr()
    assert run([*wanted[:-1], "--mode", "one-off"]) == 2
    assert "was made with another mode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--mode", "off"], "--mode: 'off' is not allowed; must be one of one-on, one-off"),
        (["--metric", "psnr"], "--metric: 'psnr' is not allowed; must be one of sqnr_db"),
        (["--side", "left"], "--side: 'left' is not allowed; must be one of"),
        (["--bits", "4,x"], "--bits: '4,x': give whole numbers"),
        (["--bits", "1"], "weight_bits = 1"),
        (
            ["--samples", "0"],
            "--samples: 0 is not allowed; must be a whole number at least 1 and at most 1000",
        ),
        (["--layers", "nothing.*"], "matches none"),
        (["--recipe", "svdquant-w4a4", "--bits", "4"], "whose weight bits are not a setting"),
        (["--recipe", "rtn-w4a9"], "unknown preset 'rtn-w4a9'"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys: Capture, more: list[str], said: str) -> None:
    out = tmp_path / "s.json"
    assert run(command(folder, out, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0]
    assert not out.exists()


def test_samples_of_a_model_of_my_own_are_compared(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    more = ["--metric", "final_sqnr_db", "--layers", "mid_block.resnets.0.conv1", "--no-growth", "--json"]
    assert run(command(folder, tmp_path / "s.json", *more)) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["final_sqnr_db"] > 10 and 0 < row["ssim"] <= 1


def test_a_scheduler_that_nobody_knows_here_costs_the_error_along_the_steps_alone(folder: Path) -> None:
    store: Any = quant.Trajectories.open(folder / "rec")
    store.settings["scheduler"] = "Mine"
    asked = {"model": "x", "out": "s.json"}
    sampler, note = sensitivity._sampler(store, sensitivity.Settings(**asked))
    assert sampler is None and note.startswith("no error along the steps: ") and "Mine" in note
    with pytest.raises(InputError, match="Mine"):
        sensitivity._sampler(store, sensitivity.Settings(**asked, metric="ssim"))


def test_other_files_are_left_alone(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(command(folder, tmp_path / "s.txt")) == 2
    out = tmp_path / "other.json"
    out.write_text("[1]")
    assert run(command(folder, out)) == 2 and "not a sensitivity table" in capsys.readouterr().err
    assert out.read_text() == "[1]"
    assert run(["sensitivity", str(folder / "unet"), "--out", str(tmp_path / "x.json")]) == 4


def test_error_along_steps_is_not_taken_from_another_recipe(tmp_path: Path) -> None:
    out, steps = tmp_path / "s.json", [{"timestep": 999.0, "nmse": 0.1}]
    assert _known_growth(out, "rtn-w4a8") == []
    out.write_text(json.dumps({"made_with": {}, "rows": [], "recipe": "rtn-w4a8", "growth": steps}))
    assert _known_growth(out, "rtn-w4a8") == steps
    # --bits 2,4 makes the same table of both
    assert _known_growth(out, "rtn-w8a8") == []


def test_long_names_stay_whole_and_inside() -> None:
    names = [f"{part}_block{s}.attentions.{i}.transformer_blocks.0.attn2.to_out.0"
             for part, s in (("mid", ""), ("down", "s.1")) for i in (0, 1)]  # fmt: skip
    rows = [{"layer": name, "setting": "8", "sqnr_db": 20.0 + i} for i, name in enumerate(names)]
    plate = worst_layers(rows, "sqnr_db", "one-on", Provenance("a model"))
    labels = plate.figure.axes[0].get_yticklabels()
    assert "mid_block.attn.0.tb.0.attn2.to_out.0" in [label.get_text() for label in labels]
    assert len({label.get_text() for label in labels}) == len(names)
    plate.figure.set_dpi(144)  # as it is written
    assert min(label.get_window_extent().x0 for label in labels) >= 0


def test_figures_say_what_comes_first() -> None:
    source = Provenance("a model", "2 samples", 0)
    rows = [
        {"layer": f"layer.{i}", "setting": bits, "sqnr_db": 5.0 * i + 3 * int(bits)}
        for i in range(3) for bits in ("2", "4")
    ]  # fmt: skip
    rows.sort(key=lambda row: row["sqnr_db"])
    assert "layer.0 comes first with 6" in worst_layers(rows, "sqnr_db", "one-on", source).caption
    assert "2 bits 11, 4 bits 17" in error_by_bits(rows, "sqnr_db", source).alt
    steps = [
        {"step": 0.0, "local_nmse": 0.1, "accumulated_nmse": 0.0},
        {"step": 1.0, "accumulated_nmse": 0.25},
    ]
    assert "final sample has 0.25" in error_along_steps(steps, source).caption
    assert "by the base recipe" in error_along_steps(steps, source).caption
    axis = error_by_bits(rows, "sqnr_db", source).figure.axes[0]
    assert axis.get_ylabel() == "prediction SQNR, dB"
    for draw in (lambda: worst_layers([], "nmse", "one-on", source), lambda: error_along_steps([], source)):
        with pytest.raises(InputError, match="no rows"):
            draw()
