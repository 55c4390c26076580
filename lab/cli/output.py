"""Results on stdout: a table for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lab.files import plain


def emit_json(content: Any) -> None:
    """Print JSON, keys in the order given."""
    sys.stdout.write(json.dumps(content, indent=2, default=plain) + "\n")


def emit_line(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


def emit_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, columns: Sequence[str] | None = None) -> None:
    """Print records: a table with one row each, or JSON.

    Parameters
    ----------
    rows : sequence of mapping
        Records with the same keys.
    as_json : bool
        JSON shows every key, the table only ``columns``.
    columns : sequence of str, optional
        Keys in the order of the table; default all of the first record.
    """
    if as_json:
        emit_json(list(rows))
        return
    if not rows:
        emit_line("(none)")
        return
    names = list(columns or rows[0])
    _table(names, [[word(row.get(name)) for name in names] for row in rows])


def emit_record(record: Mapping[str, Any], as_json: bool) -> None:
    """Print one record: name and value a line, or JSON."""
    if as_json:
        emit_json(dict(record))
        return
    width = max((len(key) for key in record), default=0)
    for key, value in record.items():
        emit_line(f"{key.ljust(width)}  {word(value)}")


def word(value: Any) -> str:
    """Write one value for a person."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {word(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(word(inner) for inner in value) or "-"
    return str(value)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: do not fold what the next program reads.
    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else 1_000, markup=False, highlight=False
    )
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))
