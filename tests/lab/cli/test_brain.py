"""``brainlab brain`` and ``brainlab zoo`` hand their options to the jobs unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from lab.cli.main import run
from lab.decoding.settings import ReconstructConfig
from lab.errors import HardwareError
from lab.models.devices import choose_device

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []

    def reconstruct(config: ReconstructConfig, out: Path, progress: Any, **how: Any) -> dict[str, Any]:
        progress(1, 1, "sampling")
        seen.append({"config": config, "out": out, **how})
        return {"pixcorr": 0.85, "table": [{"metric": "pixcorr", "value": 0.85}]}

    module = ModuleType("lab.jobs.reconstruct")
    module.reconstruct = reconstruct  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lab.jobs.reconstruct", module)
    return seen


def test_reconstruct_gets_the_resolved_settings(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("steps: 7\nguidance: 1.0\n")
    command = [
        "brain",
        "reconstruct",
        "--dataset",
        "digits69",
        "--root",
        str(tmp_path),
        "--recipe",
        "rtn-w4a8",
    ]
    more = [
        "--seed",
        "3",
        "--config",
        str(file),
        "--set",
        "brain.train.epochs=2",
        "--out",
        str(tmp_path / "r"),
    ]
    assert run([*command, *more, "--dry-run", "--json"]) == 0
    call = calls[0]
    config = call["config"]
    assert (config.dataset, config.root, config.recipe, config.seed) == (
        "digits69",
        str(tmp_path),
        "rtn-w4a8",
        3,
    )
    assert (config.steps, config.guidance, config.brain.train.epochs) == (7, 1.0, 2)
    assert (call["out"], call["dry_run"]) == (tmp_path / "r", True)
    assert json.loads(capsys.readouterr().out)["pixcorr"] == 0.85
    assert run([*command, *more]) == 0
    assert capsys.readouterr().err == "sampling: 1/1\n"


@pytest.mark.parametrize("verb", ["prepare", "train"])
def test_steps_stop_where_they_say(
    calls: list[dict[str, Any]], verb: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "subject.json").write_text('{"warnings": ["2 sessions are short"]}')
    assert run(["brain", verb, "--out", str(tmp_path / "r")]) == 0
    assert calls[0]["until"] == verb and calls[0]["config"] == ReconstructConfig()
    said = capsys.readouterr().out
    assert f"run: {tmp_path / 'r'}" in said and "\nwarning: 2 sessions are short\n" in said
    assert run(["brain", verb, "--out", str(tmp_path / "r"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == ["2 sessions are short"]


def test_zoo_train_dry_run_does_nothing(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "state"
    assert (
        run(["zoo", "train", "unet-64", "--data", str(tmp_path), "--out", str(out), "--dry-run", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["would train"] == "unet-64"
    assert not out.exists()


def test_zoo_sample_writes_a_grid_that_the_seed_fixes(tmp_path: Path, capsys: Capture) -> None:
    pictures = []
    for seed in ("0", "0", "1"):
        file = tmp_path / "grid.png"
        assert (
            run(["zoo", "sample", "unet-64", "--n", "5", "--steps", "2", "--seed", seed, "--out", str(file)])
            == 0
        )
        assert Image.open(file).size == (3 * 66, 2 * 66)
        pictures.append(file.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert list(tmp_path.iterdir()) == [file]


def test_cuda_where_there_is_none_is_hardware_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(HardwareError, match="no CUDA device"):
        choose_device("cuda")
