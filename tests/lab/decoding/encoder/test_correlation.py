"""Brain correlation: the stimuli answer like the brain, other pictures do not, one picture never does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import simulated
from brainit.subject import Subject
from lab import zoo
from lab.decoding.encoder import correlation
from lab.decoding.encoder.correlation import brain_correlation, check_encoder
from lab.decoding.encoder.people import open_people
from lab.errors import InputError, MissingDataError
from lab.progress import silent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated subjects with hardly any noise."""
    root = tmp_path_factory.mktemp("people") / "data"
    sizes = {"n_subjects": 2, "n_voxels": 80, "n_train": 60, "n_shared": 40, "n_test": 10, "n_repeats": 2}
    return simulated.generate(root, simulated.preset("small", **sizes, ceiling=0.9, ceiling_spread=0.0))


@pytest.fixture(scope="module")
def subject(root: Path) -> Subject:
    """The first of them."""
    return datasets.open("simulated", root, "sub-01")


def test_stimuli_score_above_shuffled_ones(subject: Subject) -> None:
    kept: dict[str, dict] = {}

    def step(name, compute):
        return kept.setdefault(name, compute())

    scorer = brain_correlation(step, subject)
    truth = subject.part("test").mean_over_repeats().images()
    own = scorer(truth)
    assert own.shape == (10,) and own.mean() > scorer(np.roll(truth, 1, 0)).mean() + 0.1
    assert list(kept) == ["voxel-encoder"]
    again = brain_correlation(lambda name, compute: kept[name], subject)  # nothing is fitted again
    np.testing.assert_array_equal(again(truth), own)


def test_responses_are_scaled_by_training_trials_and_test_trials_teach_nothing(subject, monkeypatch) -> None:
    monkeypatch.setattr(zoo, "load", lambda *_: None)
    monkeypatch.setattr(correlation, "_tokens", lambda x, *_: np.asarray(x)[:, ::8, ::8].reshape(len(x), -1))
    kept: list[dict[str, np.ndarray]] = []

    def step(name, compute):
        kept.append(compute())
        return kept[-1]

    scorer = brain_correlation(step, subject)
    train, test = (subject.part(split).mean_over_repeats().betas for split in ("train", "test"))
    np.testing.assert_allclose(scorer.measured, (test - train.mean(0)) / train.std(0), atol=1e-4)
    moved = np.where((subject.split == "test")[:, None], subject.betas[::-1], subject.betas)
    brain_correlation(step, replace(subject, betas=moved))
    assert all(np.array_equal(value, kept[1][name]) for name, value in kept[0].items())


def test_people_are_tested_on_nothing_that_anybody_learned_from(root: Path) -> None:
    people = open_people("simulated", str(root), (), {}, silent)
    assert [own.name for own in people.subjects] == ["sub-01", "sub-02"]
    tested = {key for own in people.subjects for key in own.part("test").stimulus_id}
    assert not tested & {key for own in people.subjects for key in own.part("train").stimulus_id}
    assert "0 of 10" in people.leak_line
    with pytest.raises(InputError, match="no subject 'sub-7'"):
        open_people("simulated", str(root), ("sub-7",), {}, silent)


def test_by_the_encoder_of_a_run(root: Path, subject: Subject, tmp_path: Path) -> None:
    from lab.jobs.brain.encode import Settings, run
    from lab.jobs.contract import Context

    quick = {"epochs": 6, "features": 8, "embedding": 8, "voxel_draws": 0, "taps": (0, 4), "batch": 8}
    out, given = tmp_path / "run", {"root": root, "subjects": "sub-01", "encoder": quick, "device": "cpu"}
    run(Settings.model_validate(given | {"out": out}), Context())

    def step(name, compute):
        raise AssertionError("no linear encoder is fitted")

    truth = subject.part("test").mean_over_repeats().images()
    scorer = brain_correlation(step, subject, encoder=out)
    assert scorer.encoder == "universal voxel encoder of run"
    assert scorer(truth).mean() > scorer(np.roll(truth, 1, 0)).mean()
    with pytest.raises(InputError, match=r"knows simulated sub-01 \(80 voxels\), not simulated sub-02"):
        brain_correlation(step, datasets.open("simulated", root, "sub-02"), encoder=out)
    with pytest.raises(InputError, match="fitted on other trials of 'sub-01' than these"):
        check_encoder(out, replace(subject, split=np.roll(subject.split, 1)))
    with pytest.raises(MissingDataError, match="give a finished run"):
        brain_correlation(step, subject, encoder=tmp_path)
