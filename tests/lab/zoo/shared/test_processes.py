"""Two processes under ``accelerate launch`` train both stages of the shared network as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainit.processes import Processes
from lab.errors import InputError
from lab.zoo.train.loop import Recipe
from lab.zoo.train.loop import fit as train
from tests.lab.zoo.shared.in_processes import fit

FOLDER = Path(__file__).parent
LAUNCH = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    fit(tmp_path / "1.safetensors", Processes())
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "--num_processes", "2"]
    command += ["--main_process_port", "0", str(FOLDER / "in_processes.py"), str(tmp_path / "2.safetensors")]
    env = os.environ | {"PYTHONPATH": str(FOLDER.parents[3]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "process 1 of 2" in ended.stdout
    one, two = (load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    assert one.keys() == two.keys()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_training_that_draws_within_its_loss_wants_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "current", classmethod(lambda cls, device="cpu": cls(0, 2)))
    model = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match="in one process, not in 2"):
        train(model, lambda m, index, key: m.bias.sum(), 4, Recipe(1, 2, 0.1), tmp_path / "state.safetensors")
