"""A decoding run under ``accelerate launch``: training is shared in one folder, the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainit.processes import Processes
from lab.cli.main import run
from tests.lab.jobs.in_processes import train


@pytest.mark.slow
def test_two_processes_train_in_one_folder(tmp_path: Path, in_two_processes: Path) -> None:
    train(tmp_path / "1.safetensors", Processes())
    one, two = (
        load_file(file)["losses"]
        for file in (tmp_path / "1.safetensors", in_two_processes / "brain-train" / "2.safetensors")
    )
    torch.testing.assert_close(two, one, rtol=2e-3, atol=2e-4)


def test_pictures_are_made_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["brain", "reconstruct", "--dataset", "simulated", "--root", str(tmp_path), "--out"]
    assert run([*words, str(tmp_path / "run")]) == 2
    assert "Launch `brain train` with the same settings" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
