"""Whom networks learn from: nothing that is tested, by name in anybody's trials, is learned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from brainit.subject import Subject
from lab.decoding import data
from lab.decoding.encoder import people
from lab.decoding.settings import ReconstructConfig
from lab.progress import silent

SPLITS = ["train"] * 5 + ["test"] * 2
SHOWN = {"S1": ["a", "b", "c", "d", "x", "x", "y"], "S2": ["a", "b", "x", "z", "e", "z", "w"]}
"""S1 learns from a picture of its own test (x); S2 from one of S1's and from one of its own (z)."""


def subject(name: str) -> Subject:
    rng, ones = np.random.default_rng(len(name)), np.ones(7, int)
    pictures = np.random.default_rng(0).random((8, 16, 16)).astype(np.float32)
    stimuli = dict(zip("abcdexyz", pictures, strict=True)) | {"w": 1 - pictures[0]}
    return Subject(
        "toy", name, True, rng.normal(size=(7, 4)).astype(np.float32), np.zeros((4, 3), np.float32),
        np.array(SHOWN[name]), ones, ones, ones * 0, np.array(SPLITS), stimuli,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(
        subjects=lambda *_: ["S1", "S2"], open=lambda _, root, name, **options: subject(name or "S1")
    )
    monkeypatch.setattr(data, "datasets", made)
    monkeypatch.setattr(people, "datasets", made)


def test_other_subjects_teach_nothing_that_is_tested_and_ones_own_leak_is_said() -> None:
    config = ReconstructConfig(dataset="mat", structure="ridge")
    found = data.open_subjects(config, silent)
    (other,) = found.others
    assert other.stimulus_id.tolist() == ["a", "b", "z", "e"] and set(other.split) == {"train"}
    assert [s.name for s in found.learners] == ["S1", "S2"]
    assert "1 of 2 test pictures in training (1 exact" in found.about["leak_line"]
    alone = data.open_subjects(config.model_copy(update={"train_on": "one"}), silent)
    assert not alone.others


def test_an_encoder_learns_from_nobodys_test_pictures() -> None:
    found = people.open_people("mat", None, (), {}, silent)
    trained = {s.name: s.part("train").stimulus_id.tolist() for s in found.subjects}
    assert trained == {"S1": ["a", "b", "c", "d"], "S2": ["a", "b", "e"]}
    assert [s.part("test").n_trials for s in found.subjects] == [2, 2]
    assert "0 of 2 test pictures in training" in found.leak_line
