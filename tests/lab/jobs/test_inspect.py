"""``brainlab inspect``: files, page, going on, and bad input at the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import quant
from lab.cli.main import run
from lab.jobs.models.figures import figures_of
from lab.zoo import recordings

LAYERS = "up_blocks.1.attentions.1.transformer_blocks.0.attn2*"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r") / "u"
    recordings.zoo_recording("unet-64", folder, n=4, steps=3)
    return folder


def command(store: Path, out: Path, *more: str) -> list[str]:
    return ["inspect", "unet-64", "--out", str(out), "--recording", str(store), "--samples", "2", *more]


def test_writes_tables_figures_and_one_page(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.jobs.models.inspect._CLOSE_UPS", 1)  # drawing is what takes the time
    out = tmp_path / "o"
    asked = command(store, out, "--layers", LAYERS, "--sort", "kurtosis", "--steps", "2")
    assert run([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    values = [row["kurtosis"] for row in result["layers"]]
    assert values == sorted(values, reverse=True) and len(values) == 4
    assert {row["kind"] for row in result["attention"]} == {"cross"} and result["sort"] == "kurtosis"
    seen = quant.Observation.load(out / "observation")
    assert len(seen.settings["timesteps"]) == 2 and seen.settings["null_half"] is True
    names = {Path(f).stem for f in result["figures"]}
    assert {"layers-kurtosis", "drift", "attention-sink", "attention-cross", "layer1-heat"} <= names
    assert {"layer1-surface", "layer1-surface-relative", "layer1-input-levels"} <= names
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == len(names) and "kurtosis of the input over everything" in page
    read = f"{result['tensors']} tensors, which 4 layers of "
    assert read in page and len(result["top"]) == result["tensors"] < 4
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.p*") if p.is_file()}
    assert run(asked) == 0  # finished: nothing is drawn again
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:4] == ["layer", "kind", "channels", "kurtosis"]
    assert "index.html" in text.splitlines()[-2] and result["layers"][0]["layer"] in text.splitlines()[1]
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.p*") if p.is_file()}
    chosen = figures_of(out, "*to_q")  # test_paper.py draws some
    assert {"layers-kurtosis", "attention-sink", f"{LAYERS[:-1]}.to_q-heat"} <= set(chosen)
    assert not any("to_k-heat" in name for name in chosen)
    assert run(["figures", str(out), "--layers", "none"]) == 2
    # stopped while drawing: what was seen is not looked at again
    (out / "done.json").unlink()
    monkeypatch.setattr("lab.jobs.models.inspect._draw", lambda *a: None)
    monkeypatch.setattr("quant.observation.observe", lambda *a, **k: pytest.fail("observed again"))
    assert run(asked) == 0


def test_a_finished_folder_that_lost_a_file_gets_it_again(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def draw(module, store, seen, out, *more) -> None:  # the real one takes half a minute
        drawn.append(out)
        (out / "index.html").write_text("page")

    monkeypatch.setattr("lab.jobs.models.inspect._draw", draw)
    out = tmp_path / "o"
    asked = command(store, out, "--layers", LAYERS, "--steps", "2")
    assert run(asked) == run(asked) == 0 and len(drawn) == 1
    histograms, page = out / "observation" / "histograms.npz", out / "index.html"
    before = histograms.stat().st_mtime_ns
    page.unlink()
    assert run(asked) == 0 and page.is_file() and len(drawn) == 2
    assert histograms.stat().st_mtime_ns == before  # from what was seen
    histograms.write_bytes(b"half")
    assert run(asked) == 0 and len(drawn) == 3
    quant.Observation.load(out / "observation")  # whole again
    capsys.readouterr()


def _other(store: Path, tmp: Path) -> list[str]:
    shutil.copytree(store, tmp / "other")
    manifest = json.loads((tmp / "other" / "manifest.json").read_text())
    manifest["settings"]["null_condition"] = "0" * 64
    (tmp / "other" / "manifest.json").write_text(json.dumps(manifest))
    return command(tmp / "other", tmp / "o")


def _unconditional(store: Path, tmp: Path) -> list[str]:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(16,), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    ).save_pretrained(tmp / "m")  # fmt: skip
    return ["inspect", str(tmp / "m"), "--out", str(tmp / "o"), "--recording", str(store)]


BAD: dict[str, tuple[Callable[[Path, Path], list[str]], int, tuple[str, ...]]] = {
    "model": (lambda s, t: ["inspect", "unet-65", "--out", str(t / "o")], 2, ("'unet-65'", "unet-64")),
    "no denoiser": (lambda s, t: ["inspect", "encoder-64", "--out", str(t / "o")], 2, ("encoder-64", "dit")),
    "pattern": (lambda s, t: command(s, t / "o", "--layers", "*atn2.to_q"), 2, ("atn2.to_q", "attn2.to_q")),
    "statistic": (lambda s, t: command(s, t / "o", "--sort", "kurtosys"), 2, ("'kurtosys'", "drift")),
    "samples": (lambda s, t: command(s, t / "o", "--samples", "0"), 2, ("--samples: 0", "at most 1024")),
    "device": (lambda s, t: command(s, t / "o", "--device", "tpu"), 2, ("'tpu'", "auto, cpu, cuda")),
    "other recording": (_other, 2, ("other", "unet-64's null condition")),
    "other shape": (_unconditional, 2, ("UNet2DModel", "8 x 16 x 16", "another model")),
    "no recording": (lambda s, t: command(t / "none", t / "o"), 4, ("no trajectories", "quant.record")),
    "folder alone": (lambda s, t: _unconditional(s, t)[:4], 4, ("--recording FOLDER",)),
    "out": (lambda s, t: [*command(s, t / "a.txt")], 2, ("a.txt", "--out")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(
    name: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, says = BAD[name]
    (tmp_path / "a.txt").write_text("thesis")
    assert run(make(store, tmp_path)) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("brainlab")]
    assert len(lines) == 1 and "Traceback" not in captured.err and captured.out == ""
    assert all(word in lines[0] for word in says), lines[0]
    assert not (tmp_path / "o" / "index.html").exists()
