"""Which part of a comparison one process does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import InputError
from lab.panel.recipes import Recipe


@dataclass(frozen=True)
class Duty:
    """What one process measures at one seed.

    Parameters
    ----------
    seed : int
    recipes : tuple of Recipe
    leads : bool
        Measures full precision and its null too; of all processes one does at each seed.
    """

    seed: int
    recipes: tuple[Recipe, ...]
    leads: bool

    @property
    def size(self) -> int:
        """Parts to measure."""
        return len(self.recipes) + 2 * self.leads


def duties(recipes: Sequence[Recipe], seeds: int, part: str | None) -> list[Duty]:
    """Divide (seed, recipe) pairs, seed by seed, so that a process needs few full-precision references.

    Neighbours in the list of recipes are of one method and cost about the same, so they go to different
    processes.

    Parameters
    ----------
    recipes : sequence of Recipe
    seeds : int
    part : str, optional
        ``i/k``: the i-th of k shares; everything if left out.

    Raises
    ------
    InputError
        The text is not ``i/k`` with 1 <= i <= k.
    """
    if part is None:
        return [Duty(seed, tuple(recipes), True) for seed in range(seeds)]
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--share {part}: write i/k with 1 <= i <= k, as 2/4")
    i, k = int(match[1]), int(match[2])
    lanes = -(-k // seeds)
    order = sorted(range(len(recipes)), key=lambda j: (j % lanes, j))
    pairs = [(seed, j) for seed in range(seeds) for j in order]
    mine = pairs[(i - 1) * len(pairs) // k : i * len(pairs) // k]
    return [
        Duty(
            seed,
            tuple(recipes[j] for s, j in mine if s == seed),
            (seed, order[0]) in mine,
        )
        for seed in sorted({s for s, _ in mine})
    ]
