"""How a bad command must end: one clear line, the right exit code, nothing half-written.

Each row of a table makes its bad input in a fresh folder and returns the command. What must hold for all:
exactly one line on stderr, no traceback, the line names what is wrong and what to do, stdout stays empty, and
the run folder, where there is one at all, holds whole files only and no result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cli.main import run
from tests.brainit.datasets.conftest import mat_parts, write_mat

Capture = pytest.CaptureFixture[str]
Command = list[str]


@dataclass(frozen=True)
class Row:
    """One bad input: how it is made, how the command ends, and what its line must say."""

    make: Callable[[Path], Command]
    says: tuple[str, ...]
    code: int = 2


def prepare(dataset: str, root: Path, *more: str) -> Command:
    return ["brain", "prepare", "--dataset", dataset, "--root", str(root), *more]


def mat(tmp: Path, *more: str, **changes: object) -> Command:
    return prepare("mat", write_mat(tmp / "a.mat", **changes), *more)


def option(*words: str) -> Callable[[Path], Command]:
    return lambda tmp: mat(tmp, *words)


def reconstruct(*words: str) -> Callable[[Path], Command]:
    """The same through `reconstruct`, whose options are more; a dry run, since the names are at fault."""

    def command(tmp: Path) -> Command:
        root = str(write_mat(tmp / "a.mat"))
        return ["brain", "reconstruct", "--dataset", "mat", "--root", root, "--dry-run", *words]

    return command


def on_model(*words: str) -> Callable[[Path], Command]:
    return lambda tmp: [word.replace("TMP", str(tmp)) for word in words]


def adapt(*words: str) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        root = str(write_mat(tmp / "a.mat", **mat_parts(n_train=60, n_test=8)))
        return ["brain", "adapt", "--dataset", "mat", "--root", root, "--out", str(tmp / "out"), *words]

    return command


def contents(folder: Path) -> dict[str, bytes]:
    files = folder.rglob("*") if folder.is_dir() else [folder] if folder.exists() else []
    return {str(f.relative_to(folder.parent)): f.read_bytes() for f in files if f.is_file()}


def assert_nothing_half_written(out: Path) -> None:
    for file in contents(out):
        name = Path(file).name
        assert name in {"config.yaml", "log.jsonl", ".lock", "subject.json", "data.json", "versions.json"}, (
            file
        )
        if name.endswith(".json"):
            json.loads((out.parent / file).read_text())


def one_line(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("reading ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err and "internal error" not in captured.err
    return lines[0]


def refused(row: Row, tmp: Path, capsys: Capture, kept: bool = False) -> None:
    """Run a row's command and check all of it.

    Parameters
    ----------
    kept : bool
        The row itself makes the run folder, which must be left as it was.
    """
    command, out = row.make(tmp), tmp / "out"
    if command[:2] in (["brain", "prepare"], ["brain", "reconstruct"]):
        command += ["--out", str(out)]
    before = contents(out)
    assert run(command) == row.code
    line = one_line(capsys)
    for words in row.says:
        assert words in line, line
    if kept:
        after = contents(out)
        assert {k: after[k] for k in before} == before and not set(after) - set(before) - {"out/.lock"}
    else:
        assert_nothing_half_written(out)
