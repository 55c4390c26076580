"""How the decoder reports: a plain callable ``progress(done, total, what)``."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Hear nothing: nobody watches."""
