"""What the fixture `in_two_processes` starts by ``accelerate launch``, and trainings that several can share.

``launched.py FOLDER`` leaves what the launcher says to each process, ``FOLDER/RANK.json``, and imports
nothing heavy. ``train_all`` takes it over in a process that has imported everything, where each training
leaves ``FOLDER/NAME/2.safetensors``: importing takes longer than training.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def train_all(home: Path, rank: int, port: int) -> None:
    """Be the process of this rank of two; they meet at a port of their own, the launcher's is gone."""
    import torch
    from accelerate import PartialState

    from brainit.processes import Processes
    from tests.brainit.training import in_processes as brain_it
    from tests.brainit.voxels.universal import in_processes as voxel_encoder
    from tests.lab.jobs import in_processes as brain_train
    from tests.lab.zoo.shared import in_processes as shared_network

    os.environ |= json.loads((home / f"{rank}.json").read_text()) | {"MASTER_PORT": str(port)}
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # the launcher keeps it
    PartialState._reset_state()
    torch.set_num_threads(1)
    together = Processes.current()
    assert (together.rank, together.size) == (rank, 2)
    for name, train in {
        "brain-it": brain_it.train, "voxel-encoder": voxel_encoder.fit, "shared-network": shared_network.fit,
        "brain-train": brain_train.train,
    }.items():  # fmt: skip
        folder = home / name
        folder.mkdir(exist_ok=True)
        train(folder / "2.safetensors", together)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    (Path(sys.argv[1]) / f"{os.environ['RANK']}.json").write_text(json.dumps(dict(os.environ)))
