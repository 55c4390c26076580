"""Rank and fading of the helper by step: r, r/2, ..., 1, 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Decay:
    """When a helper of some rank is gone.

    Attributes
    ----------
    rank : int
        At the start, a power of two; 0 without a helper.
    steps : int
        After which it is gone.
    fade : {"cosine", "linear"}
    at_once : bool
        Keep the whole rank to the end, then drop it.
    """

    rank: int
    steps: int
    fade: Literal["cosine", "linear"] = "cosine"
    at_once: bool = False

    @classmethod
    def of(cls, rank: int, steps: int, fade: Literal["cosine", "linear"], at_once: bool = False) -> Decay:
        """Start at a smaller rank where there are fewer steps than phases."""
        while rank and rank.bit_length() > steps:
            rank //= 2
        return cls(rank, steps, fade, at_once)

    @property
    def phases(self) -> int:
        """log2(rank) + 1: after each the rank is halved, 1 becomes 0."""
        return self.rank.bit_length()

    @property
    def length(self) -> int:
        """Steps of a phase; those left over come after the last."""
        return self.steps // self.phases if self.rank else 0

    def rank_at(self, step: int) -> int:
        """Rank that is in force in a step."""
        if not self.rank or step >= self.length * self.phases:
            return 0
        return self.rank if self.at_once else self.rank >> (step // self.length)

    def factor_at(self, step: int) -> float:
        """u: factor of the half that is decaying; 1 at the start of each phase."""
        if self.at_once or self.rank_at(step) == 0:
            return 1.0
        done = (step % self.length) / self.length
        return (1 + math.cos(math.pi * done)) / 2 if self.fade == "cosine" else 1 - done

    def ends_phase(self, step: int) -> bool:
        """Whether the rank is another one after this step."""
        return self.rank_at(step) != self.rank_at(step + 1)
