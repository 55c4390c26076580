"""Ridge regression from voxels to anything, the baseline beside every decoder.

With centred data ``X = U diag(s) Vᵀ`` the fit is ``W = V diag(s / (s² + alpha)) Uᵀ Y`` and the leave-one-out
residual of trial ``i`` is exactly ``(y_i - ŷ_i) / (1 - h_i)``, where ``h_i = 1/n + Σ_r U_ir² s_r² / (s_r² +
alpha)`` is the leverage with the intercept counted (Allen 1974; Golub, Heath & Wahba 1979). One
eigendecomposition of the smaller Gram matrix serves every alpha, so thousands of voxels with tens of trials
cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError

RELATIVE_ALPHAS = np.logspace(-3, 3, 25)
_BLOCK = 4096  # targets scored at once, bounds memory


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression, stored by its low-rank factors.

    Parameters
    ----------
    x_mean : float32 array of shape (n_voxels,)
    y_mean : float32 array of shape (n_targets,)
    basis : float32 array of shape (n_voxels, rank)
        Right singular vectors of the training betas.
    weights : float32 array of shape (rank, n_targets)
        ``coef = basis @ weights``.
    alpha : float64 array of shape () or (n_targets,)
        Chosen penalty.
    loo_mse : float64 array, same shape as ``alpha``
        Leave-one-out mean squared error at that penalty.
    """

    x_mean: np.ndarray
    y_mean: np.ndarray
    basis: np.ndarray
    weights: np.ndarray
    alpha: np.ndarray
    loo_mse: np.ndarray

    @property
    def coef(self) -> np.ndarray:
        """Weights of shape (n_voxels, n_targets)."""
        return self.basis @ self.weights

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Predict targets of shape (n_trials, n_targets) from betas of shape (n_trials, n_voxels)."""
        betas = np.atleast_2d(np.asarray(betas, np.float32))
        if betas.shape[1] != self.x_mean.size:
            raise InputError(
                f"betas have {betas.shape[1]} voxels, the ridge was fitted on {self.x_mean.size}; "
                "give the same voxels in the same order"
            )
        return (betas - self.x_mean) @ self.basis @ self.weights + self.y_mean


@dataclass(frozen=True)
class _Spectrum:
    """Centred betas as ``u diag(sqrt(power)) basisᵀ``."""

    x_mean: np.ndarray
    u: np.ndarray
    power: np.ndarray
    basis: np.ndarray


def _spectrum(betas: np.ndarray) -> _Spectrum:
    x = np.asarray(betas, np.float64)
    x_mean = x.mean(0)
    x = x - x_mean
    n, p = x.shape
    dual = n <= p
    power, vectors = np.linalg.eigh(x @ x.T if dual else x.T @ x)
    keep = power > max(power[-1], 0.0) * 1e-12
    power, vectors = power[keep], vectors[:, keep]
    root = np.sqrt(power)
    u, basis = (vectors, x.T @ (vectors / root)) if dual else (x @ (vectors / root), vectors)
    return _Spectrum(x_mean, u, power, basis)


def _loo_errors(spec: _Spectrum, y: np.ndarray, alpha: float) -> np.ndarray:
    """Leave-one-out errors of shape (n, n_targets) for centred targets ``y``."""
    shrink = spec.power / (spec.power + alpha)
    leverage = 1 / len(y) + (spec.u**2) @ shrink
    return (y - (spec.u * shrink) @ (spec.u.T @ y)) / np.maximum(1 - leverage, 1e-12)[:, None]


def _check(betas: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    betas, targets = np.asarray(betas), np.asarray(targets)
    if betas.ndim != 2 or targets.ndim != 2 or len(betas) != len(targets):
        raise InputError(
            "ridge needs betas (n, voxels) and targets (n, k) of equal n, "
            f"got {betas.shape} and {targets.shape}; give one target a trial"
        )
    if len(betas) < 3:
        raise InputError(f"ridge needs at least 3 training trials, got {len(betas)}; give more trials")
    for what, array in (("betas", betas), ("targets", targets)):
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise InputError(
                f"ridge: {bad} of {array.size} values in the {what} are NaN or infinite; mask them first"
            )
    return betas, targets


def default_alphas(betas: np.ndarray) -> np.ndarray:
    """Penalties from 1e-3 to 1e3 times the mean eigenvalue of the trials' Gram matrix (unit free)."""
    x = np.asarray(betas, np.float64)
    scale = float(((x - x.mean(0)) ** 2).sum()) / len(x)
    return RELATIVE_ALPHAS * (scale or 1.0)


def fit_ridge(
    betas: np.ndarray,
    targets: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray | None = None,
    per_target: bool = False,
) -> Ridge:
    """Fit ridge with the penalty of least leave-one-out error on the given (training) trials.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    targets : array of shape (n_trials, n_targets)
    alphas : sequence of float, optional
        Candidate penalties; default :func:`default_alphas`.
    per_target : bool
        Choose one alpha for every target rather than one for all.

    Returns
    -------
    Ridge

    Raises
    ------
    InputError
        Unequal lengths, fewer than 3 trials, NaN or a negative alpha.
    """
    return fit_ridge_loo(betas, targets, alphas=alphas, per_target=per_target)[0]


def fit_ridge_loo(
    betas: np.ndarray,
    targets: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray | None = None,
    per_target: bool = False,
) -> tuple[Ridge, np.ndarray]:
    """Fit as :func:`fit_ridge` and return the leave-one-out predictions too.

    Returns
    -------
    ridge : Ridge
    predictions : float32 array of shape (n_trials, n_targets)
        What the ridge says of each trial when that trial is left out (at the chosen alpha).
    """
    betas, targets = _check(betas, targets)
    candidates = np.asarray(default_alphas(betas) if alphas is None else alphas, np.float64)
    if candidates.size == 0 or (candidates <= 0).any():
        raise InputError(f"ridge alphas must be positive and at least one, got {candidates.tolist()}")
    spec = _spectrum(betas)
    y_mean = targets.mean(0, dtype=np.float64)
    scores = np.empty((candidates.size, targets.shape[1]))
    for start in range(0, targets.shape[1], _BLOCK):
        cut = slice(start, start + _BLOCK)
        y = targets[:, cut] - y_mean[cut]
        for row, alpha in enumerate(candidates):
            scores[row, cut] = (_loo_errors(spec, y, alpha) ** 2).mean(0)
    best = scores.argmin(0) if per_target else np.full(targets.shape[1], scores.mean(1).argmin())
    weights = np.empty((spec.power.size, targets.shape[1]), np.float32)
    loo = np.empty(targets.shape, np.float32)
    for row in np.unique(best):
        cut, alpha = np.flatnonzero(best == row), candidates[row]
        y = targets[:, cut] - y_mean[cut]
        weights[:, cut] = (np.sqrt(spec.power) / (spec.power + alpha))[:, None] * (spec.u.T @ y)
        loo[:, cut] = targets[:, cut] - _loo_errors(spec, y, alpha)
    columns = np.arange(targets.shape[1])
    alpha = candidates[best] if per_target else candidates[best[0]]
    loo_mse = scores[best, columns] if per_target else scores[best[0]].mean()
    ridge = Ridge(
        spec.x_mean.astype(np.float32),
        y_mean.astype(np.float32),
        spec.basis.astype(np.float32),
        weights,
        np.asarray(alpha),
        np.asarray(loo_mse),
    )
    return ridge, loo
