"""Every job that can run natively refuses what cannot run here, before anything long, and says what can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab.cli.main import run as command


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "dit-64", "--recipe", "rtn-w8a8"],
        ["compare", "dit-64", "--recipes", "rtn-w8a8"],
        ["variants", "dit-64", "--recipes", "rtn-w8a8"],
        ["brain", "reconstruct", "--dataset", "simulated", "--recipe", "rtn-w8a8"],
    ],
    ids=lambda words: words[0],
)
def test_without_a_gpu_it_ends_with_three(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if words[0] == "plan" else ["--out", str(tmp_path / "out")]
    assert command([*words, *out, "--native"]) == 3
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "native arithmetic cannot run here" in said and "simulated" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["bits", "--recipes", "rtn-w8a8"], ["decode", "--recipe", "rtn-w8a8"]])
def test_a_trained_run_is_not_touched(
    words: list[str], trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, *rest = words
    assert command(["brain", job, str(trained_run), *rest, "--native", "--out", str(tmp_path / "out")]) == 3
    assert "native arithmetic cannot run here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_full_precision_is_never_native(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["brain", "reconstruct", "--dataset", "simulated", "--recipe", "none", "--native"]
    assert command([*words, "--out", str(tmp_path / "out")]) == 2
    assert "native belongs to a recipe" in capsys.readouterr().err


def test_a_plan_says_which_path_each_layer_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", "dit-64", "--recipe", "svdquant-w4a4-native", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "W4A4 fp8 has a kernel, but" in shown and "floating point" in shown
