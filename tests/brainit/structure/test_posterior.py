"""The whole posterior on made-up subjects with known voxels, and on digits69's training trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from brainit.errors import InputError
from brainit.structure import PicturePosterior, fit_posterior
from brainit.structure.features import CANDIDATES, FeatureMap
from tests.brainit.structure.test_priors import bars

MAP = FeatureMap("energy", frequency=0.3)


def responses(pictures: np.ndarray, noise: float = 0.7, voxels: int = 120, seed: int = 5) -> np.ndarray:
    """Voxels linear in energy, plus noise of which a part is shared."""
    rng = np.random.default_rng(seed)
    f = MAP(pictures)
    w = rng.normal(size=(f.shape[1], voxels)) * (rng.random((f.shape[1], voxels)) < 0.05)
    signal = f @ w / (MAP(bars(300, seed=8)) @ w).std(0)
    rng = np.random.default_rng(len(pictures))
    shared = rng.normal(size=(len(pictures), 2)) @ rng.normal(size=(2, voxels))
    return signal + noise * (rng.normal(size=signal.shape) + 0.5 * shared)


def fit(n: int = 45, prior: np.ndarray | None = None, **more: object) -> PicturePosterior:
    train = bars(n, seed=1)
    prior = bars(3000, seed=2) if prior is None else prior
    return fit_posterior(responses(train), train, prior, maps=CANDIDATES[:2], **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> PicturePosterior:
    return fit()


def test_beats_ridge_on_new_trials_and_chooses_the_true_map(fitted: PicturePosterior) -> None:
    from brainit.voxels.ridge import fit_ridge

    train, test = bars(45, seed=1), bars(12, seed=3)
    ridge = fit_ridge(responses(train), train.reshape(45, -1)).predict(responses(test)).reshape(test.shape)
    out = fitted.decode(responses(test))
    assert fitted.applies and fitted.choice.features.name == "energy"
    assert ((out.mean - test) ** 2).mean() < 0.8 * ((np.clip(ridge, 0, 1) - test) ** 2).mean()
    assert out.picture.shape == out.std.shape == test.shape and (out.effective >= 1).all()


def test_samples_are_seeded_and_average_to_the_mean(fitted: PicturePosterior) -> None:
    x = responses(bars(3, seed=3))
    a = fitted.sample(x, 400, 0)
    assert a.shape == (3, 400, 16, 16)
    assert np.array_equal(a, fitted.sample(x, 400, 0)) and not np.array_equal(a, fitted.sample(x, 400, 1))
    np.testing.assert_allclose(a.mean(1), fitted.decode(x).mean, atol=0.08)


def test_equal_fits_are_equal(fitted: PicturePosterior) -> None:
    x = responses(bars(4, seed=3))
    assert np.array_equal(fitted.decode(x).picture, fit().decode(x).picture)


def test_held_out_does_not_see_the_trial(fitted: PicturePosterior) -> None:
    fitted = replace(fitted, crisp=0.0)  # the mean is what is compared
    held = fitted.held_out()
    train = bars(45, seed=1)
    assert abs(((held.mean - train) ** 2).mean() - fitted.posterior_mse) < 1e-4
    assert ((fitted.decode(responses(train)).mean - train) ** 2).mean() < fitted.posterior_mse


def test_a_prior_that_does_not_fit_is_refused_and_ridge_given() -> None:
    other = np.random.default_rng(0).random((500, 16, 16)).astype(np.float32)
    fitted = fit(prior=other)
    assert not fitted.applies and fitted.posterior_mse > fitted.ridge_mse
    test = bars(6, seed=3)
    out = fitted.decode(responses(test))
    assert np.array_equal(out.picture, out.mean) and out.std.shape == test.shape
    assert ((out.mean - test) ** 2).mean() < ((bars(45, seed=1).mean(0) - test) ** 2).mean()
    samples = fitted.sample(responses(test), 5, 0)
    assert samples.shape == (6, 5, 16, 16) and samples.std(1).mean() > 0.01
    assert fitted.held_out().mean.shape == (45, 16, 16)


def test_colour_stimuli_with_a_grey_prior() -> None:
    train = np.repeat(bars(20, seed=1)[..., None], 3, -1)
    fitted = fit_posterior(responses(train), train, bars(300, seed=2), maps=[MAP])
    assert fitted.decode(responses(train)[:2]).picture.shape == (2, 16, 16, 3)


def test_bad_input(fitted: PicturePosterior) -> None:
    train = bars(20, seed=1)
    x = responses(train)
    with pytest.raises(InputError, match="equal trials"):
        fit_posterior(x[:-1], train, train)
    with pytest.raises(InputError, match="at least 8"):
        fit_posterior(x[:5], train[:5], train)
    with pytest.raises(InputError, match="not finite"):
        fit_posterior(np.where(x > 2, np.nan, x), train, train)
    with pytest.raises(InputError, match="120"):
        fitted.decode(x[:, :50])
    with pytest.raises(InputError, match="not finite"):
        fitted.decode(np.full((1, 120), np.inf))


@pytest.mark.shared_data
def test_digits69_training_trials(shared_data: Path, repo: Path) -> None:
    """Cross-validated on the 90 training trials; the test trials are not read."""
    file = loadmat(shared_data / "digits69" / "digit69_28x28.mat", variable_names=["fmriTrn", "stimTrn"])
    stimuli = file["stimTrn"].reshape(-1, 28, 28).transpose(0, 2, 1).astype(np.float32) / 255
    prior = repo / "lab" / "zoo" / "weights" / "glyph-prior.safetensors"
    fitted = fit_posterior(file["fmriTrn"], stimuli, prior, maps=CANDIDATES[3:], n_candidates=8000)
    assert fitted.applies
    assert fitted.posterior_mse < 0.032 < 0.043 < fitted.ridge_mse
