"""Bootstrap over seeds and pictures: one set of resamples for everything, so all differences are paired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainit.metrics import Interval, binomial_interval
from lab.compare.measuring import Measured

DRAWS = 4000
LEVEL = 0.95
SHARES = ("two_way",)
"""Measures of a picture that are a share of others."""


class Resampler:
    """Percentile bootstrap of means over seeds and pictures, both drawn with replacement.

    A seed stands for other noise *and* another calibration, a picture for another condition; every picture
    is measured at every seed. Both are drawn apart and crossed (Owen, The pigeonhole bootstrap, 2007), so an
    effect that one calibration has and the next has not is not taken for one of the method. With few seeds
    the interval reaches about from the least to the largest of them.

    Parameters
    ----------
    n : int
        Pictures.
    """

    def __init__(self, n: int, draws: int = DRAWS, seed: int = 0) -> None:
        self._draws, self._seed = draws, seed
        self._pictures = self._shares(n, 0)

    def _shares(self, n: int, axis: int) -> np.ndarray:
        """How much each of n counts in each draw, (draws, n)."""
        generator = np.random.default_rng([self._seed, axis])
        return generator.multinomial(n, np.full(n, 1 / n), size=self._draws) / n

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means of ``values`` (n,) or (seeds, n) in each draw: (draws,)."""
        table = np.atleast_2d(values)
        means = self._pictures @ table.T  # of each draw's pictures, at each seed
        return (means * self._shares(len(table), 1)).sum(1)

    def interval(self, values: np.ndarray) -> Interval:
        """Mean and bounds of ``values`` (n,) or (seeds, n)."""
        return Interval(float(np.mean(values)), *bounds(self.means(values)))


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """Return what the middle 95 % of draws lie between."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class Scores:
    """Numbers of all measurements by recipe: `arrays` per picture, `scalars` per seed."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.by_recipe: dict[str, dict[int, Measured]] = {}
        for one in measured:
            self.by_recipe.setdefault(one.recipe, {})[one.seed] = one
        sizes = {len(a) for one in measured for a in one.arrays.values()}
        self.n = max(sizes, default=0)
        self._resampler = Resampler(self.n) if self.n else None

    def seeds(self, *recipes: str) -> list[int]:
        """Seeds that all of these recipes have."""
        have = [set(self.by_recipe.get(r, {})) for r in recipes]
        return sorted(set.intersection(*have)) if have else []

    def array(self, recipe: str, metric: str, seeds: Sequence[int]) -> np.ndarray | None:
        """Values (seeds, n) of a metric, or None if a measurement lacks it."""
        rows = [self.by_recipe[recipe][s].arrays.get(metric) for s in seeds]
        return None if not rows or any(r is None for r in rows) else np.stack(rows)  # type: ignore[arg-type]

    def scalars(self, recipe: str, metric: str) -> list[float]:
        """One number per seed, of those that have it."""
        found = (self.by_recipe[recipe][s].numbers.get(metric) for s in self.seeds(recipe))
        return [float(v) for v in found if isinstance(v, int | float)]

    def interval(self, recipe: str, metric: str) -> Interval | None:
        """Mean over seeds and pictures with its bootstrap interval; a share that is whole has an exact one.

        Four pictures that are all recognised say that at least 40 % are, not that all are.
        """
        values = self.array(recipe, metric, self.seeds(recipe)) if recipe in self.by_recipe else None
        if values is None or self._resampler is None:
            return None
        found = self._resampler.interval(values)
        if metric in SHARES and found.mean in (0.0, 1.0):
            return binomial_interval(self.n if found.mean else 0, self.n, LEVEL)
        return found

    def by_seed(self, recipe: str, metric: str) -> list[float]:
        """Mean of each seed."""
        values = self.array(recipe, metric, self.seeds(recipe))
        return [] if values is None else values.mean(1).tolist()

    def difference(self, first: str, second: str, metric: str) -> Interval | None:
        """Mean of first minus second, picture by picture over common seeds, with its interval."""
        seeds = self.seeds(first, second)
        a, b = (self.array(r, metric, seeds) if seeds else None for r in (first, second))
        return None if a is None or b is None or self._resampler is None else self._resampler.interval(a - b)
