"""The mixture in batches: what scikit-learn's finds, in both forms, the same with the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from brainit.errors import InputError
from brainit.voxels.mixture import fit_mixture


def _three(n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    turn = rng.standard_normal((3, 5, 5)) * 0.3
    x = np.einsum("ni,nij->nj", rng.standard_normal((n, 5)), turn[kind]) + 3 * np.eye(5)[kind]
    return x.astype(np.float32), kind


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_as_likely_as_what_all_voxels_at_once_give(covariance: str) -> None:
    x, kind = _three()
    found = fit_mixture(x, 3, covariance=covariance, batch=200, passes=8)
    whole = GaussianMixture(3, covariance_type=covariance, random_state=0, reg_covar=1e-5).fit(x)
    assert found.log_likelihood(x) == pytest.approx(whole.score(x), abs=0.05)
    labels = found.predict(x, batch=400)
    assert np.mean([np.bincount(labels[kind == k]).max() / (kind == k).sum() for k in range(3)]) > 0.97
    assert found.weights.sum().item() == pytest.approx(1)


def test_density_is_scikit_learns() -> None:
    x, _ = _three(300)
    for covariance in ("full", "diag"):
        found = fit_mixture(x, 2, covariance=covariance, passes=1)
        other = GaussianMixture(2, covariance_type=covariance)
        other.weights_, other.means_ = found.weights.numpy(), found.means.numpy()
        variance = found.covariance.numpy()
        other.precisions_cholesky_ = (
            1 / np.sqrt(variance)
            if covariance == "diag"
            else np.stack([np.linalg.inv(np.linalg.cholesky(c)).T for c in variance])
        )
        assert found.log_likelihood(x) == pytest.approx(other.score(x), abs=1e-6)


def test_same_seed_same_mixture() -> None:
    x, _ = _three(300)
    one, two, other = (fit_mixture(x, 4, batch=64, passes=2, seed=seed).means for seed in (3, 3, 4))
    assert (one == two).all() and not np.allclose(one, other)


@pytest.mark.parametrize(("k", "covariance", "says"), [(9, "full", "there are 5"), (2, "tied", "allowed")])
def test_refuses(k: int, covariance: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit_mixture(np.eye(5, dtype=np.float32), k, covariance=covariance)
