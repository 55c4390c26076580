"""What the fixture `in_two_processes` starts by ``accelerate launch``: every training that several can share.

``launched.py FOLDER``: each training leaves ``FOLDER/NAME/2.safetensors``. One start serves all of them,
since starting takes longer than training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from brainit.processes import Processes
from tests.brainit.training import in_processes as brain_it
from tests.brainit.voxels.universal import in_processes as voxel_encoder
from tests.lab.jobs import in_processes as brain_train
from tests.lab.zoo.shared import in_processes as shared_network

TRAININGS = {
    "brain-it": brain_it.train, "voxel-encoder": voxel_encoder.fit, "shared-network": shared_network.fit,
    "brain-train": brain_train.train,
}  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    together = Processes.current()
    for name, train in TRAININGS.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(exist_ok=True)
        train(folder / "2.safetensors", together)
    print(f"process {together.rank} of {together.size}")
