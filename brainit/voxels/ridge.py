"""Ridge regression from voxels to anything, the baseline beside every decoder.

With centred data ``X = U diag(s) Vᵀ`` the fit is ``W = V diag(s / (s² + alpha)) Uᵀ Y`` and the leave-one-out
residual of trial ``i`` is exactly ``(y_i - ŷ_i) / (1 - h_i)``, where ``h_i = 1/n + Σ_r U_ir² s_r² / (s_r² +
alpha)`` is the leverage with the intercept counted (Allen 1974; Golub, Heath & Wahba 1979). One
eigendecomposition of the smaller Gram matrix serves every alpha, so thousands of voxels with tens of trials
cost milliseconds.

With thousands of trials and targets the products cost, not the decomposition. Beyond `SMALL` multiply-adds
they are done in float32 (centring and decomposition stay in float64), targets in blocks, and an alpha
shared by targets is searched for rather than tried everywhere: generalised cross-validation, which costs
nothing once ``Uᵀ Y`` is known, says where to start, and the leave-one-out error is followed downhill from
there to its nearest minimum over the candidates. At 4,000 trials, 4,000 voxels and 12,288 targets this is
a minute on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from brainit.errors import InputError

RELATIVE_ALPHAS = np.logspace(-3, 3, 25)
SMALL = 5 * 10**10
"""Multiply-adds of the whole grid up to which everything is float64 and every candidate is tried."""
_BLOCK = 2048  # targets at once, bounds memory


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

    def weight_norms(self) -> np.ndarray:
        """Root sum of squares of each voxel's weights over the targets, (n_voxels,)."""
        squares = np.einsum(
            "vr,rs,vs->v", self.basis, self.weights @ self.weights.T, self.basis, optimize=True
        )
        return np.sqrt(squares.clip(min=0))

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
    """Centred betas as ``u diag(sqrt(power)) basisᵀ``; ``u`` and ``power`` in the type of the products."""

    x_mean: np.ndarray
    u: torch.Tensor
    power: torch.Tensor
    basis: torch.Tensor

    def leverage(self, alpha: float) -> torch.Tensor:
        """Leverage of every trial, intercept included, (n,)."""
        return 1 / len(self.u) + (self.u**2) @ (self.power / (self.power + alpha))

    def loo_errors(self, y: torch.Tensor, z: torch.Tensor, alpha: float) -> torch.Tensor:
        """Leave-one-out errors (n, k) of centred targets ``y``, given ``z = uᵀ y``."""
        shrink = self.power / (self.power + alpha)
        rest = (1 - self.leverage(alpha)).clamp(min=1e-12 if self.u.dtype == torch.float64 else 1e-6)
        return (y - self.u @ (shrink[:, None] * z)) / rest[:, None]

    def gcv(self, total: float, power: torch.Tensor, alpha: float) -> float:
        """Generalised cross-validation error from ``total = Σ y²`` and ``power = Σ_k z²`` (rank,)."""
        own = self.power.double().cpu()
        shrink = own / (own + alpha)
        residual = total - float(((1 - (1 - shrink) ** 2) * power).sum())
        return max(residual, 0.0) / max(1 - (1 + float(shrink.sum())) / len(self.u), 1e-9) ** 2


