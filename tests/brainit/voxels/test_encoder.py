"""The image-to-fMRI encoder: prediction, embeddings shared by subjects, noise."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.voxels.clusters import nearest_voxels
from brainit.voxels.encoder import FeatureBasis, fit_encoder


def _world(noise: float = 0.5):
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((120, 10)) for name in ("S1", "S2")}
    tuning = {name: rng.standard_normal((3, 10))[np.arange(n) % 3] for name, n in (("S1", 30), ("S2", 24))}
    tuning["S2"] = tuning["S1"][:3][np.arange(24) % 3]  # both subjects hold the same three kinds of voxel
    betas = {name: features[name] @ tuning[name].T for name in features}
    return features, {name: b + noise * rng.standard_normal(b.shape) for name, b in betas.items()}, tuning


def test_predicts_new_pictures() -> None:
    features, betas, tuning = _world()
    encoder = fit_encoder(features, betas, rank=4)
    new = np.random.default_rng(1).standard_normal((50, 10))
    correlation = np.corrcoef(encoder.predict(new, "S1").ravel(), (new @ tuning["S1"].T).ravel())[0, 1]
    assert correlation > 0.98


def test_embeddings_match_voxels_of_a_kind_across_subjects() -> None:
    features, betas, _ = _world()
    encoder = fit_encoder(features, betas, rank=4)
    match = nearest_voxels(encoder.embeddings["S2"], encoder.embeddings["S1"])
    assert (match % 3 == np.arange(24) % 3).all()
    fresh = encoder.embed(features["S2"], betas["S2"])
    match = nearest_voxels(fresh, encoder.embeddings["S1"])
    assert (match % 3 == np.arange(24) % 3).all()


def test_noise_has_the_residuals_covariance() -> None:
    features, betas, _ = _world()
    rng = np.random.default_rng(2)
    shared = rng.standard_normal((120, 1))
    encoder = fit_encoder(features, {"S1": betas["S1"] + 2 * shared, "S2": betas["S2"]}, rank=4)
    drawn = encoder.noise(4000, "S1", np.random.default_rng(3))
    expected = encoder.residuals["S1"].T @ encoder.residuals["S1"] / 120
    np.testing.assert_allclose(drawn.var(0), np.diag(expected), rtol=0.2)
    assert np.corrcoef(drawn[:, :2].T)[0, 1] > 0.5


@pytest.mark.parametrize("shape", [(8, 30), (60, 12)])
def test_basis_whitens(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) * 5 + 2
    parts = FeatureBasis.fit(x, 6).apply(x)
    np.testing.assert_allclose(parts.T @ parts / len(x), np.eye(6), atol=1e-4)


def test_unequal_lengths() -> None:
    features, betas, _ = _world()
    with pytest.raises(InputError, match="119 feature rows for 120"):
        fit_encoder({**features, "S1": features["S1"][1:]}, betas)
