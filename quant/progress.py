"""Progress is a plain callable ``progress(done, total, what)``; no result may depend on it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""
