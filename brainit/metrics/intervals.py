"""How sure a mean is: bootstrap over pictures, paired differences, binomial and permutation baselines."""

from __future__ import annotations

from itertools import permutations
from math import factorial
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from brainit.errors import InputError

N_DRAWS = 10_000
_BLOCK = 4_000_000  # most numbers held at once while drawing


class Interval(NamedTuple):
    """A mean with its confidence bounds."""

    mean: float
    low: float
    high: float


class Null(NamedTuple):
    """What a score is under random pairing, and how often chance reaches what was seen."""

    observed: float
    chance: float
    low: float
    high: float
    p: float


def _vector(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            f"need at least one finite value per picture, got {values.size} with some not finite or none"
        )
    return values


def _blocks(n_draws: int, width: int) -> list[int]:
    size = max(1, min(n_draws, _BLOCK // max(width, 1)))
    return [min(size, n_draws - start) for start in range(0, n_draws, size)]


def bootstrap_interval(
    values: np.ndarray, level: float = 0.95, n_draws: int = N_DRAWS, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a mean, resampling pictures with replacement.

    Parameters
    ----------
    values : array of shape (n,)
        One score per picture. With one picture the interval is that value: nothing can be said.
    level : float
        Coverage, between 0 and 1.
    n_draws, seed : int
        Number of resamples; the same seed gives the same bounds.
    """
    values = _vector(values)
    if not 0 < level < 1:
        raise InputError(f"level={level}; a confidence level lies between 0 and 1, for example 0.95")
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[generator.integers(0, values.size, (k, values.size))].mean(1)
            for k in _blocks(n_draws, values.size)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def share_interval(
    values: np.ndarray, level: float = 0.95, n_draws: int = N_DRAWS, seed: int = 0
) -> Interval:
    """Interval of a mean of shares (identification): `bootstrap_interval`, but exact where it has no width.

    Ten pictures that are all found say that at least 69 % are, not that all are: where every value is 1, or
    every one 0, the bounds are those of `binomial_interval`.

    Parameters
    ----------
    values : array of shape (n,)
        One share per picture, 0..1.
    level, n_draws, seed
        As for `bootstrap_interval`.
    """
    found = bootstrap_interval(values, level, n_draws, seed)
    if found.mean not in (0.0, 1.0):
        return found
    n = np.size(values)
    return binomial_interval(n if found.mean else 0, n, level)


def paired_interval(
    first: np.ndarray, second: np.ndarray, level: float = 0.95, n_draws: int = N_DRAWS, seed: int = 0
) -> Interval:
    """Bootstrap interval of ``mean(first - second)``; both scores of a picture move together."""
    return bootstrap_interval(_difference(first, second), level, n_draws, seed)


def sign_flip_p(first: np.ndarray, second: np.ndarray, n_draws: int = N_DRAWS, seed: int = 0) -> float:
    """Two-sided p of ``mean(first - second)`` by flipping signs picture by picture.

    (k + 1) / (n_draws + 1), so never 0; exact where there are no more than `n_draws` ways to flip.
    """
    difference = _difference(first, second)
    if 2**difference.size <= n_draws:
        bits = np.arange(2**difference.size)[:, None] >> np.arange(difference.size)
        flipped = np.abs(((bits & 1) * 2.0 - 1.0) @ difference)
        return float((flipped >= abs(difference.sum()) * (1 - 1e-12)).mean())
    generator = np.random.default_rng(seed)
    seen = abs(difference.mean()) * (1 - 1e-12)  # rounding must not hide the identity permutation
    hits = 0
    for k in _blocks(n_draws, difference.size):
        signs = generator.integers(0, 2, (k, difference.size), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs((signs * difference).mean(1)) >= seen).sum())
    return (hits + 1) / (n_draws + 1)


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = _vector(first), _vector(second)
    if first.size != second.size:
        raise InputError(
            f"paired scores of {first.size} and {second.size} pictures; both must be the same pictures"
        )
    return first - second


def permutation_null(pairs: np.ndarray, level: float = 0.95, n_draws: int = N_DRAWS, seed: int = 0) -> Null:
    """Null distribution of a mean score when reconstructions are dealt to stimuli at random.

    Parameters
    ----------
    pairs : float array of shape (n, n)
        Score of every stimulus (row) with every reconstruction (column), larger is better; the diagonal is
        what was observed. NaN (a constant picture) counts as 0. For PixCorr it is `correlation_block`.
    n_draws : int
        Dealings that are drawn; all of them where there are no more.
    """
    pairs = np.nan_to_num(np.asarray(pairs, np.float64))
    if pairs.ndim != 2 or pairs.shape[0] != pairs.shape[1] or pairs.shape[0] < 2:
        raise InputError(f"pair scores have shape {pairs.shape}; expected (n, n) with n >= 2")
    n = len(pairs)
    generator = np.random.default_rng(seed)
    rows = np.arange(n)
    exact = factorial(n) <= n_draws
    dealt = permutations(range(n)) if exact else (generator.permutation(n) for _ in range(n_draws))
    draws = np.array([pairs[rows, np.asarray(one)].mean() for one in dealt])
    observed = float(np.diagonal(pairs).mean())
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    hits = int((draws >= observed - 1e-12).sum())
    p = hits / len(draws) if exact else (hits + 1) / (n_draws + 1)  # all dealings hold the observed one
    return Null(observed, float(pairs.mean()), float(low), float(high), p)


def binomial_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval of a share, for identification with few pictures."""
    _check_counts(successes, n)
    bounds = binomtest(int(successes), int(n)).proportion_ci(level, method="exact")
    return Interval(successes / n, float(bounds.low), float(bounds.high))


def _check_counts(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n}; need n >= 1 and 0 <= successes <= n")
