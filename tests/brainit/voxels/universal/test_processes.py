"""Two processes under ``accelerate launch`` learn what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainit.io import read_state
from brainit.processes import Processes
from tests.brainit.voxels.universal.in_processes import fit

FOLDER = Path(__file__).parent
LAUNCH = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
"""``--multi_gpu`` is accelerate's word for several processes; with ``--cpu`` it starts a single one."""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    fit(tmp_path / "1.safetensors", Processes())
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "--num_processes", "2"]
    command += ["--main_process_port", "0", str(FOLDER / "in_processes.py"), str(tmp_path / "2.safetensors")]
    env = os.environ | {"PYTHONPATH": str(FOLDER.parents[3]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "process 1 of 2" in ended.stdout
    one, two = (read_state(tmp_path / f"{count}.safetensors")[0] for count in (1, 2))
    assert one.keys() == two.keys()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_rows_of_all_processes_are_the_batch() -> None:
    for n in (1, 5, 32):
        rows = [i for rank in range(3) for i in range(n)[Processes(rank, 3).rows(n)]]
        assert rows == list(range(n))


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.current()
    parameter = torch.nn.Parameter(torch.ones(2))
    alone.wait()
    alone.mean_gradients([parameter], 0.5)
    assert alone.first and parameter.grad is None and alone.sum(3.0) == 3.0
