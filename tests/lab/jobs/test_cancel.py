"""Every job can be stopped: at once, without a trace of an error, and the same settings go on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.jobs import registry
from lab.jobs.contract import Cancelled, Context, Result
from tests.lab.jobs.test_allocate import folder  # noqa: F401 - a tiny model with its recording
from tests.lab.zoo.conftest import data  # noqa: F401 - a tiny folder of pictures

SECONDS = 1.0
"""Of this thread's own work between the request and the end: a busy machine is no fault of the job."""
QUICK = [name for name, job in registry.JOBS.items() if job.seconds < registry.QUICK]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated subjects, as small as can be decoded."""
    from brainit.datasets import simulated

    root = tmp_path_factory.mktemp("simulated") / "data"
    sizes = {"n_subjects": 1, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 4, "n_repeats": 2}
    simulated.generate(root, simulated.preset("small", **sizes, n_sessions=1))
    return root


def picture(place: Path) -> Path:
    """Write a picture of 64 x 64."""
    from PIL import Image

    file = place / "picture.png"
    Image.new("RGB", (64, 64), "grey").save(file)
    return file


@pytest.fixture
def asked(
    folder: Path,  # noqa: F811
    data: Path,  # noqa: F811
    root: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Callable[[str], dict[str, Any]]:
    """Settings of each long job, for a second's work or little more."""
    model = {"model": str(folder / "unet"), "recording": folder / "rec"}
    few = {**model, "samples": 1, "timesteps": 1, "device": "cpu"}
    brain = {
        "model": {"width": 16, "heads": 2, "depth": 0}, "clusters": {"n_clusters": 4},
        "train": {"epochs": 1, "steps_per_epoch": 4}, "encoder_rank": 8,
    }  # fmt: skip
    run = {
        "dataset": "simulated", "root": str(root), "steps": 2, "noise_seeds": 1, "guidance": 1.0,
        "bootstrap": 100, "train_on": "one", "brain": brain, "structure": "blend", "device": "cpu",
    }  # fmt: skip
    zoo = {"data": data, "device": "cpu", "out": tmp_path / "o"}
    table = {
        "record": {
            "model": str(folder / "unet"), "out": tmp_path / "o", "scheduler": "DDIMScheduler", "samples": 4,
            "steps": 2, "batch": 2, "device": "cpu",
        },
        "inspect": {**model, "out": tmp_path / "o", "layers": "mid_block*", "samples": 2, "steps": 2},
        "quantize": {**model, "recipe": "mixdq-w8a8", "out": tmp_path / "o"},
        "compare": {
            **model, "recipes": "rtn-w8a8", "out": tmp_path / "o", "n": 4, "seeds": 1, "steps": 2,
            "guidance": 1.0,
        },
        "allocate": {**few, "out": tmp_path / "o", "bits": "4", "choices": "3,4"},
        "sensitivity": {**few, "out": tmp_path / "o.json", "layers": "mid_block*"},
        "data fetch": {"name": "simulated", "root": tmp_path / "o"},
        "data check": {"name": "simulated", "root": root},
        "zoo train": {**zoo, "name": "structure-64", "steps": 2, "batch": 4, "limit": 8},
        "zoo refine": {**zoo, "name": "autoencoder-64", "steps": 2, "batch": 4, "limit": 8},
        "zoo evaluate": {**zoo, "name": "structure-64", "n": 4},
        "zoo stimuli": {**zoo, "n": 2, "steps": 2},
        "watermark embed": {"samples": 1, "out": tmp_path / "o", "device": "cpu"},
        "watermark verify": {"pictures": (picture(tmp_path),)},
        "watermark report": {**zoo, "n": 20, "sections": "null,images"},
        "watermark train": {
            **zoo, "limit": 64, "recipe": "watermark-48+extractor_steps=1+key_steps=1+extractor_batch=4"
            "+key_batch=4+mapper_rank=4",
        },
        "zoo sample": {"name": "unet-64", "n": 2, "steps": 3, "out": tmp_path / "o.png"},
        "brain prepare": {**run, "out": tmp_path / "o"},
        "brain train": {**run, "out": tmp_path / "o"},
        "brain reconstruct": {**run, "out": tmp_path / "o"},
        "brain encode": {
            "root": root, "encoder": {"epochs": 1, "voxel_draws": 8}, "device": "cpu", "out": tmp_path / "o",
        },
        "brain tune": {**run, "strengths": (0.5,), "averaged": (1,)},
        "brain adapt": {  # its curve: cohort/test_adapt.py
            "dataset": "simulated", "root": root, "out": tmp_path / "o", "epochs": 2, "device": "cpu",
        },
        "brain study": {"out": tmp_path / "o", "device": "cpu"},
        "demo": {"out": tmp_path / "o"},
        "bench shape": {"rows": 16, "inner": 32, "outer": 16},
        "whatif": {**model, "samples": 1, "steps": 2},
        "variants": {"model": "unet-64", "recipes": "rtn-w8a8", "n": 1, "steps": 2, "out": tmp_path / "o"},
    }  # fmt: skip

    def settings(name: str) -> dict[str, Any]:
        if name in ("brain bits", "brain decode"):  # of a run that was trained
            given = {"folder": request.getfixturevalue("trained_run"), "out": tmp_path / "o"}
            if name == "brain decode":
                return {**given, "trials": "0"}
            return {**given, "recipes": "rtn-w8a8", "device": "cpu"}
        return table[name]

    return settings


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What the jobs write into the zoo goes into a copy; the demo's subjects are few."""
    from brainit.datasets.simulated import config
    from lab import zoo
    from lab.jobs import demo
    from lab.jobs.models import inspect
    from lab.zoo import evaluate, stimuli, train

    home = tmp_path / "zoo"
    for part in ("weights", "cards"):
        shutil.copytree(zoo.HOME / part, home / part, copy_function=os.symlink)  # replaced, not written into
    for module in (zoo, train, evaluate):
        monkeypatch.setattr(module, "HOME", home)
    monkeypatch.setattr(stimuli, "FIRST", 4)
    if "zoo stimuli" in request.node.name:  # it writes them; others read the shipped ones
        monkeypatch.setattr(stimuli, "SHEET", home / "sheet.webp")
        monkeypatch.setattr(stimuli, "CARD", home / "card.json")
    small = {"n_subjects": 1, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 4, "n_repeats": 2}
    monkeypatch.setitem(config.PRESETS, "small", config.SimulationConfig(**small, n_sessions=1))
    monkeypatch.setitem(
        config.PRESETS, "demo", config.SimulationConfig(preset="demo", seed=20, **small, n_sessions=1)
    )
    monkeypatch.setattr(demo, "SUBJECTS", ("sub-01",))
    monkeypatch.setattr(inspect, "_draw", lambda *given: (given[3] / "index.html").write_text("page"))


