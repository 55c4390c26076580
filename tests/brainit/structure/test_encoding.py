"""The encoding model against dense linear algebra and brute-force refits."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.structure.encoding import Basis, fit_encoding, log_likelihood
from brainit.structure.features import CANDIDATES, FeatureMap, check_pictures, resize


@pytest.fixture
def trials() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    f = rng.normal(size=(14, 4))
    return f @ rng.normal(size=(4, 9)) + rng.normal(size=(14, 9)), f


def test_residuals_are_those_of_refits_without_the_trial(trials: tuple[np.ndarray, np.ndarray]) -> None:
    x, f = trials
    model = fit_encoding(x, f, penalties=[2.0])
    keep = np.arange(14) != 5
    without = fit_encoding(x[keep], f[keep], penalties=[2.0])
    said = without.x_mean + (f[5] - without.f_mean) @ without.weights
    np.testing.assert_allclose(x[5] - said, model.residuals[5], rtol=1e-8)


@pytest.mark.parametrize("gamma", [0.3, 0.9, 1.0])
def test_likelihood_is_the_dense_gaussian(trials: tuple[np.ndarray, np.ndarray], gamma: float) -> None:
    x, f = trials
    model = fit_encoding(x, f)
    h, info = model.statistics(x[:2], gamma)
    fast = log_likelihood(h, info, f)
    noise = np.sqrt((model.residuals**2).mean(0))
    r = model.residuals / noise
    inverse = np.linalg.inv(gamma * np.eye(9) + (1 - gamma) * r.T @ r / len(r))
    off = (x[:2, None] - model.x_mean - ((f - model.f_mean) @ model.weights)[None]) / noise
    dense = -0.5 * np.einsum("nsv,vw,nsw->ns", off, inverse, off)
    np.testing.assert_allclose(fast - fast[:, :1], dense - dense[:, :1], rtol=1e-4, atol=1e-4)


def test_a_voxel_of_noise_gets_small_weights_and_a_dead_one_none() -> None:
    rng = np.random.default_rng(1)
    f = rng.normal(size=(60, 3))
    x = np.stack([f[:, 0] + 0.1 * rng.normal(size=60), rng.normal(size=60), np.full(60, 2.0)], 1)
    model = fit_encoding(x, f)
    assert model.voxels.tolist() == [True, True, False]
    assert np.abs(model.weights[:, 1]).max() < 0.25 < 0.9 < model.weights[0, 0]


def test_no_varying_voxel_is_an_error() -> None:
    with pytest.raises(InputError, match="none of the 3 voxels"):
        fit_encoding(np.ones((9, 3)), np.random.default_rng(0).normal(size=(9, 2)))


def test_basis_keeps_inner_products_of_training_features() -> None:
    f = np.random.default_rng(2).normal(size=(10, 40)).astype(np.float32)
    basis = Basis.of(f)
    z = basis.project(f) * basis.scale
    c = f - f.mean(0)
    np.testing.assert_allclose(z @ z.T, c @ c.T, atol=1e-3)
    with pytest.raises(InputError, match="equal features"):
        Basis.of(np.ones((5, 4), np.float32))


def test_energy_prefers_its_orientation() -> None:
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * 0.25 * np.arange(28))
    bars = np.stack([np.tile(wave, (28, 1)), np.tile(wave[:, None], (1, 28))]).astype(np.float32)
    maps = FeatureMap("e", frequency=0.25)(bars).reshape(2, 4, -1).mean(-1)
    assert maps[0].argmax() == 0  # varies along x
    assert maps[1].argmax() == 2  # varies along y


@pytest.mark.parametrize("feature_map", CANDIDATES, ids=lambda m: m.name)
def test_features_of_large_and_colour_pictures_are_finite(feature_map: FeatureMap) -> None:
    pictures = np.random.default_rng(0).random((3, 64, 64, 3)).astype(np.float32)
    features = feature_map(pictures)
    assert features.dtype == np.float32 and features.shape[0] == 3 and np.isfinite(features).all()


def test_resize_keeps_constant_pictures() -> None:
    assert np.allclose(resize(np.full((2, 28, 28), 0.3, np.float32), 64), 0.3, atol=1e-6)
    assert resize(np.zeros((1, 10, 10, 3), np.float32), 5).shape == (1, 5, 5, 3)


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        (np.zeros((3, 5, 6)), "square"),
        (np.zeros((3, 5, 5, 2)), "square"),
        (np.zeros((0, 5, 5)), "n >= 1"),
        (np.full((2, 4, 4), 255.0), "0..1"),
        (np.full((2, 4, 4), np.nan), "0..1"),
    ],
)
def test_bad_pictures(pictures: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_pictures(pictures)
