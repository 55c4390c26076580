"""Two processes under ``accelerate launch`` train Brain-IT as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainit.processes import Processes
from tests.brainit.training.in_processes import train


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, in_two_processes: Path) -> None:
    train(tmp_path / "1.safetensors", Processes())
    files = (tmp_path / "1.safetensors", in_two_processes / "brain-it" / "2.safetensors")
    one, two = (load_file(file) for file in files)
    assert one.keys() == two.keys()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
