"""Two runs of the kernels' bench are compared by their ratios, and what is beyond noise is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kernel_repeat
from benchmarks.files import read_csv, write_csv

COMMITTED = kernel_repeat.RESULTS / "kernels-h200.csv"


def altered(tmp_path: Path, factor: float, **more: str) -> Path:
    """Write the committed timings with one long row's ratio times `factor`."""
    rows = read_csv(COMMITTED)
    row = next(row for row in rows if row["what"] == "gemm fp8" and row["us"] > kernel_repeat.SHORT_US)
    row["ratio"] *= factor
    for each in rows:
        each.update(more)
    write_csv(tmp_path / "kernels.csv", rows)
    return tmp_path / "kernels.csv"


def test_a_run_repeats_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_repeat.main([str(COMMITTED)]) == 0
    count = sum("ratio" in row and row["what"] != "bf16" for row in read_csv(COMMITTED))
    assert f"{count} of {count} rows repeat" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "code"), [(1.04, 0), (1.06, 1), (0.94, 1)])
def test_what_is_beyond_noise_ends_with_1(
    factor: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = altered(tmp_path, factor)
    assert kernel_repeat.main([str(file)]) == code
    first = capsys.readouterr().out.splitlines()[4]  # the row that differs most comes first
    assert "gemm fp8" in first and f"{100 * (factor - 1):+.1f} %" in first
    assert kernel_repeat.main([str(file), "--noise", "0.1"]) == 0


def test_what_did_not_run_again_does_not_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = altered(tmp_path, float("nan"))
    assert kernel_repeat.main([str(file)]) == 1
    assert "gemm fp8" in capsys.readouterr().out.splitlines()[4]
    rows = read_csv(COMMITTED)
    failed = next(row for row in rows if row["what"] == "gemm int8")
    for key in ("us", "ratio"):
        failed.pop(key)
    write_csv(file, rows)
    assert kernel_repeat.main([str(file)]) == 0
    assert "; 1 rows were timed in one of the runs only" in capsys.readouterr().out


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_repeat.main([str(altered(tmp_path, 1, triton="4.0"))]) == 2
    assert "triton 3.6.0 and 4.0" in capsys.readouterr().err
    (tmp_path / "empty.csv").write_text("a,b\n1,2\n")
    assert kernel_repeat.main([str(tmp_path / "empty.csv")]) == 2
    assert "holds no timings" in capsys.readouterr().err
    assert kernel_repeat.main([str(tmp_path / "none.csv")]) == 2
    with pytest.raises(SystemExit):
        kernel_repeat.main([str(COMMITTED), "--noise", "5"])
