"""Timings: what is timed computes what it says; tables and plots come from the rows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from kernels import paths
from kernels.bench import run
from kernels.bench.__main__ import main
from kernels.bench.cases import ATTENTION, IMAGES, LARGE, RANK, SMALL, attention, image, large, small
from kernels.bench.format_cases import formats
from kernels.bench.plots import draw
from kernels.bench.run import COLUMNS, markdown, write
from kernels.bench.shapes import tuning_jobs
from kernels.bench.timed import Timed
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
            assert exact.dtype == torch.float64 and (exact != exact.bfloat16()).any(), case.what
            apart = ((out[: exact.shape[0]].double() - exact).norm() / exact.norm()).item()
            assert apart < (0.2 if case.peer else 3e-3), (case.what, apart)


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


class Once:
    """A replay that runs on the CPU, in a time of its own."""

    def __init__(self, calls: list) -> None:
        self.value = calls[0]()

    def us(self, rep_ms: float) -> float:
        return 10.0


def test_a_wrong_result_has_no_time_and_a_lost_base_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> torch.Tensor:
        raise RuntimeError("no such kernel")

    def broken() -> torch.Tensor:
        raise ValueError("lost")

    monkeypatch.setattr(run, "Replay", Once)
    monkeypatch.setattr(run, "REST_S", 0)
    monkeypatch.setattr(run, "environment", dict)
    one, exact = torch.ones(4, 4), lambda: torch.ones(4, 4).double()
    cases = [
        Timed("bf16", [lambda: one]),
        Timed("right", [lambda: one], exact, 1.0, 1.0),
        Timed("wrong", [lambda: one * 1.1], exact, 1.0, 1.0),
        Timed("lost", [lambda: one * torch.nan], exact, 1.0, 1.0),
        Timed("a peer's", [lambda: one * 1.1], exact, 1.0, 1.0, peer=True),
        Timed("unknown", [lambda: one], broken, 1.0, 1.0),
    ]
    rows = {row["what"]: row for row in run.measure("4x4x4", cases, 3)}
    assert rows["right"]["ratio"] == rows["a peer's"]["ratio"] == "1.000"
    for what in ("wrong", "lost"):
        assert "us" not in rows[what] and "ratio" not in rows[what] and "WRONG" in rows[what]["note"]
    assert "no exact result: ValueError: lost" in rows["unknown"]["note"]
    rows = {row["what"]: row for row in run.measure("4x4x4", [Timed("bf16", [fails]), *cases[1:2]], 3)}
    assert "us" not in rows["bf16"] and rows["right"]["us"] == "10.00" and "ratio" not in rows["right"]


def test_rows_say_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medians of three rounds, the floor that is higher, and the error beside the exact result."""
    asked: list[float] = []

    class Varying(Once):
        def us(self, rep_ms: float) -> float:
            asked.append(rep_ms)
            return [9.0, 200.0, 10.0][(len(asked) - 1) // 3] * self.value.sum().item()

    monkeypatch.setattr(run, "Replay", Varying)
    monkeypatch.setattr(run, "REST_S", 0)
    monkeypatch.setattr(run, "environment", dict)
    one, half = torch.ones(1), torch.ones(1) / 2
    memory, work = 2e-6 * run.MEMORY, 3e-6 * run.PEAK["bf16"]
    cases = [
        Timed("bf16", [lambda: one], None, memory, work, "bf16"),
        Timed("8 bit", [lambda: half], lambda: one.double() * 0.505, memory, work),
        Timed("copy", [lambda: half], None, memory),
    ]
    base, fast, copy = run.measure("1x1x1", cases, 48)
    assert set(asked) == {16} and len(asked) == 9
    assert (base["us"], base["ratio"], base["floor_us"]) == ("10.00", "1.000", "3.00")
    assert (fast["us"], fast["ratio"], fast["bf16_us"]) == ("5.00", "2.000", "10.00")
    assert fast["floor_us"] == copy["floor_us"] == "2.00" and fast["error"] == f"{0.005 / 0.505:.2e}"
    assert base["tflops"] == "237" and fast["tflops"] == "474"


@pytest.mark.skipif(not paths.HAS_TRITON, reason="triton is not installed")
def test_tiles_are_tuned_for_what_the_timed_kernels_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds and shapes by which kernels ask the table, of tensors without data."""
    from kernels.attention import log_attention
    from kernels.images import conv2d
    from kernels.products import expand, few_rows, gemm
    from kernels.rows import quantize

    class Asked(Exception):
        pass

    def asked(kind: str, shape: tuple[int, ...], device: torch.device) -> None:
        raise Asked(kind, tuple(shape))

    def meta(*size: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    none, int8, float8 = (None,) * 8, torch.int8, torch.float8_e4m3fn
    calls = []
    for m, k, n in LARGE:
        x, down = meta(m, k), meta(RANK, k)
        packed, fine = meta(n, k // 2, dtype=torch.uint8), meta(n, k // 64, dtype=int8)
        before = ("none", None, None, 1, 1e-6, None, 1.0, None, None, None)
        calls.append((quantize._run, (x, "pow2_group", 4, 64, None, 0.0, False, down, *before)))
        calls.append((expand._run, (packed, fine, k, 64, True, *none[:4], -9, None)))
        for dtype, depth in ((int8, k), (float8, k), (float8, k + 4 * RANK)):
            a, b = meta(m, depth, dtype=dtype), meta(n, depth, dtype=dtype)
            rest = (torch.bfloat16, "none", None, None, None)
            calls.append((gemm._run, (a, a, b, b, None, None, None, *rest)))
            if depth == k:
                calls.append((gemm._run, (a, a, b, b, None, meta(m, RANK), meta(n, RANK), *rest)))
    for m, k, n in SMALL:
        packed, fine = meta(n, k // 2, dtype=torch.uint8), meta(n, k // 64, dtype=int8)
        calls.append((few_rows._run, (meta(m, k), packed, fine, 64, None, None, None)))
    for b, side, c, n, kernel in IMAGES:
        x, w = meta(b, side, side, c, dtype=int8), meta(n, abs(kernel), abs(kernel), c, dtype=int8)
        pairs = ([1 if kernel > 0 else 2] * 2, [abs(kernel) // 2] * 2, [1, 1])
        calls.append((conv2d._run, (x, x, w, w, None, *pairs, torch.bfloat16, None)))
    for b, heads, queries, keys, d in ATTENTION:
        q, kv = meta(b, heads, queries, d), meta(b, heads, keys, d)
        calls.append((log_attention._run, (q, kv, kv, 1.0, 1.0, 15, None, False, False, None)))
    tuned = tuning_jobs()
    for function, arguments in calls:
        monkeypatch.setattr(f"{function.__module__}.lookup", asked)
        with pytest.raises(Asked) as found:
            function(*arguments)
        assert found.value.args in tuned, found.value.args


def test_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    file = tmp_path / "kernels.csv"
    write(file, [ROW])
    assert run.bench(file, lambda *_: None, budget_s=-1) == []
    assert file.read_text().splitlines() == [",".join(COLUMNS)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("tune --kinds gem", "invalid choice: 'gem'"),
        ("time --budget 0", "must be above 0, got 0 and 8"),
        ("time --budget nan", "must be above 0, got nan"),
        ("tune --workers 0", "got 600 and 0"),
    ],
)
def test_bad_words_are_named(
    arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments.split(), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_plots_of_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "plot", "--out", str(tmp_path)])
    assert main() == 4 and "no timings at" in capsys.readouterr().err
    write(tmp_path / "kernels.csv", [{**ROW, "what": "a kernel that is not drawn"}])
    assert main() == 4 and "holds no timings" in capsys.readouterr().err


def test_what_is_tuned_is_known() -> None:
    jobs = tuning_jobs()
    assert len(jobs) == len(set(jobs)) and {kind for kind, _ in jobs} == set(SPACES)
