"""The committed tables: their rows come back from CSV, and Markdown is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.files import read_csv, write_csv
from benchmarks.markdown import to_markdown
from benchmarks.ptq import publish


@pytest.mark.parametrize("name", ["dit-64-ptq", "unet-64-ptq"])
def test_committed_rows_make_the_committed_table(name: str, repo: Path, tmp_path: Path) -> None:
    folder = repo / "benchmarks" / "results" / "ptq"
    rows, text = read_csv(folder / f"{name}.csv"), (folder / f"{name}.md").read_text()
    about = {
        "model": name.removesuffix("-ptq"), "command": "c", "hardware": "h", "date": "d", "commit": "c",
        "versions": {}, "n": 256, "seeds": 3, "steps": 20, "guidance": 2.0, "conditions": "c",
        "recording": "r",
    }  # fmt: skip
    gate = {"name": "planted", "expected": "nothing", "found": "something", "passed": False}
    result = {"about": about, "rows": rows, "gates": [gate], "orderings": [], "failed": []}
    made = to_markdown(result)
    table = [line for line in made.splitlines() if line.startswith("| ") and "planted" not in line]
    known = set(text.splitlines())
    assert len(rows) > 40 and len([line for line in table if line in known]) >= len(rows)
    assert "**failed**" in made
    publish(result, tmp_path / "none.png", tmp_path / "out", name)
    assert read_csv(tmp_path / "out" / f"{name}.csv") == rows
    assert not (tmp_path / "out" / f"{name}.png").exists()


def test_empty_cells_are_left_out(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 0.5, "commit": "3185e73"}, {"a": "x", "c": 2, "commit": "1234567"}]
    write_csv(tmp_path / "a.csv", rows)
    assert read_csv(tmp_path / "a.csv") == rows