def _spectrum(betas: np.ndarray, dtype: torch.dtype, device: str | torch.device) -> _Spectrum:
    x = torch.from_numpy(np.asarray(betas, np.float64)).to(device)
    x_mean = x.mean(0)
    x = x - x_mean
    dual = x.shape[0] <= x.shape[1]
    power, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    keep = power > max(float(power[-1]), 0.0) * 1e-12
    power, vectors = power[keep], vectors[:, keep]
    root = power.sqrt()
    u, basis = (vectors, x.T @ (vectors / root)) if dual else (x @ (vectors / root), vectors)
    return _Spectrum(x_mean.cpu().numpy(), u.to(dtype), power.to(dtype), basis)


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
    groups: Sequence[np.ndarray] | None = None,
    device: str | torch.device = "cpu",
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
    groups : sequence of int arrays, optional
        Columns of ``targets`` that share an alpha; default all together. Every column is in one group.
    device : str
        Where the products are done.

    Returns
    -------
    Ridge

    Raises
    ------
    InputError
        Unequal lengths, fewer than 3 trials, NaN or a negative alpha.
    """
    return _fit(betas, targets, alphas, per_target, groups, device, with_loo=False)[0]


def fit_ridge_loo(
    betas: np.ndarray,
    targets: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray | None = None,
    per_target: bool = False,
    groups: Sequence[np.ndarray] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Ridge, np.ndarray]:
    """Fit as :func:`fit_ridge` and return the leave-one-out predictions too.

    Returns
    -------
    ridge : Ridge
    predictions : float32 array of shape (n_trials, n_targets)
        What the ridge says of each trial when that trial is left out (at the chosen alpha).
    """
    return _fit(betas, targets, alphas, per_target, groups, device, with_loo=True)


def _fit(
    betas: np.ndarray,
    targets: np.ndarray,
    alphas: Sequence[float] | np.ndarray | None,
    per_target: bool,
    groups: Sequence[np.ndarray] | None,
    device: str | torch.device,
    *,
    with_loo: bool,
) -> tuple[Ridge, np.ndarray]:
    betas, targets = _check(betas, targets)
    candidates = np.asarray(default_alphas(betas) if alphas is None else alphas, np.float64)
    if candidates.size == 0 or (candidates <= 0).any():
        raise InputError(f"ridge alphas must be positive and at least one, got {candidates.tolist()}")
    (n, k), small = targets.shape, _is_small(betas, targets, candidates)
    spec = _spectrum(betas, torch.float64 if small else torch.float32, device)
    work = _Targets(spec, targets)
    groups = [np.arange(k)] if groups is None else [np.asarray(g) for g in groups]
    if not np.array_equal(np.sort(np.concatenate(groups)), np.arange(k)):
        raise InputError(f"ridge groups must hold each of the {k} targets once")
    scores = np.full((candidates.size, k), np.inf)
    if small or per_target:
        for row, alpha in enumerate(candidates):
            scores[row] = work.loo_scores(alpha, np.arange(k))
    else:
        for group in groups:
            _descend(work, candidates, scores, group)
    best = scores.argmin(0)
    if not per_target:
        for group in groups:
            best[group] = scores[:, group].mean(1).argmin()
    weights, loo = np.empty((len(spec.power), k), np.float32), np.empty((n, k) if with_loo else 0, np.float32)
    for row in np.unique(best):
        work.solve(candidates[row], np.flatnonzero(best == row), weights, loo if with_loo else None)
    own = scores[best, np.arange(k)]
    one = not per_target and len(groups) == 1
    ridge = Ridge(
        spec.x_mean.astype(np.float32),
        work.mean.astype(np.float32),
        spec.basis.float().cpu().numpy(),
        weights,
        np.asarray(candidates[best[0]] if one else candidates[best]),
        np.asarray(own.mean() if one else own),
    )
    return ridge, loo


def _is_small(betas: np.ndarray, targets: np.ndarray, candidates: np.ndarray) -> bool:
    return 2 * len(betas) * min(betas.shape) * targets.shape[1] * len(candidates) <= SMALL


class _Targets:
    """Centred targets in blocks of columns, and their coordinates ``z = uᵀ y`` (all of them, rank x k)."""

    def __init__(self, spec: _Spectrum, targets: np.ndarray) -> None:
        self.spec, self.targets = spec, targets
        self.mean = targets.mean(0, dtype=np.float64)
        self.z = torch.empty(len(spec.power), len(self.mean), dtype=spec.u.dtype)
        for cut in _blocks(np.arange(len(self.mean))):
            self.z[:, cut[0] : cut[-1] + 1] = (spec.u.T @ self.centred(cut)).cpu()

    def centred(self, columns: np.ndarray) -> torch.Tensor:
        """Columns of the centred targets, (n, len(columns)), in the type and place of the products."""
        values = torch.from_numpy(np.ascontiguousarray(self.targets[:, columns] - self.mean[columns]))
        return values.to(self.spec.u)

    def power(self, columns: np.ndarray) -> tuple[float, torch.Tensor]:
        """Sum of squares of these targets, and of their coordinates along each direction, (rank,)."""
        total = sum(float((self.centred(cut).double() ** 2).sum()) for cut in _blocks(columns))
        return total, sum((self.z[:, cut].double() ** 2).sum(1) for cut in _blocks(columns))

    def loo_scores(self, alpha: float, columns: np.ndarray) -> np.ndarray:
        """Leave-one-out mean squared error of these targets, float64 (len(columns),)."""
        out = []
        for cut in _blocks(columns):
            errors = self.spec.loo_errors(self.centred(cut), self._z(cut), alpha)
            out.append((errors**2).mean(0).double().cpu().numpy())
        return np.concatenate(out)

    def solve(self, alpha: float, columns: np.ndarray, weights: np.ndarray, loo: np.ndarray | None) -> None:
        """Fill the columns of ``weights`` (rank, k) and of the leave-one-out predictions (n, k)."""
        power = self.spec.power.cpu()
        factor = (power.sqrt() / (power + alpha))[:, None]
        for cut in _blocks(columns):
            weights[:, cut] = (factor * self.z[:, cut]).float().numpy()
            if loo is not None:
                errors = self.spec.loo_errors(self.centred(cut), self._z(cut), alpha).double().cpu().numpy()
                loo[:, cut] = self.targets[:, cut] - errors

    def _z(self, columns: np.ndarray) -> torch.Tensor:
        return self.z[:, columns].to(self.spec.u.device)


def _blocks(columns: np.ndarray) -> list[np.ndarray]:
    return [columns[i : i + _BLOCK] for i in range(0, len(columns), _BLOCK)]


def _descend(work: _Targets, candidates: np.ndarray, scores: np.ndarray, group: np.ndarray) -> None:
    """Fill ``scores[:, group]`` from the best by generalised cross-validation down to a minimum."""
    order = np.argsort(candidates, kind="stable")
    total, power = work.power(group)
    here = int(np.argmin([work.spec.gcv(total, power, candidates[row]) for row in order]))

    def error(place: int) -> float:
        row = order[place]
        if np.isinf(scores[row, group[0]]):
            scores[row, group] = work.loo_scores(candidates[row], group)
        return float(scores[row, group].mean())

    while True:
        near = [p for p in (here - 1, here, here + 1) if 0 <= p < len(order)]
        best = min(near, key=error)
        if best == here:
            return
        here = best
