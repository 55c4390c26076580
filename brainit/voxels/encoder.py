"""A light universal brain encoder: picture features to voxels, one embedding space for all subjects.

After the Universal Brain Encoder (arXiv 2406.12179), whose point is kept: what a voxel does is a short vector
in a space common to all subjects. Here the map is linear and solved in closed form. With whitened features Φ
(principal components of unit variance) and one ridge a subject, B_s ≈ Φ W_s; the leading left singular
vectors P of [W_1 ... W_S] are the shared basis and e_v = Pᵀ w_v the embedding, so that ⟨e_v, e_u⟩ is the
covariance of two voxels' predicted responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from brainit.errors import InputError
from brainit.voxels.ridge import fit_ridge_loo

_BASIS_ROWS = 500  # external pictures that shape the components; more change little and cost much
_MOST_ROWS = 3000  # pictures that shape the components at most
_BLOCK = 1024  # pictures at once


@dataclass(frozen=True)
class FeatureBasis:
    """Whitened principal components of picture features.

    Parameters
    ----------
    mean : float32 array of shape (n_features,)
    axes : float32 array of shape (n_features, n_components)
        Project centred features to components of unit variance over the fitted pictures.
    """

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, n_components: int) -> FeatureBasis:
        """Fit on (n_pictures, n_features); ``n_components`` is cut to what the data allows."""
        x = np.asarray(features, np.float64)
        mean = x.mean(0)
        x = x - mean
        dual = len(x) <= x.shape[1]
        power, vectors = np.linalg.eigh(x @ x.T if dual else x.T @ x)
        kept = np.flatnonzero(power > power[-1] * 1e-10)[::-1][:n_components]
        root, vectors = np.sqrt(power[kept]), vectors[:, kept]
        axes = x.T @ (vectors / root) if dual else vectors
        return cls(mean.astype(np.float32), (axes / root * len(x) ** 0.5).astype(np.float32))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Return components, float32 (n, n_components)."""
        return (np.asarray(features, np.float32) - self.mean) @ self.axes


@dataclass(frozen=True)
class VoxelEncoder:
    """Fitted encoder of several subjects.

    Parameters
    ----------
    basis : FeatureBasis
    shared : float32 array of shape (n_components, rank)
    embeddings : mapping of str to float32 array of shape (n_voxels, rank)
    residuals : mapping of str to float32 array of shape (n_trials, n_voxels)
        Leave-one-out residuals: their covariance is the noise of synthetic fMRI.
    """

    basis: FeatureBasis
    shared: np.ndarray
    embeddings: Mapping[str, np.ndarray]
    residuals: Mapping[str, np.ndarray]

    def coordinates(self, features: np.ndarray) -> np.ndarray:
        """Return pictures in the space of the voxels' embeddings, float32 (n_pictures, rank)."""
        rows = [self.basis.apply(features[i : i + _BLOCK]) for i in range(0, len(features), _BLOCK)]
        return np.concatenate(rows) @ self.shared

    def predict(self, features: np.ndarray, subject: str) -> np.ndarray:
        """Predict z-scored responses, float32 (n_pictures, n_voxels)."""
        return self.coordinates(features) @ self.embeddings[subject].T

    def noise(self, n: int, subject: str, rng: np.random.Generator, *, correlated: float = 0.8) -> np.ndarray:
        """Draw noise as :func:`residual_noise` does, float32 (n, n_voxels)."""
        residual = torch.from_numpy(self.residuals[subject])
        return residual_noise(residual, n, rng, correlated=correlated).numpy()

    def embed(self, features: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """Embed the voxels of a new subject in the same space: float32 (n_voxels, rank)."""
        ridge, _ = fit_ridge_loo(self.basis.apply(features) @ self.shared, betas)
        return ridge.coef.T.astype(np.float32)


def residual_noise(
    residual: torch.Tensor, n: int, rng: np.random.Generator, *, correlated: float = 0.8
) -> torch.Tensor:
    """Draw noise of the covariance of ``residual`` (n_trials, n_voxels): (n, n_voxels) on its device.

    ``correlated`` is the share of variance taken from mixtures of whole residual patterns; the rest is
    independent between voxels, so that the covariance has full rank.
    """
    trials, voxels = residual.shape
    mix, own = (rng.standard_normal((n, k), np.float32) for k in (trials, voxels))
    mix, own = (torch.from_numpy(part).to(residual) for part in (mix, own))
    share = float(np.sqrt(correlated / trials))
    return share * (mix @ residual) + (1 - correlated) ** 0.5 * own * residual.std(0, correction=0)


def fit_encoder(
    features: Mapping[str, np.ndarray],
    betas: Mapping[str, np.ndarray],
    *,
    rank: int = 32,
    n_components: int = 64,
    external: np.ndarray | None = None,
) -> VoxelEncoder:
    """Fit the encoder on training trials.

    Parameters
    ----------
    features : mapping of str to array of shape (n_trials, n_features)
        What each subject saw.
    betas : mapping of str to array of shape (n_trials, n_voxels)
        z-scored responses.
    rank : int
        Length of voxel embeddings.
    n_components : int
        Principal components of the features.
    external : array of shape (n_pictures, n_features), optional
        Pictures beyond those shown; they help to find the components.

    Returns
    -------
    VoxelEncoder
    """
    for name in betas:
        if len(features[name]) != len(betas[name]):
            raise InputError(
                f"subject {name!r}: {len(features[name])} feature rows for {len(betas[name])} trials"
            )
    outside = [] if external is None else [external[:: max(1, len(external) // _BASIS_ROWS)][:_BASIS_ROWS]]
    pooled = np.concatenate([*features.values(), *outside])
    if len(pooled) > _MOST_ROWS:
        pooled = pooled[np.linspace(0, len(pooled) - 1, _MOST_ROWS).astype(int)]
    basis = FeatureBasis.fit(pooled, n_components)
    weights, residuals = {}, {}
    for name, responses in betas.items():
        ridge, loo = fit_ridge_loo(basis.apply(features[name]), responses)
        weights[name] = ridge.coef
        residuals[name] = (responses - loo).astype(np.float32)
    every = np.concatenate(list(weights.values()), 1).astype(np.float64)
    left = np.linalg.eigh(every @ every.T)[1][:, ::-1]  # singular vectors, of any number of voxels
    shared = left[:, :rank].astype(np.float32)
    embeddings = {name: (shared.T @ w).T.astype(np.float32) for name, w in weights.items()}
    return VoxelEncoder(basis, shared, embeddings, residuals)
