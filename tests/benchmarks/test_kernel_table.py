"""The README shows the committed timings, and a table of other ones is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kernel_table
from lab.errors import InputError


def test_the_readme_is_made_from_the_committed_timings(repo: Path) -> None:
    text = (repo / "README.md").read_text(encoding="utf-8")
    assert kernel_table.written(text) == text, "run python -m benchmarks.kernel_table"


def test_another_table_is_noticed(repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (repo / "README.md").read_text(encoding="utf-8")
    changed = tmp_path / "README.md"
    changed.write_text(text.replace(kernel_table.END, "9.99\n" + kernel_table.END), encoding="utf-8")
    assert kernel_table.main(["--check", "--readme", str(changed)]) == 1
    assert kernel_table.main(["--readme", str(changed)]) == 0
    assert changed.read_text(encoding="utf-8") == text
    assert kernel_table.main(["--check", "--readme", str(changed)]) == 0
    assert "up to date" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no timings at"):
        kernel_table.lines(tmp_path)
    with pytest.raises(InputError, match="put them where the table goes"):
        kernel_table.written("nothing")
