"""Noise ceiling of a voxel from repeated stimuli, as the Natural Scenes Dataset defines it."""

from __future__ import annotations

import numpy as np

from brainit.errors import InputError


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
