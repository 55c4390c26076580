"""Lines by room: code is told from what explains it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rooms import count, rooms, table

TEXT = '''"""What it is.

More.
"""

import os  # here

# why
HOLDS = """two
lines"""
"""What it holds."""


def f(x: int) -> int:
    """Double."""
    return (
        2 * x
    )
'''


def test_blank_lines_comments_and_docstrings_are_no_code() -> None:
    assert count(TEXT) == (1, 18, 7, 18)


def test_rooms_add_up(tmp_path: Path) -> None:
    for package in ("kernels", "quant", "brainit", "lab"):
        (tmp_path / package / "inner" / "deep").mkdir(parents=True)
        for place in ("a.py", "inner/b.py", "inner/deep/c.py"):
            (tmp_path / package / place).write_text(TEXT)
    assert rooms(tmp_path, "quant") == {"quant": (1, 18, 7, 18), "quant/inner": (2, 36, 14, 18)}
    assert "| **the product** | 12 | 216 | 84 | 18 | 18 |" in table(tmp_path)
