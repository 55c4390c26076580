"""Structural pictures and baselines: fitted on training trials, left-out ones beside their own pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainit.subject import Subject
from brainit.training.targets import Prediction
from brainit.voxels.ridge import fit_ridge_loo
from lab.decoding import structure
from lab.decoding.settings import ReconstructConfig
from lab.progress import silent

N_TRAIN, N_TEST, SIDE = 16, 5, 8


@pytest.fixture
def parts() -> tuple[Subject, Subject]:
    """Training and test trials of voxels that see single pixels, badly."""
    rng, n = np.random.default_rng(0), N_TRAIN + N_TEST
    pictures = rng.random((n, SIDE, SIDE)).astype(np.float32)
    betas = 7 + 3 * (pictures.reshape(n, -1) + 0.3 * rng.standard_normal((n, SIDE**2)))
    ids, zero = np.array([f"p{k}" for k in range(n)]), np.zeros(n, int)
    split = np.where(np.arange(n) < N_TRAIN, "train", "test")
    subject = Subject(
        "toy", "S1", True, betas.astype(np.float32), np.zeros((SIDE**2, 3), np.float32), ids, zero, zero,
        zero, split, dict(zip(ids.tolist(), pictures, strict=True)),
    )  # fmt: skip
    return subject.part("train"), subject.part("test")


def held(train: Subject, order: np.ndarray) -> SimpleNamespace:
    """A decoder whose held-out maps are the pictures themselves, and whose tokens are the trial's number."""
    maps = torch.from_numpy(train.images()[order])[:, None]
    tokens = torch.from_numpy(order.astype(np.float32))[:, None, None]
    said = train.stimulus_id[order], Prediction(tokens, [maps])
    return SimpleNamespace(held_out=lambda name: said)


def grey(maps: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(maps["map0"], np.float32)).expand(-1, 3, -1, -1)


def test_baselines_know_training_trials_alone_and_leave_each_out(parts, monkeypatch) -> None:
    train, test = parts
    monkeypatch.setattr(structure, "tokens_of", lambda x: x[:, :, ::16, 0])
    order = np.array([5, 2, 11])
    found = structure.baselines(train, test, train.stimulus_id[order].tolist())
    mean, spread = train.betas.mean(0, np.float64), train.betas.std(0, dtype=np.float64)
    x, y = ((p.betas - mean) / spread for p in parts)
    pixels = train.images().reshape(N_TRAIN, -1)
    ridge, _ = fit_ridge_loo(x, pixels)
    np.testing.assert_allclose(found["ridge"].reshape(N_TEST, -1), ridge.predict(y).clip(0, 1), atol=1e-4)
    np.testing.assert_allclose(found["mean_image"][3], train.images().mean(0), atol=1e-6)
    for row, trial in enumerate(order):  # by leaving it out in fact
        rest = np.arange(N_TRAIN) != trial
        a, b = x[rest] - x[rest].mean(0), pixels[rest] - pixels[rest].mean(0)
        weights = a.T @ np.linalg.solve(a @ a.T + float(ridge.alpha) * np.eye(N_TRAIN - 1), b)
        alone = (x[trial] - x[rest].mean(0)) @ weights + pixels[rest].mean(0)
        np.testing.assert_allclose(found["ridge_left_out"][row].ravel(), alone.clip(0, 1), atol=2e-3)
    goals = structure.to_model(train.images()).numpy()[:, :, ::16, 0]
    tokens, _ = fit_ridge_loo(x, goals.reshape(N_TRAIN, -1))
    np.testing.assert_allclose(found["ridge_tokens"].reshape(N_TEST, -1), tokens.predict(y), atol=1e-4)


def test_a_blend_is_weighed_on_pictures_beside_what_was_said_of_them(parts, monkeypatch) -> None:
    train, test = parts
    monkeypatch.setattr(structure, "inverted", grey)
    order = np.random.default_rng(1).permutation(N_TRAIN)
    noise = np.random.default_rng(2).random((N_TRAIN, SIDE, SIDE)).astype(np.float32)
    simple = {
        "mean_image": np.broadcast_to(train.images().mean(0), test.images().shape),
        "ridge": test.images() * 0,
    }
    simple["ridge_left_out"] = noise
    found = structure.blended(held(train, order), train, {"map0": test.images()[:, None]}, simple)
    assert all(ours == pytest.approx(1, abs=0.02) for _, ours in found.weights.values())
    np.testing.assert_allclose(found.left_out, found.truth, atol=0.05)
    assert found.stimuli.tolist() == train.stimulus_id[order].tolist()
    np.testing.assert_allclose(found.picture, test.images(), atol=0.05)
    config = ReconstructConfig(structure="blend", left_out=6)
    predicted = {"map0": test.images()[:, None], "tokens": np.zeros(1)}
    said = structure.structural(config, train, test, predicted, simple, held(train, order), silent)
    facts = said["posterior"]
    assert (
        facts["brainit_weight.from_0"] == pytest.approx(1, abs=0.02)
        and abs(facts["ridge_weight.from_0"]) < 0.02
    )
    assert said["start"].shape == (N_TEST, 3, 64, 64) and said["left_out_start"].shape == (6, 3, 64, 64)


def test_left_out_tokens_and_pictures_are_of_the_same_trials(parts, monkeypatch) -> None:
    train, test = parts
    monkeypatch.setattr(structure, "inverted", grey)
    order = np.random.default_rng(1).permutation(N_TRAIN)
    config = ReconstructConfig(structure="brainit", left_out=6)
    predicted = {"map0": test.images()[:, None]}
    found = structure.structural(config, train, test, predicted, {}, held(train, order), silent)
    trials = found["left_out_tokens"].ravel().astype(int)
    assert len(set(trials)) == 6
    np.testing.assert_array_equal(found["left_out_start"][:, 0], train.images()[trials])
    fitted = SimpleNamespace(
        decode=lambda betas: SimpleNamespace(picture=test.images(), effective=np.ones(N_TEST)),
        held_out=lambda: SimpleNamespace(picture=train.images()), applies=True, posterior_mse=1,
        ridge_mse=2,
    )  # fmt: skip
    monkeypatch.setattr("brainit.structure.fit_posterior", lambda *data, **options: fitted)
    config = ReconstructConfig(structure="posterior", left_out=6)
    found = structure.structural(config, train, test, predicted, {}, held(train, order), silent)
    same = structure.to_model(train.images()[found["left_out_tokens"].ravel().astype(int)])
    np.testing.assert_array_equal(found["left_out_start"], same.numpy())
