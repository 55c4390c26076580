r"""Encoding model: pictures to voxels, with per-voxel shrinkage and correlated noise.

For trial :math:`i`, voxel :math:`v` and features :math:`f` of the picture (centred on the training trials)

.. math:: x_{iv} = \mu_v + f_i^\top b_v + \epsilon_{iv},\quad
          b_v \sim N(0, \tfrac{\sigma_v^2}{\lambda_v} I),\quad \epsilon_{iv} \sim N(0, \sigma_v^2).

:math:`\lambda_v` maximises the voxel's marginal likelihood (empirical Bayes), so a voxel that does not see
the stimulus gets weights near 0: no separate voxel selection is needed. Noise is shared between voxels; its
correlation is taken from the exact leave-one-out residuals :math:`R` (standardised; they also hold the
error of :math:`b`) and shrunk

.. math:: C = \gamma I + (1 - \gamma) R^\top R / n,\qquad
          C^{-1} = \tfrac1\gamma\left(I - R^\top (\tfrac{\gamma n}{1-\gamma} I + R R^\top)^{-1} R\right)

(Woodbury), so only n x n matrices are inverted. All that a candidate picture's likelihood needs is then, with
weights and voxels in units of the residual standard deviation,

.. math:: \log p(x \mid f) = h^\top f - \tfrac12 f^\top J f + const,\quad
          h = B C^{-1} (x - \mu),\ J = B C^{-1} B^\top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError

PENALTIES = np.logspace(-1.5, 4, 18)  # lambda_v, in units of the leading feature component's variance


@dataclass(frozen=True)
class Basis:
    """Coordinates in which features are written: the span of the training pictures' features.

    Nothing is lost: outside this span ridge weights are 0. ``axes`` has shape (rank, n_features), ``mean``
    (n_features,); ``scale`` makes the leading coordinate unit variance.
    """

    mean: np.ndarray
    axes: np.ndarray
    scale: float

    @classmethod
    def of(cls, features: np.ndarray, max_rank: int = 300) -> Basis:
        """Principal axes of training features of shape (n, n_features)."""
        mean = features.mean(0)
        u, s, axes = np.linalg.svd(features - mean, full_matrices=False)
        if s[0] <= 0:
            raise InputError(
                "all training pictures have equal features; an encoding model needs different ones"
            )
        rank = min(int((s > s[0] * 1e-4).sum()), max_rank)
        return cls(mean, axes[:rank], float((u[:, 0] * s[0]).std()))

    def project(self, features: np.ndarray) -> np.ndarray:
        """Coordinates of shape (n, rank), float32."""
        return ((features - self.mean) @ self.axes.T / self.scale).astype(np.float32)


@dataclass(frozen=True)
class EncodingModel:
    """A fitted encoding model in the coordinates of a :class:`Basis`.

    Parameters
    ----------
    voxels : bool array of shape (n_voxels,)
        Voxels that vary in the training trials; the others are ignored.
    x_mean : float64 array of shape (n_used,)
    f_mean : float64 array of shape (rank,)
    weights : float64 array of shape (rank, n_used)
    penalty : float64 array of shape (n_used,)
    residuals : float64 array of shape (n_trials, n_used)
        Leave-one-out residuals.
    """

    voxels: np.ndarray
    x_mean: np.ndarray
    f_mean: np.ndarray
    weights: np.ndarray
    penalty: np.ndarray
    residuals: np.ndarray

    def statistics(self, betas: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """Reduce responses to what the likelihood of any picture needs.

        Parameters
        ----------
        betas : array of shape (n, n_voxels)
        gamma : float
            Weight of the identity in the noise correlation, 0 < gamma <= 1 (1: independent voxels).

        Returns
        -------
        h : float64 array of shape (n, rank)
            Linear term, for coordinates that are *not* centred on the training mean.
        information : float64 array of shape (rank, rank)
        """
        noise = np.sqrt((self.residuals**2).mean(0))
        r, b = self.residuals / noise, self.weights / noise
        x = (np.asarray(betas, np.float64)[:, self.voxels] - self.x_mean) / noise
        if gamma >= 1:
            h, info = x @ b.T, b @ b.T
        else:
            n = len(r)
            inner = np.linalg.inv(gamma * n / (1 - gamma) * np.eye(n) + r @ r.T)
            rb = r @ b.T
            info = (b @ b.T - rb.T @ inner @ rb) / gamma
            h = (x @ b.T - (x @ r.T) @ inner @ rb) / gamma
        return h + info @ self.f_mean, info


def fit_encoding(
    betas: np.ndarray, coordinates: np.ndarray, penalties: Sequence[float] | np.ndarray = PENALTIES
) -> EncodingModel:
    """Fit the encoding model of the module's equations.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    coordinates : array of shape (n_trials, rank)
        Feature coordinates of the pictures shown.
    penalties : sequence of float
        Grid for ``lambda_v``.

    Returns
    -------
    EncodingModel
    """
    x, f = np.asarray(betas, np.float64), np.asarray(coordinates, np.float64)
    n = len(x)
    spread = x.std(0)
    voxels = spread > 1e-9 * max(float(spread.max()), 1e-30)
    if not voxels.any():
        raise InputError(f"none of the {x.shape[1]} voxels varies over the {n} training trials")
    x = x[:, voxels]
    x_mean, f_mean = x.mean(0), f.mean(0)
    y, fc = x - x_mean, f - f_mean
    power, q = np.linalg.eigh(fc @ fc.T)
    power = np.maximum(power, 0)
    qy = q.T @ y
    qy2 = qy**2
    best, penalty = np.full(y.shape[1], -np.inf), np.full(y.shape[1], float(penalties[-1]))
    for value in penalties:
        variance = power / value + 1
        evidence = -0.5 * n * np.log((1 / variance) @ qy2 / n) - 0.5 * np.log(variance).sum()
        better = evidence > best
        best, penalty = np.where(better, evidence, best), np.where(better, value, penalty)
    total = power[:, None] + penalty
    shrink = power[:, None] / total
    leverage = 1 / n + (q**2) @ shrink
    residuals = (y - q @ (qy * shrink)) / np.maximum(1 - leverage, 1e-6)
    return EncodingModel(voxels, x_mean, f_mean, fc.T @ (q @ (qy / total)), penalty, residuals)


def log_likelihood(h: np.ndarray, information: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Log likelihood of pictures up to a constant a trial: (n_trials, n_pictures), float32 products."""
    z = np.asarray(coordinates, np.float32)
    quadratic = ((z @ information.astype(np.float32)) * z).sum(1)
    return (h.astype(np.float32) @ z.T - 0.5 * quadratic).astype(np.float64)
