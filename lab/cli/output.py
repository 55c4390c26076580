"""Results on stdout: tables for a person, with what was written and what to do next; JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.files import plain

if TYPE_CHECKING:
    from lab.jobs.contract import Result, Table

NARROW = 12
"""Characters that a column can be folded to."""
SENTENCE = 44
"""Characters that a first column of more than a name can be folded to."""
WIDTH = 100
"""Columns of a table where nobody says how wide the terminal is."""


def emit(result: Result, as_json: bool) -> None:
    """Print a job's result: its tables, its files and a next step; or all of it as JSON, keys as they are."""
    if as_json:
        sys.stdout.write(json.dumps(result.plain(), indent=2, default=plain) + "\n")
        return
    for number, table in enumerate(result.tables()):
        sys.stdout.write("\n" if number and table.kind != "lines" else "")
        _emit(table)
    for what, path in result.files().items():
        sys.stdout.write(f"{what}: {path}\n" if path else "")
    if step := result.next_step():
        sys.stdout.write(f"next: {step}\n")


def _emit(table: Table) -> None:
    if table.kind == "lines":
        for row in table.rows:
            sys.stdout.write(f"{row['text'].rstrip()}\n")
    elif not table.rows:
        sys.stdout.write("(none)\n")
    elif table.kind == "record":
        width = max(len(str(row["name"])) for row in table.rows)
        for row in table.rows:
            sys.stdout.write(f"{str(row['name']).ljust(width)}  {word(row['value'])}\n")
    else:
        names = list(table.columns or table.rows[0])
        _table(names, [[word(row.get(name)) for name in names] for row in table.rows])


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

    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False
    )
    least = [max(len(name), min(NARROW, max(len(row[i]) for row in rows))) for i, name in enumerate(names)]
    longest = max(len(row[0]) for row in rows)
    whole = longest <= SENTENCE or not any(" " in row[0] for row in rows)  # a name, to be copied as one
    least[0] = max(len(names[0]), longest if whole else SENTENCE)
    shown = next(n for n in range(len(names), 0, -1) if n == 1 or sum(least[:n]) + 2 * n <= console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(names[:shown]):
        table.add_column(name, overflow="fold", no_wrap=number == 0 and whole, min_width=least[number])
    for row in rows:
        table.add_row(*row[:shown])
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))
    if shown < len(names):
        sys.stdout.write(f"(more with --json: {', '.join(names[shown:])})\n")
