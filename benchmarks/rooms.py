"""Count the lines of every room: what is code, what explains it, and how long files are.

python -m benchmarks.rooms --out benchmarks/results/rooms.md
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).resolve().parent.parent
PACKAGES = ("kernels", "quant", "brainit", "lab")
EMPTY = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
HEAD = """| room | files | lines | of them code | lines a file | longest |
| --- | --- | --- | --- | --- | --- |"""


class Lines(NamedTuple):
    """Lines of one file or of many."""

    files: int
    lines: int
    code: int
    longest: int

    def row(self, name: str) -> str:
        """Return a row of the table."""
        mean = self.lines / max(1, self.files)
        return f"| {name} | {self.files} | {self.lines:,} | {self.code:,} | {mean:.0f} | {self.longest} |"


def count(text: str) -> Lines:
    """Count the lines of a module, and those with code: no blank ones, comments or docstrings."""
    explained: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                explained |= set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in EMPTY:
            code |= set(range(token.start[0], token.end[0] + 1))
    total = len(text.splitlines())
    return Lines(1, total, len(code - explained), total)


def together(found: Iterable[Lines]) -> Lines:
    """Add files up."""
    every = list(found)
    longest = max((one.longest for one in every), default=0)
    return Lines(len(every), sum(x.lines for x in every), sum(x.code for x in every), longest)


def rooms(home: Path, package: str) -> dict[str, Lines]:
    """Return lines by room; files of the package's own floor stand under its name."""
    held: dict[str, list[Lines]] = {}
    for file in sorted((home / package).rglob("*.py")):
        inside = file.relative_to(home / package).parts
        name = package if len(inside) == 1 else f"{package}/{inside[0]}"
        held.setdefault(name, []).append(count(file.read_text(encoding="utf-8")))
    return {name: together(files) for name, files in held.items()}


def table(home: Path) -> str:
    """Return the table as Markdown."""
    rows = [
        "| room | files | lines | of them code | lines a file | longest |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    every: list[Lines] = []
    for package in PACKAGES:
        found = rooms(home, package)
        whole = together(count(f.read_text(encoding="utf-8")) for f in sorted((home / package).rglob("*.py")))
        every.append(whole)
        rows.append(whole.row(f"**{package}**"))
        rows += [found[name].row(f"`{name}`") for name in sorted(found, key=lambda name: -found[name].lines)]
    total = Lines(
        sum(x.files for x in every),
        sum(x.lines for x in every),
        sum(x.code for x in every),
        max(x.longest for x in every),
    )
    return "\n".join([*rows, total.row("**the product**")]) + "\n"


def main() -> None:
    """Write the table, with the commit that it is of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="Markdown file")
    out = parser.parse_args().out
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HOME, capture_output=True, text=True, check=True
    )
    out.write_text(
        f"Of commit {done.stdout.strip()}; `python -m benchmarks.rooms`.\n\n{table(HOME)}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
