"""Timings: what is timed computes what it says; tables and plots come from the rows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from kernels.bench.cases import attention, image, large, small
from kernels.bench.format_cases import formats
from kernels.bench.plots import draw
from kernels.bench.run import COLUMNS, markdown, write
from kernels.bench.shapes import tuning_jobs
from kernels.tuned.spaces import SPACES

ROW = {
    "shape": "64x64x64", "what": "gemm fp8", "peer": 0, "us": "10.0", "ratio": "2.0", "error": "1e-03",
    "floor_us": "5.0", "device": "a GPU", "torch": "2", "triton": "3", "note": "",
}  # fmt: skip


def test_every_case_is_close_to_its_exact_result() -> None:
    cases = [
        *large(140, 128, 64, "cpu"), *small(2, 128, 64, "cpu"), *image(1, 8, 32, 16, 3, "cpu"),
        *image(1, 8, 32, 16, -3, "cpu"), *attention(1, 2, 20, 9, 16, "cpu"),
        *formats(torch.randn(70, 64).bfloat16(), 48, torch.zeros(48).bfloat16(), torch.Generator()),
    ]  # fmt: skip
    assert [case.what for case in cases].count("bf16") == 5
    for case in cases:
        out = case.calls[0]()
        assert out.numel() and torch.isfinite(out.float()).all(), case.what
        if case.exact is not None:
            exact = case.exact()
            apart = ((out[: exact.shape[0]].double() - exact).norm() / exact.norm()).item()
            assert apart < (0.2 if case.peer else 8e-3), (case.what, apart)


def test_tables_and_plots_come_from_the_rows(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "what": "torch._scaled_mm", "peer": 1, "us": "", "note": "not here"}]
    file = tmp_path / "kernels.csv"
    write(file, rows)
    with file.open(newline="") as stream:
        again = list(csv.DictReader(stream))
    assert list(again[0]) == COLUMNS and again[0]["us"] == "10.0"
    assert "| 64x64x64 | gemm fp8 | 10.0 | 2.0 | 1e-03 | 5.0 |" in file.with_suffix(".md").read_text()
    assert "not here" in markdown(rows)
    assert [path.name for path in draw(file, tmp_path)] == ["ratios.png", "roofline.png"]
    write(file, [rows[1]])
    with pytest.raises(ValueError, match="holds no timings"):
        draw(file, tmp_path)


def test_what_is_tuned_is_known() -> None:
    jobs = tuning_jobs()
    assert len(jobs) == len(set(jobs)) and {kind for kind, _ in jobs} == set(SPACES)
