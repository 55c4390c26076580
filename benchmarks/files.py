"""Results as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.compare.tables import to_csv
from lab.files import write_text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with every column that any of them has."""
    write_text(path, to_csv(rows))


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read rows back, numbers as numbers, commits as text (3185e73 is one); empty cells are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {k: v if k == "commit" else _value(v) for k, v in row.items() if v != ""}
            for row in csv.DictReader(file)
        ]


def _value(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
