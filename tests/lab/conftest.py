"""A decoder of a tiny simulated subject, trained once a session; a shallow denoiser; runs that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.decoding.settings import ReconstructConfig


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are there and nothing is drawn: most of a page's time, where its words are looked at."""
    from lab.figures.plate import Plate

    monkeypatch.setattr(Plate, "__post_init__", lambda plate: None)
    monkeypatch.setattr(Plate, "uri", lambda plate, kind="svg": "data:image/svg+xml;base64,")
    monkeypatch.setattr(Plate, "png", lambda plate, dpi=0, foot=False: b"")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A dit-64 of its first and last block: a third of the time, where the way through it is what is tested.

    What it records is in a cache of its own; other tests look for recordings of the whole one by its name.
    """
    from lab import zoo

    whole = zoo.load_file

    def load_file(path: Path) -> Any:
        model, extra = whole(path)
        if path == zoo.weight_file("dit-64"):
            model.transformer_blocks = model.transformer_blocks[::7]
            assert len(model.transformer_blocks) == 2
            model.register_to_config(num_layers=2)
        return model, extra

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "load_file", load_file)
        patch.setenv("BRAINLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def trained_run(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Run folder after ``brain train``: 40 training and 4 test pictures of 64 pixels, two sampling steps."""
    return once("trained", _train) / "run"


def _train(home: Path) -> None:
    from brainit.datasets import simulated
    from lab.jobs.reconstruct import reconstruct

    sizes = {"n_subjects": 1, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 4, "n_repeats": 1}
    simulated.generate(home / "data", simulated.preset("small", **sizes, n_sessions=1))
    config = ReconstructConfig.model_validate(
        {
            "dataset": "simulated", "root": str(home / "data"), "train_on": "one", "recipe": "none",
            "denoiser": "dit-64",  # draws in less than half of the other's time
            "noise_seeds": 2, "steps": 4, "strength": 0.5, "guidance": 2.0, "bootstrap": 100,
            "brain": {
                "model": {"width": 16, "heads": 2, "depth": 0}, "clusters": {"n_clusters": 4},
                "train": {"epochs": 1, "steps_per_epoch": 4}, "encoder_rank": 8,
            },
        }
    )  # fmt: skip
    reconstruct(config, home / "run", until="train")


@pytest.fixture
def killed() -> Callable[[list[str], Path], None]:
    """``killed(words, file)``: run brainlab in a process of its own, killed -9 once `file` is there.

    It is forked from this one, which has imported what takes a new one seconds; with CUDA that cannot be.
    """
    return _killed


def _killed(words: list[str], file: Path) -> None:
    import torch

    how = "spawn" if torch.cuda.is_available() else "fork"
    process: Any = multiprocessing.get_context(how).Process(target=_alone, args=(words,))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 240
    while not file.is_file():
        assert process.is_alive() and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _alone(words: list[str]) -> None:
    from lab.cli.main import run

    os.setsid()  # what it starts is killed with it
    raise SystemExit(run(words))
