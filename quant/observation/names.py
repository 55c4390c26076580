"""Layer names like a pattern."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(pattern: str, names: Sequence[str], most: int) -> list[str]:
    """Return names with a part (as many components as the pattern has) that is most like a pattern."""
    core = pattern.replace("*", "").strip(".")
    size = core.count(".") + 1

    def likeness(name: str) -> float:
        parts = name.split(".")
        windows = {".".join(parts[i : i + size]) for i in range(max(1, len(parts) - size + 1))}
        return max(difflib.SequenceMatcher(None, core, window).ratio() for window in windows)

    return sorted(names, key=likeness, reverse=True)[:most]
