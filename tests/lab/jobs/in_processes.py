"""What ``accelerate launch`` starts (tests/launched.py): ``brain train`` of a planted recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.io import savemat

from brainit.config import BrainITConfig
from brainit.processes import Processes
from lab.decoding.settings import ReconstructConfig
from lab.jobs.reconstruct import reconstruct

BRAIN = {
    "model": {"width": 16, "dropout": 0.0},
    "care": {"folds": 1, "beta_noise": 0.0, "voxel_dropout": 0.0},
    "train": {"epochs": 1, "steps_per_epoch": 2, "structure_loss": "mse"},
}


def train(out: Path, together: Processes) -> None:
    """Both processes are given the same folder; the first holds it."""
    file = out.parent / "planted.mat"
    if together.first:
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 256, (28, 144), dtype=np.uint8)
        voxels = pictures / 255 @ rng.normal(size=(144, 60))
        labels = np.arange(28)[:, None] % 2 + 1
        cuts = {"Trn": slice(24), "Test": slice(24, 28)}
        given = {"fmri": voxels, "stim": pictures, "label": labels}
        savemat(file, {f"{k}{s}": v[cut] for k, v in given.items() for s, cut in cuts.items()})
    together.wait()
    config = ReconstructConfig(
        dataset="mat", root=str(file), structure="brainit", external=0, device="cpu",
        brain=BrainITConfig.model_validate(BRAIN),
    )  # fmt: skip
    run = out.parent / f"run{together.size}"
    found = reconstruct(config, run, until="train")
    assert found.get("process", 0) == together.rank
    if together.first:
        events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses = [e["train_loss"] for e in events if e["event"] == "epoch"]
        save_file({"losses": torch.tensor(losses)}, out)
    together.wait()
