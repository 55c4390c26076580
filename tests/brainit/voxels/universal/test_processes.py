"""Two processes under ``accelerate launch`` learn what one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brainit.io import read_state
from brainit.processes import Processes
from tests.brainit.voxels.universal.in_processes import fit


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, in_two_processes: Path) -> None:
    fit(tmp_path / "1.safetensors", Processes())
    files = (tmp_path / "1.safetensors", in_two_processes / "voxel-encoder" / "2.safetensors")
    one, two = (read_state(file)[0] for file in files)
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
