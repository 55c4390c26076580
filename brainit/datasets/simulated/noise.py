"""From answers to betas: haemodynamic scale, session drift, and noise to a stated ceiling."""

from __future__ import annotations

import numpy as np


def ceilings(responds: np.ndarray, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Draw each voxel's noise ceiling for one trial: Beta-distributed around ``mean``, 0 without response.

    Parameters
    ----------
    responds : bool array of shape (n_voxels,)
    mean : float
        0..1.
    """
    drawn = rng.beta(6 * mean, 6 * (1 - mean), responds.size)
    return np.where(responds, np.clip(drawn, 0.01, 0.98), 0).astype(np.float32)


def betas(
    signal: np.ndarray,
    ceiling: np.ndarray,
    session: np.ndarray,
    places: np.ndarray,
    shared: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scale standardised answers and add noise, so that the variance explained is ``ceiling``.

    With ceiling c, signal and noise get the variances c and 1 - c; then each voxel is given its own scale and
    mean in percent signal change, and each session a gain and an offset.

    Parameters
    ----------
    signal : array of shape (n_trials, n_voxels)
        Mean 0, variance 1 over training pictures; 0 for voxels that do not respond.
    ceiling : array of shape (n_voxels,)
    session : int array of shape (n_trials,)
    places : array of shape (n_voxels, 3)
        mm; neighbours share noise.
    shared : float
        Share of the noise variance that is common to neighbours.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (n_trials, n_voxels)
        Percent signal change.
    """
    n_trials, n_voxels = signal.shape
    own = rng.standard_normal((n_trials, n_voxels), np.float32)
    smooth = _smooth_loadings(places, rng)
    common = rng.standard_normal((n_trials, smooth.shape[1]), np.float32) @ smooth.T
    noise = np.sqrt(1 - shared) * own + np.sqrt(shared) * common
    scaled = np.sqrt(ceiling) * signal + np.sqrt(1 - ceiling) * noise
    scale = np.exp(rng.normal(0, 0.4, n_voxels))
    level = rng.normal(0.6, 0.5, n_voxels)
    out = scaled * scale + level
    for number in np.unique(session):
        gain, offset = np.exp(rng.normal(0, 0.08)), rng.normal(0, 0.15, n_voxels)
        out[session == number] = out[session == number] * gain + offset
    return out.astype(np.float32)


def _smooth_loadings(places: np.ndarray, rng: np.random.Generator, n_sources: int = 24) -> np.ndarray:
    """Return loadings of unit norm, (n_voxels, n_sources), on sources that fall off over about 10 mm."""
    centres = places[rng.integers(0, len(places), n_sources)]
    apart = ((places[:, None] - centres) ** 2).sum(-1)
    loadings = np.exp(-apart / (2 * 10.0**2)) * rng.choice([-1.0, 1.0], n_sources) + 0.02
    return (loadings / np.linalg.norm(loadings, axis=1, keepdims=True)).astype(np.float32)
