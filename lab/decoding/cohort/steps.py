"""A study in steps that several processes take side by side: what each makes, and what it needs before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

FUNCTIONAL = "functional"
"""The step that trains the network of all subjects but the newcomer."""
Key = tuple[str, str, str]
"""Group, method and subject: scores of the board."""


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Parameters
    ----------
    name : str
    makes : tuple of Key
        Scores that are there when it is done; they stand in the table in this order.
    work : callable
        Without arguments.
    needs : str, optional
        Step that must be done before.
    long : float
        How long it takes beside others, to begin with the longest.
    """

    name: str
    makes: tuple[Key, ...]
    work: Callable[[], Any]
    needs: str = ""
    long: float = 1.0

    def done(self, scores: Iterable[Key]) -> bool:
        """Return whether all of its scores are among these."""
        return set(self.makes) <= set(scores)


def ready(steps: Sequence[Step], done: set[str], taken: set[str]) -> Step | None:
    """Return the longest step that can begin: neither done nor taken, and what it needs is done."""
    able = [s for s in steps if s.name not in done | taken and (not s.needs or s.needs in done)]
    return max(able, key=lambda step: step.long, default=None)
