"""What ``accelerate launch`` starts (tests/launched.py): Brain-IT of two subjects, weights into a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from brainit.api import fit, override
from brainit.config import parse_config
from brainit.processes import Processes
from tests.brainit.conftest import TINY, make_sample


def train(out: Path, together: Processes) -> None:
    """Fit with everything that is random switched on, but dropout; a batch of 7 does not halve."""
    pair = make_sample(2)
    care = {"mixup": 0.5, "beta_noise": 0.2, "voxel_dropout": 0.2, "synthetic_share": 0.25}
    changes = {
        "model": {"dropout": 0.0}, "care": care, "train": {"batch": 7, "epochs": 2, "structure_loss": "mse"}
    }  # fmt: skip
    config = override(parse_config(TINY), changes)
    folder = out.parent / f"checkpoints{together.size}"
    decoder = fit(pair.subjects, pair.table, config, folder, external=pair.table.targets)
    if together.first:
        tensors = {k: v.contiguous() for k, v in decoder.networks[0].state_dict().items()}
        losses = [decoder.report["training"][0][key] for key in ("train", "valid")]
        save_file(tensors | {"losses": torch.tensor(losses)}, out)
    together.wait()
