"""Ridge against scikit-learn, its leave-one-out against actually leaving one out, and a published split."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from skimage.metrics import structural_similarity
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeCV

from brainit.errors import InputError
from brainit.voxels import ridge as ridges
from brainit.voxels.ridge import fit_ridge, fit_ridge_loo
from brainit.voxels.scaling import VoxelScaler

ALPHAS = np.logspace(-2, 4, 13)


def _data(n: int, p: int, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, p)) + 2
    return x, x[:, :4] @ rng.standard_normal((4, k)) + 2 * rng.standard_normal((n, k)) - 3


@pytest.mark.parametrize("shape", [(20, 50), (60, 15), (30, 30)])
@pytest.mark.parametrize("per_target", [False, True])
def test_equals_ridgecv(shape: tuple[int, int], per_target: bool) -> None:
    x, y = _data(*shape)
    own = fit_ridge(x, y, alphas=ALPHAS, per_target=per_target)
    theirs = RidgeCV(ALPHAS, alpha_per_target=per_target).fit(x, y)
    np.testing.assert_allclose(own.alpha, theirs.alpha_)
    np.testing.assert_allclose(own.predict(x), theirs.predict(x), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(own.coef, theirs.coef_.T, atol=1e-5)


def test_leave_one_out_is_exact() -> None:
    x, y = _data(12, 40)
    ridge, loo = fit_ridge_loo(x, y, alphas=[5.0])
    for i in range(len(x)):
        kept = np.arange(len(x)) != i
        expected = SklearnRidge(5.0).fit(x[kept], y[kept]).predict(x[i : i + 1])[0]
        np.testing.assert_allclose(loo[i], expected, atol=1e-4)
    assert float(ridge.loo_mse) == pytest.approx(((loo - y) ** 2).mean(), rel=1e-5)


def test_constant_voxels_and_targets_are_harmless() -> None:
    x, y = _data(15, 20)
    x[:, 3], y[:, 2] = 7.0, 1.5
    predicted = fit_ridge(x, y).predict(x)
    assert np.isfinite(predicted).all()
    np.testing.assert_allclose(predicted[:, 2], 1.5, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y: (x[:-1], y), "equal n"),
        (lambda x, y: (x[:2], y[:2]), "at least 3"),
        (lambda x, y: (np.where(x == x.max(), np.nan, x), y), "NaN"),
    ],
)
def test_bad_input_says_why(spoil, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        fit_ridge(*spoil(*_data(10, 5)))
    assert "\n" not in str(error.value)


def test_other_voxels_are_refused() -> None:
    x, y = _data(10, 5)
    with pytest.raises(InputError, match="4 voxels"):
        fit_ridge(x, y).predict(x[:, :4])


@pytest.mark.shared_data
def test_reaches_the_known_numbers_on_digits69(shared_data) -> None:
    """Known for this split: correlation 0.790, MSE 0.0381, SSIM 0.504 (clipped to 0..1, z-scored voxels)."""
    file = scipy.io.loadmat(shared_data / "digits69" / "digit69_28x28.mat")
    scaler = VoxelScaler.fit(file["fmriTrn"])
    ridge = fit_ridge(scaler.apply(file["fmriTrn"]), file["stimTrn"] / 255.0)
    predicted = ridge.predict(scaler.apply(file["fmriTest"])).clip(0, 1)
    shown = file["stimTest"] / 255.0
    correlation = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted, shown, strict=True)])
    pictures = [a.reshape(-1, 28, 28).transpose(0, 2, 1) for a in (predicted, shown)]
    ssim = np.mean([structural_similarity(a, b, data_range=1.0) for a, b in zip(*pictures, strict=True)])
    assert correlation == pytest.approx(0.790, abs=0.002)
    assert ((predicted - shown) ** 2).mean() == pytest.approx(0.0381, abs=0.0004)
    assert ssim == pytest.approx(0.504, abs=0.004)


@pytest.mark.parametrize("shape", [(120, 200), (300, 40)])
@pytest.mark.parametrize("per_target", [False, True])
def test_the_fast_way_equals_the_plain_form_in_float64(
    monkeypatch, shape: tuple[int, int], per_target: bool
) -> None:
    """Single precision, blocks and the search for alpha, against the text-book form over the whole grid."""
    x, y = _data(*shape, k=37)
    monkeypatch.setattr(ridges, "SMALL", 0)
    monkeypatch.setattr(ridges, "_BLOCK", 16)
    own, loo = fit_ridge_loo(x, y, per_target=per_target)
    alphas = ridges.default_alphas(x)
    xc, yc, n = x - x.mean(0), y - y.mean(0), len(x)
    errors = []
    for alpha in alphas:
        hat = xc @ np.linalg.solve(xc.T @ xc + alpha * np.eye(x.shape[1]), xc.T)
        errors.append((yc - hat @ yc) / (1 - 1 / n - np.diag(hat))[:, None])
    mse = (np.stack(errors) ** 2).mean(1)
    best = mse.argmin(0) if per_target else np.full(y.shape[1], mse.mean(1).argmin())
    np.testing.assert_allclose(np.broadcast_to(own.alpha, best.shape), alphas[best])
    plain = y - np.stack(errors)[best, :, np.arange(y.shape[1])].T
    np.testing.assert_allclose(loo, plain, atol=2e-4)
    expected = mse[best, np.arange(y.shape[1])] if per_target else mse[best[0]].mean()
    np.testing.assert_allclose(own.loo_mse, expected, rtol=1e-4)
    coef = np.stack([np.linalg.solve(xc.T @ xc + a * np.eye(x.shape[1]), xc.T @ yc) for a in alphas])
    np.testing.assert_allclose(own.coef, coef[best, :, np.arange(y.shape[1])].T, atol=1e-4)


def test_the_search_for_alpha_tries_few(monkeypatch) -> None:
    x, y = _data(300, 40, k=37)
    monkeypatch.setattr(ridges, "SMALL", 0)
    tried = []
    score = ridges._Targets.loo_scores
    monkeypatch.setattr(
        ridges._Targets,
        "loo_scores",
        lambda self, alpha, columns: (tried.append(alpha), score(self, alpha, columns))[1],
    )
    fit_ridge(x, y)
    assert len(tried) == len(set(tried)) <= 5


@pytest.mark.parametrize("small", [0, 10**12])
def test_a_group_of_targets_has_its_own_alpha(monkeypatch, small: int) -> None:
    x, y = _data(80, 30, k=6)
    y[:, 4:] = np.random.default_rng(2).standard_normal((80, 2))  # nothing to be learned here
    monkeypatch.setattr(ridges, "SMALL", small)
    groups = [np.array([0, 2, 1, 3]), np.array([5, 4])]
    own = fit_ridge(x, y, groups=groups)
    for group in groups:
        alone = fit_ridge(x, y[:, group])
        np.testing.assert_allclose(own.alpha[group], alone.alpha)
        np.testing.assert_allclose(own.predict(x)[:, group], alone.predict(x), atol=1e-5)
    assert own.alpha[4] > own.alpha[0]
    with pytest.raises(InputError, match="each of the 6"):
        fit_ridge(x, y, groups=groups[:1])


def test_weight_norms_are_those_of_the_weights() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 7))
    fitted = fit_ridge(x, x[:, :2] @ rng.standard_normal((2, 5)))
    np.testing.assert_allclose(fitted.weight_norms(), np.linalg.norm(fitted.coef, axis=1), atol=1e-3)
