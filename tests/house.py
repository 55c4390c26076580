"""What the house rules compute: which file imports which, circles among them, and lines that stand twice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

RUN = 10
"""Equal lines in a row that count as a copy."""


def imports(repo: Path, files: list[Path]) -> dict[str, set[str]]:
    """Modules that each module imports, at any depth of its code; not those for type checkers alone."""
    names = {_module(repo, file): file for file in files}
    return {
        name: {found for found in _imported(name, file, set(names)) if found != name}
        for name, file in names.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found)


def copies(repo: Path, files: list[Path]) -> list[str]:
    """Runs of ten or more equal lines in two places, as ``file:line = file:line (lines)``.

    Blank lines, comments and imports do not count and do not end a run; indentation does not matter.
    """
    lines = {file: list(_lines(file)) for file in files}
    first: dict[tuple[str, ...], tuple[Path, int]] = {}
    found: list[str] = []
    covered: dict[tuple[Path, Path], tuple[int, int]] = {}
    for file, own in lines.items():
        for at in range(len(own) - RUN + 1):
            key = tuple(text for _, text in own[at : at + RUN])
            where = first.setdefault(key, (file, at))
            if where == (file, at) or (where[0] == file and at - where[1] < RUN):
                continue
            pair = (where[0], file)
            if covered.get(pair) != (where[1] - 1, at - 1):  # not the run before, one line on
                there = lines[where[0]][where[1]][0]
                found.append(f"{where[0].relative_to(repo)}:{there} = {file.relative_to(repo)}:{own[at][0]}")
            covered[pair] = (where[1], at)
    return found


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        bare = text.strip()
        if bare and not bare.startswith(("#", "import ", "from ")):
            yield number, bare


def _module(repo: Path, file: Path) -> str:
    return ".".join(file.relative_to(repo).with_suffix("").parts).removesuffix(".__init__")


def _imported(name: str, file: Path, known: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):  # for types alone, too
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = name.split(".")[: -node.level + (file.stem == "__init__") or None]
                base = ".".join([*parent, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known:
                    yield inner
                elif base in known:
                    yield base
