"""Noise ceiling of a voxel from repeated stimuli, as the Natural Scenes Dataset defines it."""

from __future__ import annotations

import numpy as np

from brainit.errors import InputError

LEAST_REPEATS = 20
"""Repeats from which it is asked whether they agree."""
_SHUFFLES, _VOXELS, _TRIALS = 19, 500, 3000


def noise_ceiling(betas: np.ndarray, stimulus_id: np.ndarray, n_averaged: int = 1) -> np.ndarray:
    """Estimate the share of each voxel's variance that the stimulus can explain.

    With noise variance = variance over repeats pooled over stimuli, and ncsnr^2 =
    max(total variance - noise variance, 0) / noise variance, the ceiling is ncsnr^2 / (ncsnr^2 + 1 / n).

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Best z-scored within session. Trials of stimuli shown once count for the total variance only.
    stimulus_id : array of shape (n_trials,)
    n_averaged : int
        Repeats that are averaged before the ceiling applies.

    Returns
    -------
    float32 array of shape (n_voxels,)
        0..1.

    Raises
    ------
    InputError
        No stimulus is repeated.
    """
    _, inverse, counts = np.unique(stimulus_id, return_inverse=True, return_counts=True)
    repeated = counts[inverse] > 1
    if not repeated.any():
        raise InputError(
            "no stimulus is shown twice, so noise cannot be told from signal; repeats are needed"
        )
    used = betas[repeated].astype(np.float64)
    _, group = np.unique(inverse[repeated], return_inverse=True)
    size = np.bincount(group)
    mean = np.zeros((size.size, used.shape[1]))
    np.add.at(mean, group, used)
    mean /= size[:, None]
    noise = ((used - mean[group]) ** 2).sum(0) / (len(used) - size.size)
    signal = np.maximum(betas.astype(np.float64).var(0, ddof=1) - noise, 0)
    return (signal / np.maximum(signal + noise / n_averaged, 1e-12)).astype(np.float32)


def repeats_agree(betas: np.ndarray, stimulus_id: np.ndarray, session: np.ndarray) -> bool | None:
    """Whether repeats of a stimulus are more alike than trials that were dealt to it within sessions.

    The share of variance between stimuli, mean over voxels, is compared with that of 19 dealings: where none
    of them reaches it, p is .05. Up to 500 voxels and 3,000 trials are looked at.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    stimulus_id, session : arrays of shape (n_trials,)

    Returns
    -------
    bool or None
        None where there are fewer than `LEAST_REPEATS`.
    """
    _, inverse, counts = np.unique(stimulus_id, return_inverse=True, return_counts=True)
    trials = np.flatnonzero(counts[inverse] > 1)
    trials = trials[np.argsort(inverse[trials], kind="stable")][:_TRIALS]
    ids, sessions = inverse[trials], np.asarray(session)[trials]
    if len(ids) - len(np.unique(ids)) < LEAST_REPEATS:
        return None
    voxels = np.linspace(0, betas.shape[1] - 1, min(_VOXELS, betas.shape[1])).astype(int)
    x = betas[np.ix_(trials, voxels)].astype(np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    _, group, size = np.unique(ids, return_inverse=True, return_counts=True)

    def between(order: np.ndarray) -> float:
        total = np.zeros((size.size, x.shape[1]))
        np.add.at(total, group, x[order])
        return float((total**2 / size[:, None]).sum())

    rng, seen = np.random.default_rng(0), between(np.arange(len(x)))
    for _ in range(_SHUFFLES):
        order = np.arange(len(x))
        for one in np.unique(sessions):
            here = np.flatnonzero(sessions == one)
            order[here] = rng.permutation(here)
        if (ids[order] != ids).any() and between(order) >= seen:
            return False
    return True