@pytest.mark.parametrize("name", registry.JOBS)
def test_a_job_that_is_stopped_before_it_begins_does_nothing(name: str) -> None:
    context = Context()
    context.cancel()
    with pytest.raises(Cancelled):
        registry.run(name, None, context)  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", [name for name in registry.JOBS if name not in QUICK])
def test_a_job_is_stopped_at_its_first_report_and_goes_on(name: str, asked: Callable, tmp_path: Path) -> None:
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    settings = registry.settings(name, asked(name))
    since: list[float] = []

    def first(done: int, total: int, what: str) -> None:
        context.cancel()
        since.append(time.thread_time())

    context = Context(report=first)
    with pytest.raises(Cancelled):
        registry.run(name, settings, context)
    assert len(since) == 1 and time.thread_time() - since[0] < SECONDS
    assert not [f for f in tmp_path.rglob("*") if ".part" in f.name]
    if name in FINISHED_ELSEWHERE:
        return
    result = registry.run(name, settings, Context())
    assert isinstance(result, Result) and result.exit_code() == 0


ELSEWHERE = {
    "brain report": "over in a moment: its one report is its end",
    "brain prepare": "over in a moment: its one report is its end",
    "app": "serves until it is stopped: tests/lab/app",
    "bench kernels": "needs a CUDA device",
}
FINISHED_ELSEWHERE = {"demo", "brain study", "brain reconstruct", "brain bits"}
"""Takes the time of a whole run once more, a part of which `brain train` has here.

Reconstruct is killed and goes on in test_reconstruct.py, bits is stopped and goes on in brain/test_bits.py.
"""


def test_a_model_that_reports_nothing_is_stopped_inside() -> None:
    from lab.jobs.stopping import stoppable

    context = Context()
    layers = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(3)])
    layers[1].register_forward_hook(lambda *_: context.cancel())
    with pytest.raises(Cancelled), stoppable(context):
        layers(torch.zeros(1, 2))
    assert layers(torch.zeros(1, 2)).shape == (1, 2)  # outside nothing is watched
