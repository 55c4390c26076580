"""Training on predicted tokens and measuring with them, at a toy size with a toy cortex."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainit.datasets.simulated import ventral
from lab import zoo
from lab.errors import InputError, MissingDataError
from lab.jobs.contract import Context
from lab.jobs.zoo import evaluate as evaluate_job
from lab.jobs.zoo import stimuli as stimuli_job
from lab.jobs.zoo import train as train_job
from lab.zoo import data as data_module
from lab.zoo import evaluate_predicted, people
from lab.zoo.sampling import SamplerSettings
from lab.zoo.shared import painting

SIZES = {"voxels": 40, "scanned": 16, "external": 4}


def toy_cortex(device: str) -> ventral.Maps:
    def stages(images: np.ndarray) -> list[np.ndarray]:
        places = images.reshape(len(images), ventral.GRID, 8, ventral.GRID, 8, 3).mean((2, 4))
        flat = places.reshape(len(images), -1, 3)
        return [flat, np.concatenate([flat, flat**2], -1)]

    return stages


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, own_zoo: Path) -> Path:
    monkeypatch.setattr(people, "cortex_maps", toy_cortex)
    monkeypatch.setattr(data_module, "N_PATTERNS", 20)
    monkeypatch.setattr(people, "scorer_maps", toy_cortex)
    ceilings = {"mixtures": (0.1,), "prototypes": (), "favourable": (0.3,)}
    monkeypatch.setattr(people, "TEST_CEILINGS", ceilings)
    monkeypatch.setattr(evaluate_predicted, "GUIDANCES", (3.0,))
    monkeypatch.setattr(evaluate_predicted, "HOME", own_zoo)
    for module in (evaluate_predicted, painting):
        monkeypatch.setattr(module, "SAMPLER", SamplerSettings(2, 2.0, 1.0, 8))
    return own_zoo


def learn(name: str, data: Path, out: Path, **settings: object) -> None:
    train_job.run(train_job.Settings(name=name, data=data, out=out, device="cpu", **settings), Context())


def measure(name: str, data: Path, out: Path, **settings: object) -> dict:
    wanted = evaluate_job.Settings(name=name, data=data, out=out, device="cpu", **settings)
    return evaluate_job.run(wanted, Context()).card


def test_pictures_come_in_the_same_order_for_training_and_measuring(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "N_PATTERNS", 20)
    images, n_scanned = people.training_pictures(data, 16, 4, 3)
    assert n_scanned == 16 and len(images) == 16 + 2 * 4 + 2 * 3
    assert torch.equal(images[20:24], images[16:20].flip(-1)), "mirror images of the external ones"
    tested, _ = people.tested_pictures(data, 16, 4, 5)
    assert len(tested) == 21 and torch.equal(tested[:16], images[:16])
    with pytest.raises(InputError, match="30 natural pictures are asked for; there are 24"):
        people.training_pictures(data, 26, 4, 0)


def test_nobody_is_trained_on_who_is_tested() -> None:
    seeds = {p.seed for p in people.training_people(100)}
    assert not seeds & {p.seed for p in people.unseen_people(100).values()}


def test_training_goes_on_from_the_weights_keeps_them_and_is_measured(
    toy: Path, data: Path, tmp_path: Path
) -> None:
    before, null, card = zoo.load("dit-64"), zoo.null_tokens("dit-64"), zoo.info("dit-64")["training"]
    stages = [*card.pop("earlier", []), card]
    learn("dit-64", data, tmp_path, on="predicted", steps=2, batch=4, simple=3, **SIZES)
    kept = tmp_path / f"dit-64-{len(stages)}.before.safetensors"
    assert torch.equal(zoo.load_file(kept)[1]["null"], null)
    after, record = zoo.load("dit-64"), zoo.info("dit-64")["training"]
    change = [(a - b).abs().max() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert 0 < max(change) < 1e-3, "two warm-up steps of Adam"
    assert (zoo.null_tokens("dit-64") - null).abs().max() < 1e-3
    assert record["earlier"] == stages and record["scanned"] == 16
    assert record["command"] == (
        "brainlab zoo train dit-64 --on predicted --steps 2 --batch 4 --voxels 40 --scanned 16"
        " --external 4 --simple 3"
    )
    found = measure("dit-64", data, tmp_path, on="predicted", before=kept, n=4, **SIZES)
    assert zoo.info("dit-64")["predicted"] == found and zoo.info("dit-64")["training"] == record
    assert [(r["person"], r["ceiling"]) for r in found["readings"]] == [
        ("mixtures", 0.1),
        ("favourable", 0.3),
    ]
    mean, low, high = found["readings"][0]["now, guidance 3"]["two_way"]
    assert 0 <= low <= mean <= high <= 1
    assert set(found["targets"]) >= {"two_way, mixtures at 0.1, guidance 3", "pixcorr, true tokens"}
    with Image.open(tmp_path / "dit-64-predicted.webp") as whole:
        assert whole.size == (4 * 66, 7 * 66), "stimuli, true tokens twice, two of each reading"
    with Image.open(toy / "cards" / "dit-64-predicted.webp") as ships:
        assert ships.size == (4 * 66, 6 * 66), "held-out pictures do not ship"


def test_an_installation_that_cannot_be_written_to_is_refused_before_any_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, how: zoo.HOME not in Path(place).parents)
    for call in (learn, measure):
        with pytest.raises(InputError, match=r"weights cannot be written to \(read-only\)"):
            call("structure-64", data, tmp_path)
    settings = stimuli_job.Settings(data=data, out=tmp_path)
    with pytest.raises(InputError, match="weights cannot be written to"):
        stimuli_job.dry_run(settings)
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'encoder-64' draws no picture from tokens"):
        learn("encoder-64", data, tmp_path, on="predicted")
    with pytest.raises(ValueError, match="'true' or 'predicted'"):
        learn("dit-64", data, tmp_path, on="guessed")
    with pytest.raises(InputError, match="--voxels is for training on predicted tokens"):
        learn("dit-64", data, tmp_path, voxels=30)
    with pytest.raises(InputError, match="always trains further; leave --further out"):
        learn("dit-64", data, tmp_path, on="predicted", further=True)
    with pytest.raises(InputError, match="--before is for measuring on predicted tokens"):
        measure("dit-64", data, tmp_path, before=tmp_path, n=2)
    with pytest.raises(MissingDataError, match="--before wants the weights that training kept"):
        measure("dit-64", data, tmp_path, on="predicted", before=tmp_path / "no")
    assert not list(tmp_path.iterdir())
