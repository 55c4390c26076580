"""Choose feature map, noise shrinkage and temperature by leave-one-out on training trials alone.

The score is the information that the held-out responses carry about the picture that was shown,

    ``I = mean_i [ b l_i(shown_i) - log mean_s exp(b l_i(s)) ]``   (nats),

with ``l_i`` the log likelihood under a model fitted without trial ``i``, ``s`` over draws of the prior, and
``b`` a temperature: b < 1 corrects for a likelihood that is too sure of itself (weights known only from few
trials). It is a proper score: it punishes both a vague and an over-confident posterior, and no test trial
enters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from brainit.posterior.encoding import Basis, fit_encoding, log_likelihood
from brainit.posterior.features import CANDIDATES, FeatureMap

GAMMAS = (0.5, 0.8, 0.95)
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 0.7, 1.0)
MAX_LEAVE_ONE_OUT = 120  # beyond this many trials, FOLDS folds
FOLDS = 20


@dataclass(frozen=True)
class Choice:
    """What leave-one-out chose, and how the held-out training trials came out.

    Parameters
    ----------
    features : FeatureMap
    gamma, temperature : float
    information : float
        Score in nats.
    loo_mean : float32 array of shape (n_trials, ...)
        Posterior mean picture of each training trial, from a model that has not seen the trial.
    scores : dict
        Information of every combination tried, keyed ``"map gamma temperature"``.
    """

    features: FeatureMap
    gamma: float
    temperature: float
    information: float
    loo_mean: np.ndarray
    scores: dict[str, float]


def weights_of(log_weights: np.ndarray) -> np.ndarray:
    """Normalise log weights of shape (n, n_candidates) along the last axis."""
    w = np.exp(log_weights - log_weights.max(1, keepdims=True))
    return w / w.sum(1, keepdims=True)


def _information(shown: np.ndarray, others: np.ndarray, temperature: float) -> float:
    scaled = temperature * others
    top = scaled.max(1)
    return float(np.mean(temperature * shown - top - np.log(np.exp(scaled - top[:, None]).mean(1))))


def folds(n: int, seed: int) -> list[np.ndarray]:
    """Held-out trial indices: one each up to ``MAX_LEAVE_ONE_OUT`` trials, else ``FOLDS`` random groups."""
    if n <= MAX_LEAVE_ONE_OUT:
        return [np.array([i]) for i in range(n)]
    return np.array_split(np.random.default_rng(seed).permutation(n), FOLDS)


def choose(
    betas: np.ndarray,
    pictures: np.ndarray,
    candidates: np.ndarray,
    *,
    maps: Sequence[FeatureMap] = CANDIDATES,
    gammas: Sequence[float] = GAMMAS,
    temperatures: Sequence[float] = TEMPERATURES,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Choice:
    """Score every combination on held-out training trials and return the best.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    pictures : array of shape (n_trials, S, S[, 3])
    candidates : array of shape (n_candidates, S, S[, 3])
        Draws of the prior; a few thousand are enough to rank settings.

    Returns
    -------
    Choice
    """
    n = len(betas)
    held = folds(n, seed)
    scores: dict[str, float] = {}
    best: tuple[float, FeatureMap, float, float, np.ndarray] | None = None
    for k, feature_map in enumerate(maps):
        features = feature_map(pictures)
        basis = Basis.of(features)
        z, zc = basis.project(features), basis.project(feature_map(candidates))
        shown = np.empty((len(gammas), n))
        others = np.empty((len(gammas), n, len(zc)))
        for j, out in enumerate(held):
            keep = np.setdiff1d(np.arange(n), out)
            model = fit_encoding(betas[keep], z[keep])
            for g, gamma in enumerate(gammas):
                h, info = model.statistics(betas[out], gamma)
                shown[g, out] = np.diagonal(log_likelihood(h, info, z[out]))
                others[g, out] = log_likelihood(h, info, zc)
            progress(k * len(held) + j + 1, len(maps) * len(held), "posterior: leave-one-out")
        for g, gamma in enumerate(gammas):
            for temperature in temperatures:
                value = _information(shown[g], others[g], temperature)
                scores[f"{feature_map.name} {gamma:g} {temperature:g}"] = value
                if best is None or value > best[0]:
                    best = (value, feature_map, gamma, temperature, weights_of(temperature * others[g]))
    assert best is not None  # maps, gammas and temperatures are never empty
    value, feature_map, gamma, temperature, weights = best
    flat = candidates.reshape(len(candidates), -1)
    loo_mean = (weights.astype(np.float32) @ flat).reshape(pictures.shape)
    return Choice(feature_map, gamma, temperature, value, loo_mean, scores)
