"""How well voxels are predicted: correlation, and the share reached of what could be predicted at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError
from brainit.subject import Subject
from brainit.voxels.scaling import VoxelScaler

_LEAST_CEILING = 0.01
"""Below, a voxel's share of the ceiling is noise over nothing and is not given."""


@dataclass(frozen=True)
class VoxelScore:
    """Score of every voxel over the pictures of one split.

    Parameters
    ----------
    correlation : float32 array of shape (n_voxels,)
        Pearson's r of predicted and measured (repeats averaged) over pictures; 0 where one never varies.
    ceiling : float32 array of shape (n_voxels,), optional
        Share of the variance of these averages that pictures can explain, 0..1.
    share : float32 array of shape (n_voxels,), optional
        r² over the ceiling, 0 for negative r; NaN where the ceiling is below .01. Can exceed 1 by noise.
    n_pictures : int
    """

    correlation: np.ndarray
    ceiling: np.ndarray | None
    share: np.ndarray | None
    n_pictures: int


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of each column of two arrays (n, k): float64 (k,), 0 where a column is constant."""
    x, y = (np.asarray(part, np.float64) - np.mean(part, 0, dtype=np.float64) for part in (a, b))
    norm = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.divide((x * y).sum(0), norm, out=np.zeros(x.shape[1]), where=norm > 1e-12)


def averaged_ceiling(single: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Ceiling of averages over repeats from the ceiling of one trial.

    With signal share c of one trial, averages of n trials hold c / (c + (1 - c) m), m the mean of 1 / n over
    pictures (Allen et al. 2022, "noise ceiling"; with unequal repeats the mean of 1 / n, as NSD's users do).
    """
    c = np.asarray(single, np.float64)
    return c / np.maximum(c + (1 - c) * np.mean(1 / np.asarray(repeats)), 1e-12)


def score_voxels(
    predicted: np.ndarray, subject: Subject, scaler: VoxelScaler, split: str = "test"
) -> VoxelScore:
    """Compare predictions with one subject's measured responses.

    Parameters
    ----------
    predicted : array of shape (n_pictures, n_voxels)
        In the order of ``subject.part(split).mean_over_repeats()``.
    subject : Subject
    scaler : VoxelScaler
        As fitted on training trials.
    split : {"test", "train"}
    """
    trials = subject.part(split)
    mean = trials.mean_over_repeats()
    if len(predicted) != mean.n_trials:
        raise InputError(
            f"subject {subject.name!r}: {len(predicted)} predictions for {mean.n_trials} {split} pictures"
        )
    if mean.n_trials < 3:
        raise InputError(
            f"subject {subject.name!r}: {mean.n_trials} {split} pictures; a correlation needs at least 3"
        )
    r = correlations(predicted, scaler.apply(mean.betas))
    if subject.noise_ceiling is None:
        return VoxelScore(r.astype(np.float32), None, None, mean.n_trials)
    _, repeats = np.unique(trials.stimulus_id, return_counts=True)
    ceiling = averaged_ceiling(subject.noise_ceiling, repeats)
    share = np.where(ceiling >= _LEAST_CEILING, np.maximum(r, 0) ** 2 / np.maximum(ceiling, 1e-12), np.nan)
    return VoxelScore(*(x.astype(np.float32) for x in (r, ceiling, share)), mean.n_trials)


def mean_correlations(
    predicted: np.ndarray, measured: np.ndarray, n_draws: int = 500, seed: int = 0, *, block: int = 4096
) -> np.ndarray:
    """Mean correlation over voxels of the pictures as they are, then of ``n_draws`` resamples of pictures.

    Two encoders with the same seed see the same resamples, so that their difference has an interval too.

    Parameters
    ----------
    predicted, measured : arrays of shape (n_pictures, n_voxels)

    Returns
    -------
    float64 array of shape (1 + n_draws,)
        A voxel that never varies counts as 0.
    """
    n, count = np.shape(measured)
    drawn = np.random.default_rng(seed).integers(0, n, (n_draws, n))
    weights = np.ones((1 + n_draws, n))
    weights[1:] = np.apply_along_axis(np.bincount, 1, drawn, minlength=n)
    weights /= n
    total = np.zeros(1 + n_draws)
    for i in range(0, count, block):
        x, y = (np.asarray(a[:, i : i + block], np.float64) for a in (predicted, measured))
        x, y = x - x.mean(0), y - y.mean(0)
        mx, my = weights @ x, weights @ y
        vx, vy = weights @ x**2 - mx**2, weights @ y**2 - my**2
        norm = np.sqrt(np.maximum(vx, 0) * np.maximum(vy, 0))
        r = np.divide(weights @ (x * y) - mx * my, norm, out=np.zeros_like(norm), where=norm > 1e-12)
        total += r.sum(1)
    return total / count
