"""Two processes under ``accelerate launch`` train both stages of the shared network as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainit.processes import Processes
from lab.errors import InputError
from lab.zoo.train.loop import Recipe
from lab.zoo.train.loop import fit as train
from tests.lab.zoo.shared.in_processes import fit


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, in_two_processes: Path) -> None:
    fit(tmp_path / "1.safetensors", Processes())
    files = (tmp_path / "1.safetensors", in_two_processes / "shared-network" / "2.safetensors")
    one, two = (load_file(file) for file in files)
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
