"""Bootstrap over pictures: one set of resamples for everything, so that all differences are paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lab.panel.arm import Part

DRAWS = 4000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its bounds."""

    mean: float
    low: float
    high: float


class Resampler:
    """Percentile bootstrap of means over pictures.

    A picture's seeds move together: pictures are what is drawn, and the mean over seeds is taken first, so
    the interval is about other pictures. How much seeds differ is told apart (`by_seed`).

    Parameters
    ----------
    n : int
        Pictures.
    """

    def __init__(self, n: int, draws: int = DRAWS, seed: int = 0) -> None:
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
        self.weights = counts / n

    def interval(self, values: np.ndarray) -> Interval:
        """Mean and bounds of ``values`` (n,) or (seeds, n)."""
        flat = values.mean(0) if values.ndim == 2 else values
        low, high = np.quantile(self.weights @ flat, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(flat.mean()), float(low), float(high))


class Scores:
    """Numbers of all parts by recipe: `arrays` a picture, `scalars` a seed."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts: dict[str, dict[int, Part]] = {}
        for part in parts:
            self.parts.setdefault(part.recipe, {})[part.seed] = part
        sizes = {len(a) for p in parts for a in p.arrays.values()}
        self.n = max(sizes, default=0)
        self._resampler = Resampler(self.n) if self.n else None

    def seeds(self, *recipes: str) -> list[int]:
        """Seeds that all of these recipes have."""
        have = [set(self.parts.get(r, {})) for r in recipes]
        return sorted(set.intersection(*have)) if have else []

    def array(self, recipe: str, metric: str, seeds: Sequence[int]) -> np.ndarray | None:
        """Values (seeds, n) of a metric, or None if a part lacks it."""
        rows = [self.parts[recipe][s].arrays.get(metric) for s in seeds]
        return None if not rows or any(r is None for r in rows) else np.stack(rows)  # type: ignore[arg-type]

    def scalars(self, recipe: str, metric: str) -> list[float]:
        """One number a seed, of those that have it."""
        found = (self.parts[recipe][s].numbers.get(metric) for s in self.seeds(recipe))
        return [float(v) for v in found if isinstance(v, int | float)]

    def interval(self, recipe: str, metric: str) -> Interval | None:
        """Mean over pictures and seeds with its bootstrap interval."""
        values = self.array(recipe, metric, self.seeds(recipe)) if recipe in self.parts else None
        return None if values is None or self._resampler is None else self._resampler.interval(values)

    def by_seed(self, recipe: str, metric: str) -> list[float]:
        """Mean of each seed."""
        values = self.array(recipe, metric, self.seeds(recipe))
        return [] if values is None else values.mean(1).tolist()

    def difference(self, first: str, second: str, metric: str) -> Interval | None:
        """Mean of first minus second, picture by picture over common seeds, with its interval."""
        seeds = self.seeds(first, second)
        a, b = (self.array(r, metric, seeds) if seeds else None for r in (first, second))
        return None if a is None or b is None or self._resampler is None else self._resampler.interval(a - b)
