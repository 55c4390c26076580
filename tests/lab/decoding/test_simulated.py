from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import simulated
from brainit.datasets.simulated import config
from lab.decoding.simulated import DESCRIPTION, FEATURES, ensure_simulated
from lab.errors import explain
from lab.jobs.contract import Context
from lab.jobs.data import fetch
from lab.zoo import stimuli

TINY = {
    "n_subjects": 1,
    "n_voxels": 40,
    "n_train": 12,
    "n_shared": 6,
    "n_test": 3,
    "n_repeats": 1,
    "n_sessions": 1,
    "side": 32,
    "resolution": 4,
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = config.SimulationConfig(**TINY)
    monkeypatch.setitem(config.PRESETS, "small", small)


@pytest.mark.usefixtures("tiny")
def test_default_is_own_samples_and_a_network_that_neither_decodes_nor_scores(tmp_path: Path) -> None:
    root = ensure_simulated(tmp_path / "a")
    info = datasets.open("simulated", root).info
    assert info["stimuli"] == stimuli.NAME
    assert info["features"] == FEATURES["alexnet"] and "AlexNet" in info["features"]
    random = ensure_simulated(tmp_path / "r", features="random")
    assert datasets.open("simulated", random).info["features"] == "fixed random convolutions"
    again = ensure_simulated(root)  # already there: nothing is made, whatever was asked for by default
    assert again == root


@pytest.mark.usefixtures("tiny")
def test_circular_features_are_only_made_on_demand_and_said(tmp_path: Path) -> None:
    root = ensure_simulated(tmp_path / "a", features="encoder-64")
    said = datasets.open("simulated", root).info["features"]
    assert said == FEATURES["encoder-64"] and "encoder-64" in said and "circular" in said
    plain = ensure_simulated(tmp_path / "b")
    one, two = (datasets.open("simulated", folder) for folder in (root, plain))
    assert one.betas.shape == two.betas.shape and not np.array_equal(one.betas, two.betas)


@pytest.mark.usefixtures("tiny")
def test_given_pictures_are_shown_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", images=rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8))
    asked = fetch.Settings(name="simulated", root=tmp_path / "a", stimuli=tmp_path / "mine.npz")
    made = fetch.run(asked, Context())
    about = json.loads((Path(made.root) / DESCRIPTION).read_text())
    assert about["stimuli"] == "mine.npz"
    for other in ({"stimuli": "other.npz"}, {"preset": "cohort"}, {"seed": 3}, {"features": "encoder-64"}):
        changed = fetch.Settings(**{**dict(asked), "stimuli": None, **other})
        error = caught(fetch.run, changed, Context())
        assert explain(error).code == 2 and next(iter(other)) in str(error)


@pytest.mark.usefixtures("tiny")
def test_subjects_of_other_pictures_or_features_are_not_taken_for_these(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {}
    for name, n in (("one", 60), ("two", 70)):
        (tmp_path / name).mkdir()
        given[name] = tmp_path / name / "pictures.npz"
        np.savez(given[name], images=rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    root = tmp_path / "a"
    ensure_simulated(root, stimuli=given["one"], features="random")
    ensure_simulated(root, stimuli=given["one"], features="random")
    given["one"].rename(tmp_path / "one" / "moved")
    ensure_simulated(root, stimuli=given["one"])  # gone: its name is all that there is to compare
    for other, said in (
        ({"stimuli": given["two"]}, "stimuli_files"),
        ({"test_stimuli": given["two"]}, "test_stimuli None, not 'pictures.npz'"),
        ({"features": "alexnet"}, "features 'fixed random convolutions'"),
    ):
        error = caught(ensure_simulated, root, **other)
        assert said in str(error) and explain(error).code == 2
    plain = ensure_simulated(tmp_path / "b")
    assert "features" in str(caught(ensure_simulated, plain, features="random"))


@pytest.mark.usefixtures("tiny")
def test_procedural_pictures_where_no_samples_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stimuli, "SHEET", tmp_path / "none.webp")
    assert (
        datasets.open("simulated", ensure_simulated(tmp_path / "a")).info["stimuli"] == "procedural pictures"
    )


def test_presets_that_ship_fit_the_shipped_pictures() -> None:
    for name in ("small", "cohort-small"):
        assert config.PRESETS[name].n_pictures <= len(stimuli.load()[0])


def caught(call, *arguments, **options) -> BaseException:
    with pytest.raises(Exception) as found:
        call(*arguments, **options)
    return found.value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"features": "vgg"},
            "simulated features 'vgg' are not known; allowed: alexnet, efficientnet, random, encoder-64",
        ),
        ({"preset": "huge"}, "unknown preset 'huge'"),
    ],
)
def test_bad_input(tmp_path: Path, options: dict[str, str], said: str) -> None:
    error = caught(ensure_simulated, tmp_path / "a", **options)
    assert said in str(error) and explain(error).code == 2
    assert not (tmp_path / "a").exists()


def test_options_of_simulation_are_refused_for_real_data(tmp_path: Path) -> None:
    asked = fetch.Settings(name="haxby2001", root=tmp_path, preset="small")
    error = caught(fetch.run, asked, Context())
    assert "--preset is only for simulated" in str(error)


@pytest.mark.usefixtures("tiny")
def test_two_at_once_make_one_set_of_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    inside, made = [], simulated.generate

    def watched(folder: Path, *rest: object, **given: object) -> Path:
        inside.append(folder)
        time.sleep(0.2)  # time for the other one to come
        return made(folder, *rest, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated, "generate", watched)
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda _: ensure_simulated(tmp_path / "a", features="random"), range(2)))
    assert found == [tmp_path / "a"] * 2 and len(inside) == 1
    assert not list((tmp_path / "a").glob(".*"))
