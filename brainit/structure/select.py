"""Choose feature map, noise shrinkage and temperature by cross-validation on training trials alone.

Feature map and shrinkage maximise the information that held-out responses carry about the picture shown,

    ``I = mean_i [ b l_i(shown_i) - log mean_s exp(b l_i(s)) ]``   (nats),

with ``l_i`` the log likelihood under a model fitted without trial ``i``, ``s`` over draws of the prior, and
``b`` a temperature: b < 1 corrects for a likelihood that is too sure of itself (weights known only from few
trials). It is a proper score: it punishes both a vague and an over-confident posterior. The temperature used
is then that of least squared error of the posterior mean on the same held-out trials. No test trial enters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from brainit.progress import Progress, silent
from brainit.structure.encoding import Basis, fit_encoding, log_likelihood
from brainit.structure.features import CANDIDATES, FeatureMap

GAMMAS = (0.5, 0.8, 0.95, 0.99)
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 0.7, 1.0)
FOLDS = 30  # 90 trials: three at a time


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose, and how the held-out training trials came out.

    Parameters
    ----------
    features : FeatureMap
    gamma, temperature : float
    information : float
        Score in nats of map and shrinkage, at its own best temperature.
    held_out_weights : float32 array of shape (n_trials, n_candidates)
        Posterior over the candidates of each training trial, from a model that has not seen the trial.
    scores : dict
        Information of every map and shrinkage tried, keyed ``"map gamma"``.
    errors : dict
        Held-out squared error of the posterior mean at every temperature, for the chosen map and shrinkage.
    """

    features: FeatureMap
    gamma: float
    temperature: float
    information: float
    held_out_weights: np.ndarray
    scores: dict[str, float]
    errors: dict[float, float]


def weights_of(log_weights: np.ndarray) -> np.ndarray:
    """Normalise log weights of shape (n, n_candidates) along the last axis."""
    w = np.exp(log_weights - log_weights.max(1, keepdims=True))
    return w / w.sum(1, keepdims=True)


def _information(shown: np.ndarray, others: np.ndarray, temperature: float) -> float:
    scaled = temperature * others
    top = scaled.max(1)
    return float(np.mean(temperature * shown - top - np.log(np.exp(scaled - top[:, None]).mean(1))))


def folds(n: int, seed: int) -> list[np.ndarray]:
    """Held-out trial indices of at most ``FOLDS`` random groups of nearly equal size."""
    return np.array_split(np.random.default_rng(seed).permutation(n), min(n, FOLDS))


def _held_out(
    betas: np.ndarray, z: np.ndarray, z_candidates: np.ndarray, gammas: Sequence[float], seed: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """Yield per fold: trials; for each gamma the log likelihoods of what was shown, and of the candidates."""
    for out in folds(len(betas), seed):
        keep = np.setdiff1d(np.arange(len(betas)), out)
        model = fit_encoding(betas[keep], z[keep])
        terms = [model.statistics(betas[out], g) for g in gammas]
        shown = [np.diagonal(log_likelihood(h, info, z[out])) for h, info in terms]
        yield out, shown, [log_likelihood(h, info, z_candidates) for h, info in terms]


def choose(
    betas: np.ndarray,
    pictures: np.ndarray,
    candidates: np.ndarray,
    *,
    n_select: int = 5_000,
    maps: Sequence[FeatureMap] = CANDIDATES,
    gammas: Sequence[float] = GAMMAS,
    temperatures: Sequence[float] = TEMPERATURES,
    seed: int = 0,
    progress: Progress = silent,
) -> Choice:
    """Score the settings on held-out training trials and return the best.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    pictures : array of shape (n_trials, S, S[, 3])
    candidates : array of shape (n_candidates, S, S[, 3])
        Draws of the prior; the first ``n_select`` are enough to rank maps.

    Returns
    -------
    Choice
    """
    n, few = len(betas), candidates[:n_select]
    n_steps = min(n, FOLDS) * (len(maps) + 1)
    step = 0
    scores: dict[str, float] = {}
    best: tuple[float, FeatureMap, float] | None = None
    for feature_map in maps:
        features = feature_map(pictures)
        basis = Basis.of(features)
        shown, others = np.empty((len(gammas), n)), np.empty((len(gammas), n, len(few)))
        z, z_few = basis.project(features), basis.project(feature_map(few))
        for out, a, b in _held_out(betas, z, z_few, gammas, seed):
            shown[:, out], others[:, out] = a, b
            progress(step := step + 1, n_steps, "posterior: cross-validation")
        for g, gamma in enumerate(gammas):
            value = max(_information(shown[g], others[g], t) for t in temperatures)
            scores[f"{feature_map.name} {gamma:g}"] = value
            if best is None or value > best[0]:
                best = (value, feature_map, gamma)
    if best is None:
        raise ValueError("choose needs at least one feature map and one gamma")
    value, feature_map, gamma = best
    features = feature_map(pictures)
    basis = Basis.of(features)
    log_lik = np.empty((n, len(candidates)))
    z, z_all = basis.project(features), basis.project(feature_map(candidates))
    for out, _, b in _held_out(betas, z, z_all, [gamma], seed):
        log_lik[out] = b[0]
        progress(step := step + 1, n_steps, "posterior: cross-validation")
    flat, truth = candidates.reshape(len(candidates), -1), pictures.reshape(n, -1)
    errors = {}
    for t in temperatures:
        mean = weights_of(t * log_lik).astype(np.float32) @ flat
        errors[t] = float(((mean - truth) ** 2).mean())
    temperature = min(errors, key=errors.__getitem__)
    weights = weights_of(temperature * log_lik).astype(np.float32)
    return Choice(feature_map, gamma, temperature, value, weights, scores, errors)
