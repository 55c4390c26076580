"""The README shows the committed timings, and a table of other ones is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kernel_table
from benchmarks.files import read_csv, write_csv
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


def test_two_devices_in_one_table_are_refused_and_a_lost_base_is_left_out(tmp_path: Path) -> None:
    rows = read_csv(kernel_table.RESULTS / "kernels-h200.csv")
    first = rows[0]["shape"]
    assert any(line.startswith(f"| {first} |") for line in kernel_table.lines())
    for row in rows:
        if row["shape"] == first and row["what"] == "bf16":
            row.pop("us")
    write_csv(tmp_path / "kernels-h200.csv", rows)
    table = kernel_table.lines(tmp_path)
    assert not any(line.startswith(f"| {first} |") for line in table[: table.index("", 2)])
    rows[-1]["device"] = "another GPU"
    write_csv(tmp_path / "kernels-h200.csv", rows)
    with pytest.raises(InputError, match=r"mixes one NVIDIA H200, .* and one another GPU"):
        kernel_table.lines(tmp_path)


def test_the_first_line_is_of_the_largest_layers_wherever_they_stand(tmp_path: Path) -> None:
    rows = read_csv(kernel_table.RESULTS / "kernels-h200.csv")
    wanted = kernel_table.short(kernel_table.RESULTS)[0]
    large = [row for row in rows if row["what"] == kernel_table.LAYER and row["shape"] == "4096x12288x3072"]
    assert f"{large[0]['ratio']:.2f} times" in wanted  # the slower of two of the same size is not left out
    write_csv(tmp_path / "kernels-h200.csv", rows[::-1])
    (tmp_path / "whole-models-h200.csv").write_bytes(
        (kernel_table.RESULTS / "whole-models-h200.csv").read_bytes()
    )
    assert kernel_table.short(tmp_path)[0] == wanted
    for row in rows:
        if row["what"] == kernel_table.LAYER:
            row.pop("ratio")
    write_csv(tmp_path / "kernels-h200.csv", rows)
    assert kernel_table.short(tmp_path) == []
